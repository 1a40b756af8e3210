"""Writes of a leader on their way to the replicas: one `Flight` for each term, one `Proposal` for each write.

::

    proposed --majority has it, or a later one of the item--> chosen      (while the replicas change: of both sets)
       |                                                         a few resends to stragglers, then anti-entropy
       +------deposed, or the table is dropped----------------> lost: the outcome is unknown

A proposal is sent again and again until one or the other, whether anybody still waits for it or not: the next write of
the item is built on it. Writes of one item are in flight together, in the order of their versions; an ack of one
counts for those before it, which a replica that has the later one will not keep any more. So does the verdict.

What is chosen is never sent in a later generation than it was proposed in (`service.tombstones`): it may be what a
tombstone that was dropped since has buried.

The leader's own ack comes when its engine is durable; all proposals of a turn of the loop wait for that together. What
there is for one replica at the end of a turn, of whatever terms, goes in one message (`Sending`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec

from merganser.core.leadership import majority
from merganser.core.once import Once
from merganser.model.errors import RefusedError, StorageFailedError
from merganser.model.ids import NodeId, TableId
from merganser.model.leader_messages import NOT_LEADING, Changed, Copies, Kept, Replicate
from merganser.model.messages import Reply
from merganser.model.register import Version
from merganser.net.transport import refusal
from merganser.service.asking import Asker, error_of
from merganser.service.leadership import Led
from merganser.service.told import Told, Untold
from merganser.storage.engine import Engine

REPLICATE_S = 0.5  # a healthy replica answers within a few milliseconds; asked again, it does nothing twice
RESEND_S_MIN = 0.05
RESEND_S_MAX = 1.0
STRAGGLER_RESENDS_MAX = 3
PATIENCE_S = 5.0  # a client gives a request less
COPIES_BYTES_MAX = 1_000_000
"""In one message: what comes after it on the connection waits for all of it."""
LARGE_BYTES = 1024
STRAGGLERS_MAX = 1_000  # of one replica; what has more to make up for does so in an exchange

REQUESTS_KEPT_S = 30.0
"""A node repeats a request within its client's deadline, which is shorter than `core.healing.IN_FLIGHT_S`."""
ANSWERS_BYTES_MAX = 32 * 2**20
"""Of large answers, which tell what the item was or became. A request is repeated a second after that at most."""
REQUESTS_MAX = 300_000  # 100 MiB; 10,000 a second, more than a node does


class Proposal:
    """One write on its way."""

    __slots__ = (
        "_told",
        "_waiting",
        "acks",
        "answer",
        "is_chosen",
        "is_lost",
        "is_old",
        "key",
        "request",
        "resends",
        "version",
    )

    def __init__(self, version: Version, request: Replicate) -> None:
        """Begin with no acks."""
        self.key = request.key
        self.version = version
        self.request = request
        self.acks = 0
        """A bit for each replica that has it durably."""
        self.resends = 0
        self.answer = b""
        """Of the step that made it."""
        self.is_old = False
        self.is_chosen = False
        self.is_lost = False
        self._waiting: list[asyncio.Future[None]] = []
        self._told: list[Callable[[], None]] = []

    @property
    def has_ended(self) -> bool:
        """Tell whether it is chosen, or lost."""
        return self.is_chosen or self.is_lost

    async def ended(self) -> bool:
        """Return true once it is chosen, false once it is lost, or neither after `PATIENCE_S` or twice that.

        Whoever waits may be cancelled, without harm to the others.
        """
        if not (self.is_chosen or self.is_lost):
            await self.waiter()
        return self.is_chosen

    def waiter(self) -> asyncio.Future[None]:
        """Return a future of its own for somebody who waits for the same, before that; he may end it himself."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def when_ended(self, told: Callable[[], None]) -> None:
        """Call ``told``, once, as a waiter would be woken, in the turn of the loop in which that is; before that."""
        self._told.append(told)

    def end(self, *, is_chosen: bool) -> None:
        """Tell all who wait."""
        self.is_chosen, self.is_lost = is_chosen, not is_chosen
        self.let_go()

    def let_go(self) -> None:
        """Let nobody wait any longer."""
        for waiter in self._waiting:
            _wake(waiter)
        self._waiting.clear()
        told, self._told = self._told, []
        for tell in told:
            tell()


Outcome = Proposal | Changed | Told | Untold | str
"""Of a change: a write, the answer once it is chosen, an answer without a write, or why nothing was done. That is for
good: a copy of the request that comes later must not do what its sender was told is not done."""


def weight_of(outcome: Outcome) -> int:
    """Return the bytes of an answer that is large, else 0: most answers tell only that it is done."""
    if isinstance(outcome, Told):
        outcome = outcome.changed
    return len(outcome.answer) if isinstance(outcome, Changed) and len(outcome.answer) >= LARGE_BYTES else 0


def lightened(outcome: Outcome) -> Outcome:
    """Return an outcome without its answer."""
    if isinstance(outcome, Told):
        return "what was answered then is not kept any more"
    return Untold() if isinstance(outcome, Changed) else outcome


def outcomes() -> Once[Outcome]:
    """Return a leader's memory of what became of requests, empty."""
    return Once(
        keep_s=REQUESTS_KEPT_S,
        most=REQUESTS_MAX,
        weight_max=ANSWERS_BYTES_MAX,
        weight_of=weight_of,
        lightened=lightened,
    )


