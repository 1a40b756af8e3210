"""Coordinate reads and writes of leader-based tables; any node does it for any key.

A change, and a consistent read, is for the leader of the item's partition. This node asks whom it believes to be that
(`Leadership.known`), names the epoch, and learns from each refusal (`core.leader_search`). Nobody but the leader of
exactly that epoch does anything, so who leads nothing can be asked in vain, and whatever was not sent, refused, or
lost on the way to another node is tried again with the next leader::

    looking --asks the leader of the epoch--> answered
       ^ |                                       lost, a change: it may be done
       | +-- refused, not sent, lost elsewhere      |
       +------ nothing is done                      v
                                  insisting: the same request, of the same leader, in the same epoch, only
                                     | answered           | anything else
                                     v                    v
                                  answered            outcome unknown

Insisting is safe because a leader does a request once, by its id. With another leader it would not be: the change may
be adopted there late, and would be done twice. So the client is told that the outcome is unknown.

An eventually consistent read is answered by the nearest replica, with the register as it is stored there.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol, cast

from merganser.core.leader_search import LeaderSearch
from merganser.core.quorum import ReadQuorum, Verdict
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, Need
from merganser.model.errors import (
    InvariantError,
    MerganserError,
    OverloadedError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    TransactionConflictError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import (
    NOT_LEADING,
    TRANSACTION_CONFLICT,
    Change,
    Changed,
    Led,
    LedRows,
    ReadLed,
    ReadRangeLed,
)
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Found, Read, ReadRange, Reply, Request, Rows
from merganser.net.transport import Traffic, refusal_code
from merganser.service.admission import UnderWay, counted, timed
from merganser.service.asking import Asker, Reading, error_of, is_overload, wrote_nothing
from merganser.service.hedging import Hedging
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA
from merganser.service.shortfall import Shortfall, reasons, unavailable
from merganser.service.topology import Topology
from merganser.service.turns import Turns
from merganser.storage import keys
from merganser.storage.registers import decode_register

PATIENCE_S: Final = 3.0
"""How long a leader is looked for. A take-over takes about one second; who waits longer keeps others out."""
LOOK_S: Final = 0.25
"""How often a request that waits for a leader looks whether another has been elected; who is not the leader should
answer faster than that."""
INSIST_S: Final = 1.0  # a broken connection is mended within that, or the node is down and another takes over
INSIST_PAUSE_S: Final = 0.05
PARTITIONS_MAX: Final = 16  # of one range, asked at once, where there is little in each

_REQUEST_BYTES: Final = 16
_REQUEST_CODE: Final = refusal_code(RequestError())
_ONE: Final = Need(1, 1)


class Leaders(Protocol):
    """What this node knows of who leads."""

    def known(self, group: Group) -> Epoch:
        """Return the latest epoch of ``group`` that this node has heard of."""

    def learned(self, group: Group, epoch: Epoch) -> None:
        """Take note of an epoch that a refusal named."""


class _Errand:
    """One request to the leader of a group."""

    __slots__ = ("deadline", "errors", "give_up_at", "group", "has_waited", "search", "table", "traffic")

    def __init__(
        self, table: Table, group: Group, *, now: float, deadline: float, traffic: Traffic = Traffic.DATA
    ) -> None:
        self.table = table
        self.group = group
        self.deadline = deadline
        self.give_up_at = min(deadline, now + PATIENCE_S)
        self.traffic = traffic
        self.search = LeaderSearch()
        self.errors: dict[NodeId, BaseException] = {}
        self.has_waited = False
        """For an election: it says nothing about how busy this node is."""


class LeaderBased:
    """This node as coordinator of leader-based tables; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        leaders: Leaders,
        *,
        hedging: Hedging,
        range_turns: Turns,
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        under_way: UnderWay,
    ) -> None:
        """Coordinate requests over the replicas that ``topology`` names; ``catch_up`` fetches a newer map.

        Each read and write takes a place in ``under_way``, and is an OverloadedError if there is none.
        """
        self.under_way = under_way
        self._topology = topology
        self._asker = asker
        self._leaders = leaders
        self._hedging = hedging
        self._range_turns = range_turns
        self._rng = rng
        self._catch_up = catch_up
        self._shortfall = Shortfall(topology, asker, catch_up=catch_up)
        self._loop = asyncio.get_running_loop()

    async def change(self, table: Table, key: bytes, kind: int, payload: bytes, *, deadline: float) -> Changed:
        """Have the leader of ``key`` do a step, once; returns what it came to when a majority has it durably.

        Args:
            kind: whose step it is (`service.steps`).
            payload: what it does, in the words of that kind.
            deadline: loop time.

        Raises:
            RequestError: the step makes no sense on this item; nothing was written.
            TransactionConflictError: a transaction holds the item; nothing was written.
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: no leader was found, or it could not do it; nothing was written.
            UnknownOutcomeError: it may be done, now or later.
        """

        def question(epoch: Epoch) -> Change:
            request = self._rng.randbytes(_REQUEST_BYTES)  # another one after each refusal, which is for good
            return Change(self._topology.map.epoch, table.id, key, epoch, request, kind, payload)

        return cast("Changed", await self._timed(self._errand(table, key, deadline), question, is_read=False))

    async def read(self, table: Table, key: bytes, *, is_consistent: bool, deadline: float) -> Led:
        """Return the item under ``key``: as its leader has it, or as the nearest replica has it.

        Raises:
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: no leader, or no replica, answered by ``deadline`` (loop time).
            CorruptionError: what a replica answered is damaged.
        """
        if not is_consistent:
            return await self._read_nearest(table, key, deadline)

        def question(epoch: Epoch) -> ReadLed:
            return ReadLed(self._topology.map.epoch, table.id, key, epoch)

        return cast("Led", await self._timed(self._errand(table, key, deadline), question, is_read=True))

    @counted
    async def read_range(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool = False,
        is_consistent: bool,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> LedRows:
        """Return a page of the items of ``start <= key < end``.

        The page may hold fewer items than asked for, even none, and still name where to resume: it ends where a
        replica stopped. It may hold more, as several partitions are read at once.

        Args:
            rows_max: items, or rows a replica sends; tombstones count there.
            bytes_max: bytes after which it is enough.

        Raises:
            as `read`; UnavailableError also when too many such reads are under way until ``deadline``.
        """
        async with self._range_turns.one(deadline):
            if not is_consistent:
                question = ReadRange(0, table.id, start, end, reverse, rows_max, bytes_max)
                return await self._read_range_nearest(table, question, deadline)
            return await self._read_range_led(
                table, start, end, reverse=reverse, rows_max=rows_max, bytes_max=bytes_max, deadline=deadline
            )

    # Of leaders.

    async def ask(
        self,
        table: Table,
        partition: PartitionId,
        question_in: Callable[[Epoch], Request],
        *,
        deadline: float,
        traffic: Traffic = Traffic.DATA,
    ) -> Reply:
        """Return the answer of the leader of a partition to a question that does no harm when it is repeated.

        Args:
            table: one of those that it leads.
            partition: of them.
            question_in: returns the question, as it is asked in an epoch.
            deadline: loop time.
            traffic: bulk for what may take long.

        Raises:
            MerganserError: no leader was found, or it could not answer.
        """
        group = Group(table.n, partition)
        errand = _Errand(table, group, now=self._loop.time(), deadline=deadline, traffic=traffic)
        return await self._ask_leader(errand, question_in, is_read=True)

    def _errand(self, table: Table, key: bytes, deadline: float) -> _Errand:
        group = Group(table.n, self._topology.ring.partition_of(keys.token_in(key)))
        return _Errand(table, group, now=self._loop.time(), deadline=deadline)

    async def _timed(self, errand: _Errand, question_in: Callable[[Epoch], Request], *, is_read: bool) -> Reply:
        """As `_ask_leader`, within the bounds of this node, which learns how long it takes."""
        with self.under_way as under_way:
            began = under_way.time()
            try:
                return await self._ask_leader(errand, question_in, is_read=is_read)
            finally:
                if not errand.has_waited:
                    under_way.ended += 1
                    under_way.seconds += under_way.time() - began

    async def _ask_leader(self, errand: _Errand, question_in: Callable[[Epoch], Request], *, is_read: bool) -> Reply:
        """Return the leader's answer to the question that is asked in its epoch."""
        while True:
            replicas = self._topology.ring.preference_list(errand.group.partition, errand.group.n)
            epoch = self._leaders.known(errand.group)
            leader = self._topology.node_of(epoch.leader)
            if leader not in replicas:
                leader = None
            node = errand.search.next(epoch, leader, partial(self._others, replicas))
            if node is None:
                await self._pause(errand)
                continue
            map_epoch, question = self._topology.map.epoch, question_in(epoch)
            answer = await self._answer(errand, node, epoch, question, is_leader=node == leader)
            if not isinstance(answer, BaseException):
                return answer
            if not (is_read or node != leader or wrote_nothing(answer) or _is_of_the_request(answer)):
                return await self._insist(errand, node, epoch, question, answer)
            errand.errors[node] = answer
            await self._weigh(errand, node, answer, map_epoch, is_leader=node == leader)

    def _others(self, replicas: Iterable[NodeId]) -> Sequence[NodeId]:
        """Return who may know more than this node, best first."""
        return self._asker.nearest_first([node for node in replicas if node != self._asker.node])

    async def _answer(
        self, errand: _Errand, node: NodeId, epoch: Epoch, question: Request, *, is_leader: bool
    ) -> Reply | BaseException:
        """Return the answer of ``node``, or how it failed; lost also if another leader is elected meanwhile."""
        timeout_s = errand.deadline - self._loop.time()
        if not is_leader and timeout_s > LOOK_S:
            timeout_s = LOOK_S
        if timeout_s <= 0:
            return PeerUnreachableError("no time was left to ask")
        future = self._asker.ask(node, question, timeout_s=timeout_s, traffic=errand.traffic)
        is_superseded = False
        while not await _has_ended(self._loop, future, LOOK_S):
            if is_superseded:  # for as long as it should take to say so itself
                future.add_done_callback(error_of)
                errand.has_waited = True
                return PeerLostError(f"node {node} does not answer, and leads no more")
            is_superseded = self._leaders.known(errand.group) > epoch
        error = error_of(future)
        if error is None:
            return future.result()
        if isinstance(error, InvariantError) or not isinstance(error, MerganserError):
            raise error
        return error

    async def _weigh(
        self, errand: _Errand, node: NodeId, error: BaseException, map_epoch: int, *, is_leader: bool
    ) -> None:
        """Learn from a failure, after which nothing is done, of a question that named ``map_epoch``.

        Raises:
            what the client has to hear.
        """
        if isinstance(error, RefusedError):
            if error.code == NOT_LEADING:
                self._leaders.learned(errand.group, error.epoch)
                return
            if error.code == NO_SUCH_TABLE:
                await self._shortfall.raise_if_dropped(errand.table, {node: error}, map_epoch)
            if error.code == NOT_A_REPLICA and error.map_epoch > self._topology.map.epoch:
                await self._catch_up(node)
        if _is_of_the_request(error):
            raise _for_clients(error)
        if is_overload(error) and is_leader:
            raise OverloadedError(f"the leader of the item has too much to do: {error}")
        if isinstance(error, PeerLostError):
            self._asker.note_silence(node)

    async def _insist(
        self, errand: _Errand, leader: NodeId, epoch: Epoch, question: Request, lost: BaseException
    ) -> Reply:
        """Return the answer to a change that may be done, if the leader that may have done it can still tell.

        Raises:
            UnknownOutcomeError: it cannot.
        """
        until = min(errand.deadline, self._loop.time() + INSIST_S)
        while _may_be_mended(lost) and self._leaders.known(errand.group) == epoch and self._loop.time() < until:
            errand.has_waited = True
            await asyncio.sleep(INSIST_PAUSE_S * self._rng.uniform(0.5, 1.0))
            answer = await self._answer(errand, leader, epoch, question, is_leader=True)
            if not isinstance(answer, BaseException):
                return answer
            lost = answer
        if isinstance(lost, RefusedError) and lost.code == NOT_LEADING:
            self._leaders.learned(errand.group, lost.epoch)
        raise UnknownOutcomeError(
            f"the leader of the item, node {leader}, has not told what became of the change: {lost}; "
            "it is unknown whether it will be seen, read the item or try again"
        )

    async def _pause(self, errand: _Errand) -> None:
        """Wait for somebody to be elected.

        Raises:
            UnavailableError: that takes too long.
        """
        now = self._loop.time()
        if now >= errand.give_up_at:
            self._give_up(errand)
        errand.has_waited = True
        pause_s = errand.search.pause_s() * self._rng.uniform(0.5, 1.0)
        await asyncio.sleep(min(pause_s, errand.give_up_at - now))

    def _give_up(self, errand: _Errand) -> NoReturn:
        raise unavailable(
            f"no leader was found for partition {errand.group.partition}: {reasons(errand.errors)}; "
            "nothing was done, try again",
            errand.errors,
        )

    async def _read_range_led(
        self, table: Table, start: bytes, end: bytes, *, reverse: bool, rows_max: int, bytes_max: int, deadline: float
    ) -> LedRows:
        """Read partition after partition; more of them at once, the less there is in them."""
        left = list(self._topology.partitions_between(table, start, end))
        if reverse:
            left.reverse()
        rows: list[tuple[bytes, bytes]] = []
        size, at_once = 0, 1
        while left:
            batch, left = left[:at_once], left[at_once:]
            pages = await asyncio.gather(
                *[
                    self._page_led(table, partition, start, end, reverse, rows_max, bytes_max - size, deadline)
                    for partition in batch
                ],
                return_exceptions=True,
            )
            for partition, page in zip(batch, pages, strict=True):
                if isinstance(page, BaseException):
                    raise page
                rows += page.rows
                size += sum(len(key) + len(value) for key, value in page.rows)
                is_enough = len(rows) >= rows_max or size >= bytes_max
                if page.resume is not None or is_enough:
                    resume = page.resume or self._beyond(table, partition, start, end, reverse=reverse)
                    return LedRows(tuple(rows), resume)
            at_once = min(2 * at_once, PARTITIONS_MAX)
        return LedRows(tuple(rows), None)

    async def _page_led(
        self,
        table: Table,
        partition: PartitionId,
        start: bytes,
        end: bytes,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> LedRows:
        low, high = self._topology.partition_range(table, partition, partition)
        low, high = max(start, low), min(end, high)

        def question(epoch: Epoch) -> ReadRangeLed:
            return ReadRangeLed(
                self._topology.map.epoch, table.id, low, high, epoch, reverse, rows_max, max(1, bytes_max)
            )

        group = Group(table.n, partition)
        errand = _Errand(table, group, now=self._loop.time(), deadline=deadline, traffic=Traffic.BULK)
        return cast("LedRows", await self._ask_leader(errand, question, is_read=True))

    def _beyond(self, table: Table, partition: PartitionId, start: bytes, end: bytes, *, reverse: bool) -> bytes | None:
        """Return where a read that has ended with ``partition`` goes on."""
        low, high = self._topology.partition_range(table, partition, partition)
        if reverse:
            return low if low > start else None
        return high if high < end else None

    # Of the nearest replica.

    @timed
    async def _read_nearest(self, table: Table, key: bytes, deadline: float) -> Led:
        question = Read(self._topology.map.epoch, table.id, key)
        replicas = self._topology.replicas(table, key)
        found = cast("Found", await self._ask_nearest(table, replicas, question, deadline))
        register = decode_register(key, found.row)
        return Led(register.value, register.version)

    async def _read_range_nearest(self, table: Table, wanted: ReadRange, deadline: float) -> LedRows:
        """Read as far as one set of replicas holds the range."""
        start, end, reverse = wanted.start, wanted.end, wanted.reverse
        run = self._topology.run(table, start, end, reverse=reverse)
        if run is None:
            return LedRows((), None)
        low, high, replicas = run
        map_epoch = self._topology.map.epoch
        question = ReadRange(map_epoch, table.id, low, high, reverse, wanted.rows_max, wanted.bytes_max)
        page = cast("Rows", await self._ask_nearest(table, replicas, question, deadline, Traffic.BULK))
        registers = [(key, decode_register(key, stored).value) for key, stored in page.rows]
        rows = tuple((key, value) for key, value in registers if value is not None)
        if not page.is_last:
            last = page.rows[-1][0]
            return LedRows(rows, last if reverse else keys.after(last))
        if reverse:
            return LedRows(rows, low if low > start else None)
        return LedRows(rows, high if high < end else None)

    async def _ask_nearest(
        self,
        table: Table,
        replicas: Sequence[NodeId],
        question: Read | ReadRange,
        deadline: float,
        traffic: Traffic = Traffic.DATA,
    ) -> Reply:
        self._shortfall.check_reachable(table, _ONE, Consistency.ONE, replicas=replicas, fallbacks=())
        quorum: ReadQuorum[Reply] = ReadQuorum(self._asker.nearest_first(replicas), required=1)
        reading = Reading(
            quorum,
            ask=lambda node: self._asker.ask(node, question, timeout_s=deadline - self._loop.time(), traffic=traffic),
            hedge_s=self._hedging.after_s(quorum.first()),
            note_silence=self._asker.note_silence,
            note_latency=self._hedging.sample(),
        )
        if await reading.settled(deadline) is not Verdict.SUCCEEDED:
            raise await self._shortfall.of_read(table, reading, _ONE, map_epoch=question.map_epoch)
        return next(iter(quorum.replies.values()))  # another may have come in the same turn of the loop


def _is_of_the_request(error: BaseException) -> bool:
    """Tell whether a leader failed because of what it was asked for, and has done nothing."""
    if isinstance(error, RefusedError):
        return error.code in (TRANSACTION_CONFLICT, _REQUEST_CODE)
    return isinstance(error, RequestError)


def _for_clients(error: BaseException) -> BaseException:
    if not isinstance(error, RefusedError):
        return error
    return TransactionConflictError(str(error)) if error.code == TRANSACTION_CONFLICT else RequestError(str(error))


def _may_be_mended(error: BaseException) -> bool:
    """Tell whether asking once more may tell what became of a change."""
    return isinstance(error, PeerLostError | PeerUnreachableError) or is_overload(error)


async def _has_ended(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Reply], within_s: float) -> bool:
    """Wait for ``future``, but not for long; a third of the cost of `asyncio.wait`."""
    if future.done():
        return True
    waiter = loop.create_future()

    def wake(_future: asyncio.Future[Reply] | None = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    timer = loop.call_later(within_s, wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()
