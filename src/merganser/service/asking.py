"""Ask several replicas one question and stop as soon as the verdict is certain.

The counting is `core.quorum`; here are only the asking and the waiting. A node asks itself the same
way as a peer, without the network.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from merganser.core.hint_policy import HINT_WINDOW_OVER, HINTS_FULL, NOT_KEPT_HERE
from merganser.core.quorum import ReadQuorum, Verdict, WriteQuorum
from merganser.core.wholeness import NOTHING_WRITTEN
from merganser.model.consistency import Part
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
from merganser.model.gossip import State
from merganser.model.ids import NodeId
from merganser.model.leader_messages import NOT_LEADING, TRANSACTION_CONFLICT
from merganser.model.messages import Merged, Reply, Request
from merganser.model.timestamp import Timestamp
from merganser.net.begun import begin_answer
from merganser.net.transport import Beginner, Traffic, Transport, begins_nothing, refusal_code
from merganser.service.founding import FRESH
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA, OTHER_PROTOCOL

SILENT_S = 0.1  # a node on a healthy network answers within a few milliseconds
SILENCE_S = 2.0  # one request in that time pays for finding out whether the node answers again
_TIMER_SLACK_S = 1e-4  # a timer may go off a little early, and would then find nothing to do

OVERLOADED = refusal_code(OverloadedError())

_WROTE_NOTHING = (PeerUnreachableError, ClockSkewError, CorruptionError, UnavailableError)
_REFUSALS_BEFORE_WRITING = frozenset(
    (
        NO_SUCH_TABLE,
        NOT_A_REPLICA,
        OTHER_PROTOCOL,
        FRESH,
        OVERLOADED,
        HINTS_FULL,
        HINT_WINDOW_OVER,
        NOT_KEPT_HERE,
        NOT_LEADING,
        TRANSACTION_CONFLICT,
        *NOTHING_WRITTEN,
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
        *,
        begin: Beginner = begins_nothing,
        serve_at_once: Callable[[NodeId, Request], Reply | None] = lambda _sender, _request: None,
    ) -> None:
        """Ask as ``node``, whose own answers come from ``begin`` or else from ``serve``.

        Those that take no waiting come from ``serve_at_once``, for whoever can do without one.
        """
        self.node = node
        self._transport = transport
        self._serve = serve
        self._begin = begin
        self._serve_at_once = serve_at_once
        self._loop = asyncio.get_running_loop()
        self._silent_until: dict[NodeId, float] = {}
        self.doubted: Mapping[NodeId, State] = {}
        """Those not believed alive, as the failure detector keeps it."""
        self.far: Collection[NodeId] = frozenset()
        """Nodes of other data centres."""
        self.when_answered: Callable[[NodeId], None] = lambda _node: None
        """Told when one of them answers."""

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether a request to ``node`` would be sent now."""
        return node == self.node or self._transport.is_reachable(node)

    def nearest_first(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """Order ``nodes`` by the cost of asking: this node, peers that answer, silent ones, those out of reach.

        Of those that are alike, the ones of this node's data centre come first. A suspect comes after those believed
        alive, one believed dead after both; all can still be asked.
        """
        now = self._loop.time()

        def cost(node: NodeId) -> tuple[bool, bool, int, bool, bool]:
            return (
                node != self.node,
                not self.is_reachable(node),
                self.doubted.get(node, 0),
                self._silent_until.get(node, 0.0) > now,
                node in self.far,
            )

        return sorted(nodes, key=cost)

    def is_responsive(self, node: NodeId) -> bool:
        """Tell whether ``node`` can be reached and has not been silent of late."""
        if node == self.node:
            return True
        return self._transport.is_reachable(node) and self._silent_until.get(node, 0.0) <= self._loop.time()

    def note_silence(self, node: NodeId) -> None:
        """Ask others before ``node`` for a while: it keeps a request waiting, stopped perhaps, or overloaded."""
        self._silent_until[node] = self._loop.time() + SILENCE_S

    def ask(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Return the future of the reply; it ends and fails as `Transport.request` says."""
        if node != self.node:
            future = self._transport.request(node, request, timeout_s=timeout_s, traffic=traffic)
            if node in self.doubted:
                future.add_done_callback(lambda ended: self._look_for_life(node, ended))
            return future
        answer = self.ask_here(request)
        if not answer.done():
            timer = self._loop.call_later(timeout_s, answer.cancel)
            answer.add_done_callback(lambda _: timer.cancel())
        return answer

    def at_once(self, request: Request) -> Reply | None:
        """Return this node's own answer; None if it has to be waited for, or is no answer: then `ask` says why."""
        return self._serve_at_once(self.node, request)

    def ask_here(self, request: Request) -> asyncio.Future[Reply]:
        """Return the future of this node's own reply, whose time whoever awaits it bounds; fails as that of `ask`."""
        try:
            begun = self._begin(self.node, request)
        except Exception as error:  # noqa: BLE001 - as `begin_answer`
            future: asyncio.Future[Reply] = self._loop.create_future()
            future.set_exception(error)
            future.exception()
            return future
        if begun is None:
            return begin_answer(self._serve(self.node, request), self._loop)
        if isinstance(begun, asyncio.Future):
            return begun
        future = self._loop.create_future()
        future.set_result(begun)
        return future

    def _look_for_life(self, node: NodeId, ended: asyncio.Future[Reply]) -> None:
        if not ended.cancelled() and isinstance(ended.exception(), RefusedError | None):
            self.when_answered(node)


class Writing:
    """One request to all the replicas of a key, until enough of them have acked it."""

    def __init__(
        self,
        replicas: Sequence[NodeId],
        *,
        required: int,
        required_primaries: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        """Wait for ``required`` acks, ``required_primaries`` of them by ``replicas``, and for each of ``parts``."""
        self.replicas = replicas
        self.required = required
        self.quorum = WriteQuorum(replicas, required=required, required_primaries=required_primaries, parts=parts)
        self.errors: dict[NodeId, BaseException] = {}
        self.note_ack: Callable[[NodeId], None] | None = None
        """Told of each ack."""
        self.outranked_by: Timestamp | None = None
        """The newest of what the replicas that acked held already and that is as new as the write, or newer."""
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()
        self._is_in_doubt = False

    def watch(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        """Count how ``future`` ends as the answer of ``replica``."""
        future.add_done_callback(lambda ended: self._count(replica, ended))

    async def settled(self, deadline: float) -> Verdict:
        """Return the verdict; OPEN if ``deadline`` (loop time) came first."""
        if self.quorum.verdict is Verdict.OPEN:
            if self._settled.done():  # an earlier call ran out of time
                self._settled = self._loop.create_future()
            timer = self._loop.call_at(deadline, _settle, self._settled)
            try:
                await self._settled
            finally:
                timer.cancel()
        return self.quorum.verdict

    async def hear_the_rest(self, deadline: float) -> None:
        """Wait a little for the last answers, while all who have answered say that they wrote nothing."""
        patience = min(deadline, self._loop.time() + SILENT_S)
        while not (self.quorum.acks or self.quorum.is_complete or self._is_in_doubt) and self._loop.time() < patience:
            self._settled = self._loop.create_future()
            timer = self._loop.call_at(patience, _settle, self._settled)
            try:
                await self._settled
            finally:
                timer.cancel()

    @property
    def is_certainly_unwritten(self) -> bool:
        """Tell whether every node that was asked said that it wrote nothing, or could not be asked."""
        return self.quorum.acks == 0 and self.quorum.is_complete and not self._is_in_doubt

    def _count(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        error = error_of(future)  # answers of nodes that are not among the replicas count for nothing
        if error is None:
            if self.note_ack is not None:
                self.note_ack(replica)
            self._compare(future.result())
            is_settled = self.quorum.acked(replica)
        else:
            self._note_error(replica, error)
            self._replica_failed(replica, error)
            is_settled = self.quorum.failed(replica)
        if is_settled or self.quorum.verdict is Verdict.HOPELESS:
            self._settle()

    def _settle(self) -> None:
        _settle(self._settled)

    def _compare(self, ack: Reply) -> None:
        if isinstance(ack, Merged) and ack.outranked_by is not None:
            self.outranked_by = max(self.outranked_by or ack.outranked_by, ack.outranked_by)

    def _replica_failed(self, replica: NodeId, error: BaseException) -> None:
        """Do what is to be done before the failure is counted."""

    def _note_error(self, node: NodeId, error: BaseException) -> None:
        self.errors[node] = error
        if not wrote_nothing(error):
            self._is_in_doubt = True


class Reading:
    """One question to as many nodes as must answer, and to one more when one fails or is slow.

    Slow comes in two degrees. After ``hedge_s``, which is what the slowest of them usually takes at most, one
    more primary is asked: that happens every day. Who has not answered after `SILENT_S` is called silent, and
    another is asked in its place, be it a fallback.
    """

    def __init__(
        self,
        quorum: ReadQuorum[Reply],
        *,
        ask: Callable[[NodeId], asyncio.Future[Reply]],
        hedge_s: float,
        note_silence: Callable[[NodeId], None],
        note_latency: Callable[[NodeId, float], None] | None = None,
    ) -> None:
        """Ask the nodes of ``quorum`` in its order until its verdict is given.

        Args:
            quorum: counts, fresh.
            ask: sends the question.
            hedge_s: when to ask one more, and after as long again another.
            note_silence: told of each that has not answered within `SILENT_S`, or has too much to do.
            note_latency: told of each answer, how many seconds it took.
        """
        self.quorum = quorum
        self.errors: dict[NodeId, BaseException] = {}
        self._ask = ask
        self._hedge_s = hedge_s
        self._note_silence = note_silence
        self._note_latency = note_latency
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()
        self._began_at = 0.0
        self._asked_later: dict[NodeId, float] = {}
        self._silent: frozenset[NodeId] = frozenset()

    async def settled(self, deadline: float) -> Verdict:
        """Ask, and return the verdict; OPEN if ``deadline`` (loop time) came first."""
        self._began_at = now = self._loop.time()
        for node in self.quorum.first():
            self._send(node)
        self._hedge_at = now + self._hedge_s
        wake_at = self._hedge_at if self._hedge_s < SILENT_S else now + SILENT_S
        self._timer = self._loop.call_at(wake_at if wake_at < deadline else deadline, self._wake, deadline)
        try:
            await self._settled
        finally:
            self._timer.cancel()
        return self.quorum.verdict

    def _send(self, node: NodeId) -> None:
        self._ask(node).add_done_callback(lambda ended: self._count(node, ended))

    def _send_later(self, node: NodeId) -> None:
        self._asked_later[node] = self._loop.time()
        self._send(node)

    def _asked_at(self, node: NodeId) -> float:
        return self._asked_later.get(node, self._began_at)

    def _wake(self, deadline: float) -> None:
        """Do what is due, and sleep until there is more to do than counting."""
        now = self._loop.time() + _TIMER_SLACK_S
        if now >= deadline:
            _settle(self._settled)
            return
        silent = self._newly_silent(now)
        for _ in range(silent):
            self._hedge(now, only_primaries=False)
        if not silent and now >= self._hedge_at:
            self._hedge(now, only_primaries=True)
        not_silent = (self._asked_at(node) for node in self.quorum.waiting_for() if node not in self._silent)
        silence_at = min(not_silent, default=math.inf) + SILENT_S
        self._timer = self._loop.call_at(min(deadline, self._hedge_at, silence_at), self._wake, deadline)

    def _newly_silent(self, now: float) -> int:
        count = 0
        for node in self.quorum.waiting_for():
            if node not in self._silent and now >= self._asked_at(node) + SILENT_S:
                self._silent |= {node}
                self._note_silence(node)
                count += 1
        return count

    def _hedge(self, now: float, *, only_primaries: bool) -> None:
        another = self.quorum.hedge(only_primaries=only_primaries)
        self._hedge_at = now + self._hedge_s if another is not None else math.inf
        if another is not None:
            self._send_later(another)

    def _count(self, node: NodeId, future: asyncio.Future[Reply]) -> None:
        error = error_of(future)
        if error is None:
            if self._note_latency is not None:
                self._note_latency(node, self._loop.time() - self._asked_at(node))
            self.quorum.answered(node, future.result())
        else:
            self.errors[node] = error
            if is_overload(error):
                self._note_silence(node)
            instead = self.quorum.failed(node)
            if instead is not None and not self._settled.done():
                self._send_later(instead)
        if self.quorum.verdict is not Verdict.OPEN:
            _settle(self._settled)


def _settle(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)


def error_of(future: asyncio.Future[Reply]) -> BaseException | None:
    """Return how a request that has ended failed, None if it was answered."""
    if future.cancelled():
        return PeerLostError("the answer did not come in time")
    return future.exception()


def is_overload(error: BaseException) -> bool:
    """Tell whether a replica failed because it has too much to do."""
    if isinstance(error, RefusedError):
        return error.code == OVERLOADED
    return isinstance(error, OverloadedError | PeerBusyError)


def wrote_nothing(error: BaseException) -> bool:
    """Tell whether a request that failed so has certainly not written anything."""
    if isinstance(error, RefusedError):
        return error.code in _REFUSALS_BEFORE_WRITING
    return isinstance(error, _WROTE_NOTHING)