class LocalAcks:
    """Acks proposals for this node itself, once they are durable here."""

    def __init__(self, engine: Engine) -> None:
        """Wait for ``engine``."""
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._gathering: list[tuple[Flight, Proposal]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, flight: Flight, proposal: Proposal) -> None:
        """Ack ``proposal``, which is committed here, when it is durable."""
        self._gathering.append((flight, proposal))
        if len(self._gathering) == 1:
            task = self._loop.create_task(self._ack_gathered())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ack nothing any more."""
        for task in list(self._tasks):
            task.cancel()

    async def _ack_gathered(self) -> None:
        gathered, self._gathering = self._gathering, []
        try:
            await self._engine.durable()
        except StorageFailedError:  # the others may make a majority without this node
            return
        for flight, proposal in gathered:
            flight.acked(proposal, flight.me)


class Sending:
    """Sends to each replica what a turn of the loop has for it, together."""

    def __init__(self, asker: Asker) -> None:
        """Send through ``asker``."""
        self._asker = asker
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[NodeId, list[tuple[Flight, Proposal]]] = {}

    def send(self, flight: Flight, proposal: Proposal, node: NodeId) -> None:
        """Send ``proposal`` to ``node`` at the end of this turn; ``flight`` hears what came of it."""
        gathered = self._gathered.get(node)
        if gathered is not None:
            gathered.append((flight, proposal))
            return
        if not self._gathered:
            self._loop.call_soon(self._send_gathered)
        self._gathered[node] = [(flight, proposal)]

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for node, sent in gathered.items():
            for some in _bounded(sent):
                if len(some) == 1:
                    request: Replicate | Copies = some[0][1].request
                else:
                    request = Copies(tuple([proposal.request for _, proposal in some]))
                answer = self._asker.ask(node, request, timeout_s=REPLICATE_S)
                answer.add_done_callback(partial(_tell, some, node))


def _bounded(sent: list[tuple[Flight, Proposal]]) -> Iterator[list[tuple[Flight, Proposal]]]:
    """Yield parts of at most `COPIES_BYTES_MAX`, or of one proposal."""
    start, size = 0, 0
    for place, (_, proposal) in enumerate(sent):
        size += len(proposal.request.register)
        if size > COPIES_BYTES_MAX and place > start:
            yield sent[start:place]
            start, size = place, len(proposal.request.register)
    yield sent[start:] if start else sent


def _tell(sent: list[tuple[Flight, Proposal]], node: NodeId, answer: asyncio.Future[Reply]) -> None:
    """Tell the flights what became of what was sent to ``node``."""
    error = error_of(answer)
    if error is not None:
        for flight, proposal in sent:
            flight.not_kept(proposal, node, error)
        return
    reply = answer.result()
    refused = dict(reply.refused) if isinstance(reply, Kept) and reply.refused else {}
    for place, (flight, proposal) in enumerate(sent):
        if place in refused:
            flight.not_kept(proposal, node, refusal(refused[place]))
        else:
            flight.acked(proposal, node)


class Flight:
    """The proposals of one term; see the module's docstring."""

    def __init__(
        self,
        led: Led,
        asker: Asker,
        local: LocalAcks,
        sending: Sending,
        *,
        learned: Callable[[RefusedError], None],
        behind: Callable[[TableId, NodeId], None],
    ) -> None:
        """Send to the other replicas of ``led``.

        Args:
            led: the term.
            asker: knows who can be reached.
            local: acks for this node.
            sending: sends.
            learned: told of refusals that name a later epoch.
            behind: told of each replica that lacks a write, which is not sent to it again.
        """
        self._behind = behind
        self.me = asker.node
        self.count = 0
        """Proposals neither chosen nor lost."""
        self._led = led
        self._others = tuple(led.followers(asker.node))
        self._bits = {node: 1 << place for place, node in enumerate(led.replicas)}
        self._majorities = _majorities(led, self._bits)
        self._enough = max(most for _, most in self._majorities)
        self._asker = asker
        self._local = local
        self._sending = sending
        self._learned = learned
        self._loop = asyncio.get_running_loop()
        self._chains: dict[bytes, list[Proposal]] = {}
        self._lagging: dict[NodeId, dict[bytes, Proposal]] = {node: {} for node in self._others}
        self._timers: dict[NodeId, asyncio.TimerHandle] = {}
        self._backoff_s = dict.fromkeys(led.replicas, RESEND_S_MIN)
        self._aging: asyncio.TimerHandle | None = None
        self._is_over = False
        self._idle: list[asyncio.Future[None]] = []

    def propose(self, version: Version, request: Replicate) -> Proposal:
        """Send what is committed here just now, and is later than all that was proposed of its item."""
        self.count += 1
        proposal = Proposal(version, request)
        chain = self._chains.get(request.key)
        if chain is None:
            self._chains[request.key] = [proposal]
        else:
            chain.append(proposal)
        for node in self._others:
            self._sending.send(self, proposal, node)
        self._local.expect(self, proposal)
        if self._aging is None:
            self._aging = self._loop.call_later(PATIENCE_S, self._age)
        return proposal

    def newest(self, key: bytes) -> Proposal | None:
        """Return the last proposal of an item, None if none of it is in flight."""
        chain = self._chains.get(key)
        return None if chain is None else chain[-1]

    def within(self, start: bytes, end: bytes) -> list[Proposal]:
        """Return the last proposal of each item of a range that has any in flight."""
        return [chain[-1] for key, chain in self._chains.items() if start <= key < end]

    async def idle(self, deadline: float) -> bool:
        """Return true once nothing is in flight, false at ``deadline`` (loop time) if something is."""
        if self._chains and not self._is_over:
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            timer = self._loop.call_at(deadline, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        return not self._chains

    def acked(self, proposal: Proposal, node: NodeId) -> None:
        """Note that ``node`` has ``proposal``, or a later one of its item, durably."""
        self._backoff_s[node] = RESEND_S_MIN
        chain = self._chains.get(proposal.key)
        if chain is None:
            return
        chosen, bit = 0, self._bits.get(node, 0)
        for position, earlier in enumerate(chain):
            if earlier is not proposal and earlier.version > proposal.version:
                break
            earlier.acks |= bit
            if earlier.acks.bit_count() >= self._enough and self._have_most(earlier.acks):
                chosen = position + 1
        if chosen:
            self._choose(proposal.key, chain, chosen)

    def _have_most(self, acks: int) -> bool:
        """Tell whether the replicas of these bits are most of those who serve, and most of those who will."""
        (serving, most), (coming, most_coming) = self._majorities
        return (acks & serving).bit_count() >= most and (acks & coming).bit_count() >= most_coming

    def _choose(self, key: bytes, chain: list[Proposal], chosen: int) -> None:
        """End the first ``chosen`` proposals of an item well."""
        if chosen == len(chain):
            del self._chains[key]
            if self._idle and not self._chains:
                self._wake_idle()
        else:
            self._chains[key] = chain[chosen:]
        self.count -= chosen
        for earlier in chain[:chosen]:
            earlier.end(is_chosen=True)

    def regroup(self) -> None:
        """Go on with the replicas that the term has by now.

        Acks of those who are among the old and the new ones stay. What is in flight is sent to whoever has not acked
        it: those who knew of the change before this node have refused it, and newcomers have not seen it.
        """
        others, bits = self._others, self._bits
        self._others = tuple(self._led.followers(self.me))
        self._bits = {node: 1 << place for place, node in enumerate(self._led.replicas)}
        self._majorities = _majorities(self._led, self._bits)
        self._enough = max(most for _, most in self._majorities)
        self._backoff_s = dict.fromkeys(self._led.replicas, RESEND_S_MIN)
        for node in others:
            if node not in self._bits:
                self._lagging.pop(node, None)
                timer = self._timers.pop(node, None)
                if timer is not None:
                    timer.cancel()
        for node in self._others:
            self._lagging.setdefault(node, {})
        for key, chain in list(self._chains.items()):
            chosen = 0
            for position, proposal in enumerate(chain):
                acked = [node for node, bit in bits.items() if proposal.acks & bit and node in self._bits]
                proposal.acks = sum(self._bits[node] for node in acked)
                if self._have_most(proposal.acks):
                    chosen = position + 1
            for node in self._others:
                if not chain[-1].acks & self._bits[node]:
                    self._send(chain[-1], node)
            if chosen:
                self._choose(key, chain, chosen)

    def forget_table(self, table: TableId) -> None:
        """Give up what is in flight of a table that was dropped."""
        self._lose([key for key, chain in self._chains.items() if chain[0].request.table == table])

    def end(self) -> None:
        """Give up everything: this node is deposed."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        if self._aging is not None:
            self._aging.cancel()
        self._lagging = {node: {} for node in self._others}
        self._lose(list(self._chains))

    def _lose(self, keys: list[bytes]) -> None:
        for key in keys:
            chain = self._chains.pop(key)
            self.count -= len(chain)
            for proposal in chain:
                proposal.end(is_chosen=False)
        if not self._chains:
            self._wake_idle()

    def _wake_idle(self) -> None:
        for waiter in self._idle:
            _wake(waiter)
        self._idle.clear()

    def _age(self) -> None:
        self._aging = self._loop.call_later(PATIENCE_S, self._age) if self._chains else None
        for chain in self._chains.values():
            for proposal in chain:
                if proposal.is_old:
                    proposal.let_go()
                proposal.is_old = True

    # Sending

    def _send(self, proposal: Proposal, node: NodeId) -> None:
        request, led = proposal.request, self._led
        if request.generation != led.generation and not proposal.is_chosen:
            request = proposal.request = msgspec.structs.replace(request, generation=led.generation)
        if request.map_epoch < led.placed:
            proposal.request = msgspec.structs.replace(request, map_epoch=led.placed)
        self._sending.send(self, proposal, node)

    def not_kept(self, proposal: Proposal, node: NodeId, error: BaseException) -> None:
        """Note that ``node`` was sent ``proposal`` in vain, or has not told."""
        if self._is_over:
            return
        if isinstance(error, RefusedError) and error.code == NOT_LEADING:
            self._learned(error)
        self._not_acked(proposal, node)

    def _not_acked(self, proposal: Proposal, node: NodeId) -> None:
        lagging = self._lagging.get(node)
        if self._is_over or proposal.is_lost or lagging is None:  # it is no replica any more
            return
        if proposal.is_chosen and not self._may_straggle(proposal, node):
            self._behind(proposal.request.table, node)
            return
        known = lagging.get(proposal.key)
        if known is None or known.version < proposal.version:
            lagging[proposal.key] = proposal
        if node not in self._timers:
            backoff_s = self._backoff_s[node]
            self._timers[node] = self._loop.call_later(backoff_s, self._resend, node)
            self._backoff_s[node] = min(2 * backoff_s, RESEND_S_MAX)

    def _may_straggle(self, proposal: Proposal, node: NodeId) -> bool:
        return (
            proposal.resends < STRAGGLER_RESENDS_MAX
            and len(self._lagging[node]) < STRAGGLERS_MAX
            and self._asker.is_reachable(node)
        )

    def _resend(self, node: NodeId) -> None:
        del self._timers[node]
        lagging, self._lagging[node] = self._lagging[node], {}
        for proposal in self._newest_of(lagging):
            if proposal.is_lost:
                continue
            if proposal.is_chosen and not self._may_straggle(proposal, node):
                self._behind(proposal.request.table, node)
                continue
            proposal.resends += 1
            self._send(proposal, node)

    def _newest_of(self, lagging: dict[bytes, Proposal]) -> Iterator[Proposal]:
        """Yield for each item the last one in flight, which counts for all before it."""
        for key, proposal in lagging.items():
            yield self.newest(key) or proposal


def _majorities(led: Led, bits: Mapping[NodeId, int]) -> tuple[tuple[int, int], ...]:
    """Return whose acks choose a write: bits of replicas, and how many of these, of those who serve and who will."""
    return tuple((sum(bits[node] for node in nodes), majority(len(nodes))) for nodes in (led.serving, led.next))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
