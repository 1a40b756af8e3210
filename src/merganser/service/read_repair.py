"""Read repair: bring replicas up to what a read has just merged.

A read that met different answers has the newest row in hand. Before the client hears it, as many primaries
as the read had to ask must hold it (`ReadRepair.settle`), or a later read might meet only replicas that do
not: reads of one key would go back in time. A replica that answers a repair with something newer holds it, too.

What the read did not ask is looked at in the background (`ReadRepair.look`): always after a mismatch, because
where one replica missed a write others may have, and now and then without one. That is best effort and
bounded: beyond the bound, or while the node is busy, it is dropped (the next read tries again), so a flood of
stale reads cannot fill memory.

Source: DeCandia 2007 §5; blocking repair and why: Cassandra, CASSANDRA-4456 and CASSANDRA-10726.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, cast

from merganser.core import horizon
from merganser.core.quorum import Verdict
from merganser.model.consistency import Need
from merganser.model.errors import MerganserError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Found, Read, Reply, Request
from merganser.model.row import Row
from merganser.service.asking import SILENT_S, Writing, error_of
from merganser.storage.values import decode_row, encode_row

REPAIRS_MAX = 1024  # about 1 MiB of 1 KB rows in flight


class Reconciled(NamedTuple):
    """What several answers for one key come to."""

    row: Row | None
    stale: tuple[NodeId, ...]
    """Who answered with less."""
    vouched_us: int = 0
    """If answers differed: the highest horizon of those who gave them. What ``row`` holds from before it is theirs."""


def reconcile(
    key: bytes, answers: Mapping[NodeId, bytes | None], horizon_of: Callable[[NodeId], int] = lambda _node: 0
) -> Reconciled:
    """Say what the replicas of ``key`` hold together, given the horizon of each (`core.horizon.agreed`).

    Raises:
        CorruptionError: an answer is damaged.
    """
    distinct = set(answers.values())
    if len(distinct) < 2:  # none: fallbacks alone answered the read, and no replica the look after it
        stored = distinct.pop() if distinct else None
        return Reconciled(None if stored is None else decode_row(key, stored), ())
    held = {node: None if stored is None else decode_row(key, stored) for node, stored in answers.items()}
    horizons = {node: horizon_of(node) for node in answers}
    row = horizon.agreed((held[node], horizons[node]) for node in answers)
    stale = tuple(node for node in answers if horizon.lacks(held[node], row))
    return Reconciled(row, stale, max(horizons.values()))


class ReadRepair:
    """Repairs under way; see the module's docstring."""

    def __init__(self, ask: Callable[[NodeId, Request], asyncio.Future[Reply]]) -> None:
        """Send repairs and questions with ``ask``, whose futures end by themselves."""
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Future[Reply]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self.may_begin: Callable[[], bool] = lambda: True
        self.sent = 0
        self.dropped = 0
        self.failed = 0

    async def settle(
        self, newest: Apply, *, stale: Sequence[NodeId], unasked: Sequence[NodeId], required: int, deadline: float
    ) -> int:
        """Bring ``stale`` replicas up to ``newest``; returns once ``required`` of them hold it, or at ``deadline``.

        When they fail or are silent, the replicas that the read did not ask are sent it as well.

        Returns:
            how many hold it that did not, as far as they have said so.
        """
        spreading = _Spreading(stale, unasked, required=required, send=lambda node: self._send(node, newest))
        verdict = await spreading.settled(min(deadline, self._loop.time() + SILENT_S))
        if verdict is Verdict.OPEN and deadline > self._loop.time():
            spreading.widen()
            await spreading.settled(deadline)
        return spreading.quorum.acks

    async def bring_up(
        self,
        newest: Apply,
        stale: Sequence[NodeId],
        answered: Collection[NodeId],
        replicas: Sequence[NodeId],
        need: Need,
        deadline: float,
    ) -> None:
        """Return once as many primaries hold what a read found as it had to ask.

        Fallbacks that answered with less are left alone. A sloppy read waits for the primaries it has read, but
        not long: nothing is promised of it.

        Raises:
            UnavailableError: too few do by ``deadline``.
        """
        stale = [node for node in stale if node in replicas]
        holding = sum(node in replicas for node in answered) - len(stale)
        if len(need.parts) > 1:  # each of them has to have as many: that is so of those who were asked
            await self._bring_up_all(newest, stale, deadline)
            return
        if not stale or (need.is_strict and holding >= need.primaries):
            for node in stale:
                self.repair(node, newest)
            return
        patience = deadline if holding < need.primaries else min(deadline, self._loop.time() + SILENT_S)
        holding += await self.settle(
            newest,
            stale=stale,
            unasked=[node for node in replicas if node not in answered],
            required=need.primaries - holding if holding < need.primaries else len(stale),
            deadline=patience,
        )
        if holding < need.primaries:
            raise UnavailableError(
                f"the replicas differ, and {holding} of {need.primaries} hold the newest row in time: a later read "
                "might not see it, try again"
            )

    async def _bring_up_all(self, newest: Apply, stale: Sequence[NodeId], deadline: float) -> None:
        if not stale:
            return
        holding = await self.settle(newest, stale=stale, unasked=(), required=len(stale), deadline=deadline)
        if holding < len(stale):
            raise UnavailableError(
                f"the replicas differ, and {holding} of {len(stale)} that lacked the newest row hold it in time: a "
                "later read might not see it, try again"
            )

    def repair(self, replica: NodeId, newest: Apply) -> None:
        """Bring ``replica`` up to ``newest`` in the background."""
        if self._is_full:
            self.dropped += 1
        else:
            self._send(replica, newest)

    def look(
        self, read: Read, row: Row | None, *, holders: Sequence[NodeId], unasked: Sequence[NodeId], vouched_us: int
    ) -> None:
        """Compare the replicas that a read did not ask with its outcome, and repair them, in the background.

        Args:
            read: the question.
            row: what came of it.
            holders: who holds that; they are repaired if one of the others has more.
            unasked: whom to ask.
            vouched_us: the highest horizon of the holders.
        """
        if self._is_full:
            self.dropped += 1
        elif unasked:
            task = self._loop.create_task(self._look(read, row, holders, unasked, vouched_us))
            self._looks.add(task)
            task.add_done_callback(self._looked)

    async def idle(self) -> None:
        """Return when no repair is under way."""
        while self._under_way or self._looks:
            await asyncio.wait(self._looks or self._under_way)

    async def close(self) -> None:
        """Give up what is under way; futures end by themselves."""
        for task in self._looks:
            task.cancel()
        if self._looks:
            await asyncio.wait(self._looks)

    @property
    def _is_full(self) -> bool:
        return len(self._under_way) + len(self._looks) >= REPAIRS_MAX or not self.may_begin()

    def _send(self, replica: NodeId, newest: Apply) -> asyncio.Future[Reply]:
        self.sent += 1
        future = self._ask(replica, newest)
        self._under_way.add(future)
        future.add_done_callback(self._ended)
        return future

    async def _look(
        self, read: Read, row: Row | None, holders: Sequence[NodeId], unasked: Sequence[NodeId], vouched_us: int
    ) -> None:
        futures = {node: self._ask(node, read) for node in unasked}
        await asyncio.wait(futures.values())
        answers: dict[NodeId, bytes | None] = dict.fromkeys(holders, None if row is None else encode_row(read.key, row))
        horizons = dict.fromkeys(holders, vouched_us)
        for node, future in futures.items():
            if error_of(future) is None:
                reply = cast("Found", future.result())
                answers[node], horizons[node] = reply.row, reply.horizon_us
        found = reconcile(read.key, answers, horizons.__getitem__)
        if found.row is not None and found.stale:
            row_bytes = encode_row(read.key, found.row)
            newest = Apply(read.map_epoch, read.table, read.key, row_bytes, vouched_us=found.vouched_us)
            for node in found.stale:
                self.repair(node, newest)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looks.discard(task)
        self._note_failure(None if task.cancelled() else task.exception())

    def _ended(self, future: asyncio.Future[Reply]) -> None:
        self._under_way.discard(future)
        self._note_failure(None if future.cancelled() else future.exception())

    def _note_failure(self, error: BaseException | None) -> None:
        if error is None:
            return
        self.failed += 1
        if not isinstance(error, MerganserError):
            raise error


class _Spreading(Writing):
    """One row on its way to those that lack it, and to others when these do not take it."""

    def __init__(
        self,
        stale: Sequence[NodeId],
        unasked: Sequence[NodeId],
        *,
        required: int,
        send: Callable[[NodeId], asyncio.Future[Reply]],
    ) -> None:
        super().__init__((*stale, *unasked), required=required)
        self._send = send
        self._unasked = list(unasked)
        for node in stale:
            self.watch(node, send(node))

    def widen(self) -> None:
        """Send it to everyone who is left."""
        while self._unasked:
            self._send_to_another()

    def _replica_failed(self, replica: NodeId, error: BaseException) -> None:
        if self._unasked and self.quorum.verdict is Verdict.OPEN:
            self._send_to_another()

    def _send_to_another(self) -> None:
        node = self._unasked.pop(0)
        self.watch(node, self._send(node))
