"""Go through one exchange with a peer: do what `core.exchange` says, step by step.

Each question goes to both sides, first to the peer, which may have to wait for its disk. Between two of them
background work waits for its turn, and for as long as the bytes of the last one are worth at the rate that is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from merganser.core.exchange import (
    Exchange,
    ListRegions,
    LookAtNodes,
    LookAtTwigs,
    MeetKeys,
    Pause,
    SecondLook,
    Survey,
    TallyStretches,
)
from merganser.core.hash_tree import FANOUT
from merganser.model import messages
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, PeerLostError, PeerTooOldError, RefusedError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.messages import (
    Exchanging,
    Fingerprints,
    Listed,
    ListKeys,
    LookAgain,
    LookAtTree,
    Meet,
    Met,
    Nodes,
    Reply,
    Tallied,
    TalliedTogether,
    Tally,
    TallyTogether,
)
from merganser.net.transport import Traffic
from merganser.service.asking import Asker
from merganser.service.compared_rows import ComparedRows, Held
from merganser.service.hash_trees import HashTrees
from merganser.service.horizons import Horizons
from merganser.service.partition_gate import PartitionGate
from merganser.storage import keys

Settle = Callable[[Sequence[bytes]], Awaitable[int]]
"""Makes keys equal on both sides, otherwise than by letting them meet; returns in how many the peer has changed."""

ANSWER_TIMEOUT_S = 40.0
"""A peer that is busy puts a slice of background work off for 10 s, and may have to count its tree for 20 s first."""
PAUSE_S = 1.0  # a write that takes longer has failed, or is about to
_NAP_S = 0.01  # timers are no finer than a millisecond

R = TypeVar("R", bound=Reply)


class Surroundings(msgspec.Struct, frozen=True):
    """What every exchange of a node works with."""

    asker: Asker
    trees: HashTrees
    horizons: Horizons
    rows: ComparedRows
    gate: PartitionGate
    partition_of: Callable[[bytes], PartitionId]
    admit: Callable[[], Awaitable[None]]
    catch_up: Callable[[NodeId], Awaitable[None]]
    bytes_per_s: float


class Comparing:
    """One exchange, begun here; see the module's docstring."""

    def __init__(
        self,
        around: Surroundings,
        table: Table,
        partition: PartitionId,
        peer: NodeId,
        *,
        map_epoch: int,
        walk: Exchange,
        deadline: float,
        settle: Settle | None = None,
    ) -> None:
        """Walk ``walk`` with ``peer`` until ``deadline``, loop time; keys that differ meet, or are settled."""
        self._settle = settle
        self._around = around
        self._table = table
        self._partition = partition
        self._peer = peer
        self._epoch = map_epoch
        self._walk = walk
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._owed_s = 0.0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.met_here = 0
        self.met_there = 0
        self.unmet = 0
        """Keys that differed and could not be met: damaged meanwhile, or too far ahead of a clock."""
        self._steps: dict[type, Callable[[Any], Awaitable[None]]] = {
            LookAtNodes: self._look,
            LookAtTwigs: self._look_at_twigs,
            Survey: self._survey,
            TallyStretches: self._tally,
            ListRegions: self._list,
            Pause: self._pause,
            SecondLook: self._look_again,
            MeetKeys: self._meet,
        }

    async def run(self) -> None:
        """Go on to the end; what was met is durable on both sides.

        Raises:
            MerganserError: what ended it; what was met so far is met.
        """
        place = (self._table.id, self._partition)
        self._around.gate.held(self._epoch, *place)
        await self._around.trees.ready(self._table, self._partition, deadline=self._deadline)
        while (step := self._walk.step) is not None:
            await self._steps[type(step)](step)
            await self._around.admit()
            await self._pay()
            self._around.gate.held(self._epoch, *place)
        await self._around.rows.durable()

    async def _look(self, step: LookAtNodes) -> None:
        request = LookAtTree(self._epoch, self._table.id, self._partition, step.level, step.positions)
        theirs = await self._ask(request, Nodes)
        mine = await self._around.rows.nodes(self._table.id, self._partition, step.level, step.positions)
        self._walk.looked(mine, theirs.hashes)

    async def _look_at_twigs(self, step: LookAtTwigs) -> None:
        table, partition = self._table.id, self._partition
        if not self._around.trees.has_twigs(table, partition):
            self._walk.without_twigs()
            return
        try:
            theirs = await self._ask(messages.LookAtTwigs(self._epoch, table, partition, step.leaves), Nodes)
        except PeerTooOldError:
            self._walk.without_twigs()
            return
        if len(theirs.hashes) != FANOUT * len(step.leaves):
            raise CorruptionError(f"{self._peer} told {len(theirs.hashes)} twigs of {len(step.leaves)} leaves")
        self._walk.looked_at_twigs(await self._around.rows.twigs(table, partition, step.leaves), theirs.hashes)

    async def _survey(self, step: Survey) -> None:
        self._walk.surveyed(await self._around.rows.survey(self._table.id, self._partition, step.stretches))

    async def _tally(self, step: TallyStretches) -> None:
        theirs = await self._tallied_together(step)
        self._walk.tallied(theirs or [await self._tallied(step.stretches[0], step.buckets[0])])

    async def _tallied_together(self, step: TallyStretches) -> Sequence[Sequence[int]]:
        """Return the peer's sums of the first stretches; none if it has to be asked for the first alone."""
        if len(step.stretches) == 1:
            return ()
        request = TallyTogether(self._epoch, self._table.id, self._partition, step.stretches, step.buckets)
        try:
            return (await self._ask(request, TalliedTogether)).sums
        except PeerTooOldError:
            return ()

    async def _tallied(self, stretch: int, buckets: int) -> Sequence[int]:
        sums, start = [0] * buckets, b""
        while True:
            request = Tally(self._epoch, self._table.id, self._partition, stretch, buckets, start)
            theirs = await self._ask(request, Tallied)
            if len(theirs.sums) != buckets or (theirs.resume is not None and theirs.resume <= start):
                raise CorruptionError(f"{self._peer} tallied what it was not asked for")
            sums = [one ^ other for one, other in zip(sums, theirs.sums, strict=True)]
            if theirs.resume is None:
                return sums
            start = theirs.resume

    async def _list(self, step: ListRegions) -> None:
        request = ListKeys(self._epoch, self._table.id, self._partition, step.regions, step.start)
        theirs = await self._ask(request, Listed)
        for key, _ in theirs.entries:
            if keys.table_in(key) != self._table.id or self._around.partition_of(key) != self._partition:
                raise CorruptionError(f"{self._peer} listed a key of another partition")
        mine = await self._around.rows.page(self._table.id, self._partition, step.regions, step.start)
        self._walk.listed(mine, theirs)

    async def _pause(self, _step: Pause) -> None:
        await asyncio.sleep(PAUSE_S)
        self._walk.paused()

    async def _look_again(self, step: SecondLook) -> None:
        request = LookAgain(self._epoch, self._table.id, self._partition, step.keys)
        theirs = await self._ask(request, Fingerprints)
        mine = await self._around.rows.fingerprints(self._table.id, step.keys)
        self._walk.looked_again(mine, theirs.fingerprints)

    async def _meet(self, step: MeetKeys) -> None:
        """Let the peer become equal, then this node."""
        if self._settle is not None:
            self.met_there += await self._settle(step.keys)
            self._walk.met(len(step.keys))
            return
        horizon_us = self._around.horizons.horizon_us(self._table.id, self._partition)
        own, count = self._around.rows.own(self._table.id, step.keys)
        self.unmet += count - len(own)
        own.sort(
            key=_is_absent
        )  # the peer's answer may end where it is full, and what was sent behind that was in vain
        await self._around.rows.durable()
        while own:
            request = Meet(self._epoch, self._table.id, self._partition, horizon_us, tuple(own))
            answer = await self._ask(request, Met)
            others = self._others(own, answer)
            self.met_there += answer.changed
            self.unmet += len(answer.unmet)
            await self._take(others, answer.horizon_us)
            del own[: answer.count]
        self._walk.met(count)

    def _others(self, own: list[Held], answer: Met) -> list[Held]:
        """Return what the peer holds now of the keys it has met."""
        if not 1 <= answer.count <= len(own) or answer.horizon_us < 0:
            raise CorruptionError(f"{self._peer} met {answer.count} keys of {len(own)}")
        others = dict(enumerate(own[: answer.count]))
        for position, row in answer.others:
            if position not in others:
                raise CorruptionError(f"{self._peer} met a key that it was not asked to")
            others[position] = own[position][0], row
        for position in answer.unmet:
            others.pop(position, None)
        return list(others.values())

    async def _take(self, others: list[Held], other_us: int) -> None:
        while others:
            self._around.gate.held(self._epoch, self._table.id, self._partition)
            meeting = self._around.rows.meet(self._table.id, self._partition, others, other_us=other_us)
            self.met_here += meeting.changed
            self.unmet += len(meeting.unmet)
            del others[: len(meeting.held)]
            await self._around.rows.durable()

    async def _ask(self, request: Exchanging, kind: type[R]) -> R:
        """Return the peer's answer.

        Raises:
            MerganserError: there is none, or another than was asked for.
        """
        self._count(len(msgspec.msgpack.encode(request)), is_sent=True)
        timeout_s = min(ANSWER_TIMEOUT_S, self._deadline - self._loop.time())
        if timeout_s <= 0:
            raise PeerLostError(f"no time is left to ask {self._peer}")
        try:
            answer = await self._around.asker.ask(self._peer, request, timeout_s=timeout_s, traffic=Traffic.BULK)
        except RefusedError as error:
            if error.map_epoch > self._epoch:
                await self._around.catch_up(self._peer)
            raise
        self._count(len(msgspec.msgpack.encode(answer)), is_sent=False)
        if not isinstance(answer, kind):
            raise CorruptionError(f"{self._peer} answered {type(answer).__name__} instead of {kind.__name__}")
        return answer

    def _count(self, size: int, *, is_sent: bool) -> None:
        self._owed_s += size / self._around.bytes_per_s
        if is_sent:
            self.sent_bytes += size
        else:
            self.received_bytes += size

    async def _pay(self) -> None:
        if self._owed_s >= _NAP_S:
            owed_s, self._owed_s = self._owed_s, 0.0
            await asyncio.sleep(owed_s)


def _is_absent(held: Held) -> bool:
    return held[1] is None
