"""Ask several replicas one question and stop as soon as the verdict is certain.

The counting is `core.quorum`; here are only the asking and the waiting. A node asks itself the same
way as a peer, without the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from merganser.core.quorum import ReadQuorum, Verdict, WriteQuorum
from merganser.model.errors import (
    ClockSkewError,
    CorruptionError,
    OverloadedError,
    PeerBusyError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    UnavailableError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Merged, Reply, Request
from merganser.model.timestamp import Timestamp
from merganser.net.transport import Traffic, Transport, refusal_code
from merganser.service.founding import FRESH
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA

SILENCE_S = 2.0  # one request in that time pays for finding out whether the node answers again

OVERLOADED = refusal_code(OverloadedError())

_WROTE_NOTHING = (PeerUnreachableError, ClockSkewError, CorruptionError, OverloadedError)
_REFUSALS_BEFORE_WRITING = frozenset(
    (
        NO_SUCH_TABLE,
        NOT_A_REPLICA,
        FRESH,
        OVERLOADED,
        *map(refusal_code, (ClockSkewError(), CorruptionError(), UnavailableError())),
    )
)
"""All others, those of later releases among them, leave the outcome unknown."""


class Asker:
    """Sends a request to this node or to a peer, whichever is named."""

    def __init__(
        self,
        node: NodeId,
        transport: Transport,
        serve: Callable[[NodeId, Request], Coroutine[Any, Any, Reply]],
    ) -> None:
        """Ask as ``node``, whose own answers come from ``serve``."""
        self.node = node
        self._transport = transport
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._silent_until: dict[NodeId, float] = {}

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether a request to ``node`` would be sent now."""
        return node == self.node or self._transport.is_reachable(node)

    def nearest_first(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """Order ``nodes`` by the cost of asking: this node, peers that answer, silent ones, those out of reach."""
        now = self._loop.time()

        def cost(node: NodeId) -> tuple[bool, bool, bool]:
            return node != self.node, not self.is_reachable(node), self._silent_until.get(node, 0.0) > now

        return sorted(nodes, key=cost)

    def note_silence(self, node: NodeId) -> None:
        """Ask others before ``node`` for a while: it keeps a request waiting, stopped perhaps, or overloaded."""
        self._silent_until[node] = self._loop.time() + SILENCE_S

    def ask(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Return the future of the reply; it ends and fails as `Transport.request` says."""
        if node != self.node:
            return self._transport.request(node, request, timeout_s=timeout_s, traffic=traffic)
        answer = self._loop.create_task(self._serve(node, request))
        timer = self._loop.call_later(timeout_s, answer.cancel)
        answer.add_done_callback(lambda _: timer.cancel())
        return answer


class Writing:
    """One request to all the replicas of a key, until enough of them have acked it."""

    def __init__(self, replicas: Sequence[NodeId], *, required: int) -> None:
        """Wait for ``required`` acks of ``replicas``."""
        self.replicas = replicas
        self.required = required
        self.quorum = WriteQuorum(replicas, required=required)
        self.errors: dict[NodeId, BaseException] = {}
        self.outranked_by: Timestamp | None = None
        """The newest of what the replicas that acked held already and that is as new as the write, or newer."""
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()

    def watch(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        """Count how ``future`` ends as the answer of ``replica``."""
        future.add_done_callback(lambda ended: self._count(replica, ended))

    async def settled(self, deadline: float) -> Verdict:
        """Return the verdict; OPEN if ``deadline`` (loop time) came first."""
        if self.quorum.verdict is Verdict.OPEN:
            timer = self._loop.call_at(deadline, _settle, self._settled)
            try:
                await self._settled
            finally:
                timer.cancel()
        return self.quorum.verdict

    @property
    def is_certainly_unwritten(self) -> bool:
        """Tell whether every replica said that it wrote nothing, or was never asked."""
        silent = self.quorum.silent()
        answers = self.errors.values()
        return self.quorum.acks == 0 and len(answers) == len(silent) and all(map(_wrote_nothing, answers))

    def _count(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        error = _error_of(future)  # answers of nodes that are not among the replicas count for nothing
        if error is None:
            self._compare(future.result())
            settled = self.quorum.acked(replica)
        else:
            self.errors[replica] = error
            settled = self.quorum.failed(replica)
        if settled:
            _settle(self._settled)

    def _compare(self, ack: Reply) -> None:
        if isinstance(ack, Merged) and ack.outranked_by is not None:
            self.outranked_by = max(self.outranked_by or ack.outranked_by, ack.outranked_by)


class Reading:
    """One question to as many replicas as must answer, and to one more when one fails or ``hedge_s`` pass."""

    def __init__(
        self,
        replicas: Sequence[NodeId],
        *,
        required: int,
        ask: Callable[[NodeId], asyncio.Future[Reply]],
        hedge_s: float,
        note_silence: Callable[[NodeId], None],
    ) -> None:
        """Ask ``replicas`` in the order given until ``required`` have answered.

        ``note_silence`` is told of each that has not within ``hedge_s``, or has too much to do.
        """
        self.quorum: ReadQuorum[Reply] = ReadQuorum(replicas, required=required)
        self.errors: dict[NodeId, BaseException] = {}
        self._ask = ask
        self._hedge_s = hedge_s
        self._note_silence = note_silence
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()

    async def settled(self, deadline: float) -> Verdict:
        """Ask, and return the verdict; OPEN if ``deadline`` (loop time) came first."""
        for replica in self.quorum.first():
            self._send(replica)
        self._wait_before_asking_more(deadline)
        try:
            await self._settled
        finally:
            self._timer.cancel()
        return self.quorum.verdict

    def _send(self, replica: NodeId) -> None:
        self._ask(replica).add_done_callback(lambda ended: self._count(replica, ended))

    def _wait_before_asking_more(self, deadline: float) -> None:
        more_at = self._loop.time() + self._hedge_s
        if more_at < deadline:
            self._timer = self._loop.call_at(more_at, self._ask_one_more, deadline)
        else:
            self._timer = self._loop.call_at(deadline, _settle, self._settled)

    def _ask_one_more(self, deadline: float) -> None:
        for silent in self.quorum.waiting_for():
            self._note_silence(silent)
        replica = self.quorum.hedge()
        if replica is None:
            self._timer = self._loop.call_at(deadline, _settle, self._settled)
            return
        self._send(replica)
        self._wait_before_asking_more(deadline)

    def _count(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        error = _error_of(future)
        if error is None:
            self.quorum.answered(replica, future.result())
        else:
            self.errors[replica] = error
            if is_overload(error):
                self._note_silence(replica)
            instead = self.quorum.failed(replica)
            if instead is not None and not self._settled.done():
                self._send(instead)
        if self.quorum.verdict is not Verdict.OPEN:
            _settle(self._settled)


def _settle(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)


def _error_of(future: asyncio.Future[Reply]) -> BaseException | None:
    if future.cancelled():
        return PeerLostError("the answer did not come in time")
    return future.exception()


def is_overload(error: BaseException) -> bool:
    """Tell whether a replica failed because it has too much to do."""
    if isinstance(error, RefusedError):
        return error.code == OVERLOADED
    return isinstance(error, OverloadedError | PeerBusyError)


def _wrote_nothing(error: BaseException) -> bool:
    if isinstance(error, RefusedError):
        return error.code in _REFUSALS_BEFORE_WRITING
    return isinstance(error, _WROTE_NOTHING)
