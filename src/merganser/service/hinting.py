"""Find a keeper for what a primary does not take: the coordinator's side of hinted handoff.

Each write of a leaderless table is a `HintedWriting`. It is *open* when hints may be stored for it: from the
start if fallbacks count towards its level (a sloppy quorum), otherwise once the client has its answer,
because a write that is reported as certainly unwritten must leave nothing behind::

    closed --keep_hints()--> open --every primary acked, or its hint is stored, or nobody keeps it--> over
       +-----forget()---------------------------------------------------------------------------------^

While it is open, a primary that fails gets its hint at once, and one that is silent after `hint_policy.silence_s`.
`Hinting` owns all of them, looks for the silent ones, and bounds what they hold in memory.

Source: DeCandia 2007 §4.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import takewhile

from merganser.core.hint_policy import SILENCE_S_MIN, StandIns, deserves_hint, silence_s
from merganser.core.latency import Latencies
from merganser.model.cluster import Table
from merganser.model.consistency import Need
from merganser.model.errors import MerganserError, PeerLostError, PeerUnreachableError
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Apply, Hint, Reply
from merganser.net.transport import failed
from merganser.service.asking import SILENT_S, Asker, Writing, error_of
from merganser.service.topology import Topology

WATCHED_MAX = 16_384  # a second of writes at full speed, were all of them to wait for hints
WATCHED_BYTES_MAX = 64 * 2**20
SWEEP_S = 0.025
LATENCY_SAMPLE = 4  # one request in four is timed, which saves 2 µs of the others, and 80 requests tell enough
HINT_TIMEOUT_S = 0.5  # a keeper that needs longer is no help to the client that waits for a sloppy write


class HintedWriting(Writing):
    """One write to all primaries of its key, and the hints for those that do not ack it."""

    def __init__(
        self,
        hinting: Hinting,
        apply: Apply,
        need: Need,
        *,
        replicas: tuple[NodeId, ...],
        stand_ins: Callable[[], StandIns],
        deadline: float,
    ) -> None:
        """Write ``apply`` to ``replicas``, and hints for them to ``stand_ins``, which are asked for when needed."""
        super().__init__(replicas, required=need.nodes, required_primaries=need.primaries, parts=need.parts)
        self.apply = apply
        self.began_at = self._loop.time()
        self.left_s = deadline - self.began_at
        """Time until the deadline when it began."""
        self._hinting = hinting
        self._who_stands_in = stand_ins
        self._stand_ins: StandIns | None = None
        self._is_open = not need.is_strict
        self._is_forgotten = False
        self._stood_in: set[NodeId] = set()
        self._hints_under_way = 0

    def keep_hints(self) -> None:
        """Store hints from now on: for the primaries that have failed, and for those that will."""
        if self._is_open:
            return
        self._is_open = True
        for replica, error in list(self.errors.items()):
            self._replica_failed(replica, error)

    def forget(self) -> None:
        """Store no hints: nothing was written, or a newer attempt takes the place of this one."""
        self._is_forgotten = True

    def stand_in(self, primary: NodeId) -> None:
        """Have someone else keep the write for ``primary``; the second time nothing happens."""
        if primary in self._stood_in:
            return
        self._stood_in.add(primary)
        self._try_next(primary)

    def look(self, now: float) -> bool:
        """Stand in for the primaries that are silent by now; true once there is nothing left to do."""
        if not self._is_open:
            return self._is_forgotten
        is_over = not self._hints_under_way
        for primary in self.replicas:
            if self.quorum.is_pending(primary) and not self._is_forgotten:
                is_over = self._look_at(primary, now - self.began_at) and is_over
        return is_over and not self._hints_under_way

    def _count(self, replica: NodeId, future: asyncio.Future[Reply]) -> None:
        super()._count(replica, future)
        if self.quorum.primary_acks == len(self.replicas):
            self._hinting.forget(self)

    def _replica_failed(self, replica: NodeId, error: BaseException) -> None:
        if self._is_open and not self._is_forgotten and deserves_hint(error, map_epoch=self.apply.map_epoch):
            self.stand_in(replica)

    def _look_at(self, primary: NodeId, silent_s: float) -> bool:
        """True once a silent primary needs no more looking after: a late ack is welcome, and not waited for."""
        if silent_s >= self._hinting.patience_s(primary, self.left_s):
            self.stand_in(primary)
        if silent_s < SILENT_S:
            return False
        self._hinting.asker.note_silence(primary)
        return primary in self._stood_in

    def _try_next(self, primary: NodeId) -> None:
        if self._stand_ins is None:
            self._stand_ins = self._who_stands_in()
        keeper = self._stand_ins.next_for(primary, self._hinting.asker.is_responsive)
        if keeper is None:
            self._hinting.unkept += 1
            return
        self._hints_under_way += 1
        self.quorum.enlist(keeper)
        future = self._hinting.send(keeper, primary, self.apply)
        future.add_done_callback(partial(self._count_hint, primary, keeper))

    def _count_hint(self, primary: NodeId, keeper: NodeId, future: asyncio.Future[Reply]) -> None:
        error = error_of(future)
        self._hints_under_way -= 1
        if error is None:
            self._compare(future.result())
            self._hinting.sent += 1
            is_settled = self.quorum.hinted(keeper)
        else:
            self._note_error(keeper, error)
            if isinstance(error, PeerLostError):
                self._hinting.asker.note_silence(keeper)
            self._try_next(primary)
            is_settled = self.quorum.hint_failed(keeper)
        if is_settled:
            self._settle()
        if not isinstance(error, MerganserError | None):
            raise error


class Hinting:
    """The writes of this node that may need hints; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker) -> None:
        """Store hints on the nodes of ``topology``."""
        self.asker = asker
        self.sent = 0
        """Hints that a keeper has stored."""
        self.unkept = 0
        """Copies of writes that nobody keeps for a primary that missed them."""
        self.dropped = 0
        """Writes for which no hint could be kept in mind: `WATCHED_MAX` or `WATCHED_BYTES_MAX` was reached."""
        self.time_write: Callable[[TableId], Callable[[float], None] | None] = lambda _table: None
        """Told of each write; returns whom to tell how long it took on this node, if that is a replica."""
        self._topology = topology
        self._latencies = Latencies()
        self._writes = 0
        self._loop = asyncio.get_running_loop()
        self._watched: dict[HintedWriting, None] = {}  # the oldest first
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def write(
        self, table: Table, apply: Apply, need: Need, *, replicas: tuple[NodeId, ...], deadline: float
    ) -> HintedWriting:
        """Send ``apply`` to all ``replicas``, which are the primaries of its key, and look after it."""
        is_strict = need.is_strict
        writing = HintedWriting(
            self,
            apply,
            need,
            replicas=replicas,
            stand_ins=lambda: self._stand_ins(table, apply.key),
            deadline=deadline,
        )
        note_apply = self.time_write(table.id)
        if note_apply is not None:
            writing.note_ack = partial(self._note_apply, note_apply, writing.began_at)
        self._watch(writing, is_bounded=is_strict)
        self._writes += 1
        is_sample = self._writes % LATENCY_SAMPLE == 0
        for replica in replicas:
            ack = self.asker.ask(replica, apply, timeout_s=writing.left_s)
            writing.watch(replica, ack)
            if is_sample and replica != self.asker.node:
                ack.add_done_callback(partial(self._note_latency, replica, writing.began_at))
        if not is_strict:
            for replica in replicas:
                if not self.asker.is_responsive(replica):
                    writing.stand_in(replica)
        return writing

    def _note_apply(self, note: Callable[[float], None], began_at: float, replica: NodeId) -> None:
        if replica == self.asker.node:
            note(self._loop.time() - began_at)

    def _stand_ins(self, table: Table, key: bytes) -> StandIns:
        last_resort = self.asker.node if self._topology.may_keep(table) else None
        return StandIns(self._topology.fallbacks(table, key), coordinator=last_resort)

    def send(self, keeper: NodeId, primary: NodeId, apply: Apply) -> asyncio.Future[Reply]:
        """Have ``keeper`` store ``apply`` for ``primary``."""
        target = self._topology.number_of(primary)
        if target is None:  # it has left the cluster since
            return failed(self._loop.create_future(), PeerUnreachableError(f"node {primary} is no member any more"))
        hint = Hint(apply.map_epoch, apply.table, apply.key, apply.row, target)
        return self.asker.ask(keeper, hint, timeout_s=HINT_TIMEOUT_S)

    def patience_s(self, primary: NodeId, left_s: float) -> float:
        """Return how long ``primary`` may take to ack."""
        return silence_s(self._latencies.p95_s(primary), left_s=left_s)

    @property
    def watched(self) -> int:
        """How many writes are looked after."""
        return len(self._watched)

    def forget(self, writing: HintedWriting) -> None:
        """Look after ``writing`` no more."""
        if writing in self._watched:
            del self._watched[writing]
            self._bytes -= len(writing.apply.row)

    async def idle(self) -> None:
        """Return when no write is looked after any more."""
        await self._idle.wait()

    def close(self) -> None:
        """Look after nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._watched.clear()
        self._idle.set()

    def _watch(self, writing: HintedWriting, *, is_bounded: bool) -> None:
        if is_bounded and (len(self._watched) >= WATCHED_MAX or self._bytes >= WATCHED_BYTES_MAX):
            self.dropped += 1
            writing.forget()
            return
        self._bytes += len(writing.apply.row)
        self._watched[writing] = None
        if self._timer is None:
            self._idle.clear()
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _note_latency(self, replica: NodeId, began_at: float, ack: asyncio.Future[Reply]) -> None:
        if error_of(ack) is None:
            self._latencies.add(replica, self._loop.time() - began_at)

    def _sweep(self) -> None:
        """Look at all writes that are old enough for a hint."""
        now = self._loop.time()
        due = list(takewhile(lambda writing: writing.began_at + SILENCE_S_MIN <= now, self._watched))
        for writing in due:
            if writing.look(now):
                self.forget(writing)
        self._timer = None
        if self._watched:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        else:
            self._idle.set()
