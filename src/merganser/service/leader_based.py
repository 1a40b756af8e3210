"""Coordinate reads and writes of leader-based tables; any node does it for any key.

A change, and a consistent read, is for the leader of the item's partition (`service.leader_asking`). A change is done
once, or its outcome is unknown. An eventually consistent read is answered by the nearest replica, with the register as
it is stored there.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, cast

from merganser.core.indexing import shown_in
from merganser.core.quorum import ReadQuorum, Verdict
from merganser.core.ring import Ring
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, Need
from merganser.model.errors import MerganserError, UnknownOutcomeError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import (
    Change,
    Changed,
    Led,
    LedRows,
    ReadLed,
    ReadRangeLed,
)
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Found, Read, ReadRange, Reply, Request, Rows
from merganser.model.register import NO_VERSION
from merganser.net.transport import Traffic
from merganser.service.admission import UnderWay, counted, timed
from merganser.service.asking import Asker, Reading
from merganser.service.changes_here import Begun, ChangesHere
from merganser.service.hedging import Hedging
from merganser.service.leader_asking import Errand, LeaderAsking, Leaders, PartitionCutError
from merganser.service.local_indexes import LocalIndexes
from merganser.service.shortfall import Shortfall
from merganser.service.steps import UNASKED
from merganser.service.topology import Topology
from merganser.service.turns import Turns
from merganser.storage import keys
from merganser.storage.registers import decode_register, plain_value, value_at, values_in, version_of

PARTITIONS_MAX: Final = 16  # of one range, asked at once, where there is little in each

_REQUEST_BYTES: Final = 16
_ONE: Final = Need(1, 1)
_UNWRITTEN: Final = Led(None, NO_VERSION)


class _Part:
    """A partition of a table, as the ring was cut when a read of it began."""

    __slots__ = ("high", "low", "partition", "partitions")

    def __init__(self, ring: Ring, table: Table, partition: PartitionId) -> None:
        self.partition = partition
        self.partitions = ring.partitions
        self.low, self.high = keys.token_range(table.id, *ring.token_range(partition))

    def beyond(self, start: bytes, end: bytes, *, reverse: bool) -> bytes | None:
        """Return where a read of ``start <= key < end`` that has ended with this partition goes on."""
        if reverse:
            return self.low if self.low > start else None
        return self.high if self.high < end else None


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
        local: LocalIndexes,
        changes_here: ChangesHere,
    ) -> None:
        """Coordinate requests over the replicas that ``topology`` names; ``catch_up`` fetches a newer map.

        What this node leads itself is changed through ``changes_here``. Each read and write takes a place in
        ``under_way``, and is an OverloadedError if there is none.
        """
        self.under_way = under_way
        self._local = local
        self._changes_here = changes_here
        self._topology = topology
        self._asker = asker
        self._leaders = leaders
        self._asking = LeaderAsking(topology, asker, leaders, rng=rng, catch_up=catch_up)
        self._hedging = hedging
        self._range_turns = range_turns
        self._rng = rng
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
        begun = self._changes_here.begin(table, key, kind, payload)
        if begun is not None:
            return await self._changes_here.ended(begun, deadline)
        return await self._change_elsewhere(table, key, kind, payload, deadline)

    async def change_all(
        self, changes: Iterable[tuple[Table, bytes, bytes]], kind: int, *, deadline: float
    ) -> list[Changed | MerganserError]:
        """Have the leaders of several keys do a step each, at once, and each by itself.

        Args:
            changes: table, key and payload of each.
            kind: whose steps they are.
            deadline: loop time.

        Returns:
            what each came to, or how it failed, as `change` would have raised it.
        """
        here = self._changes_here
        begun: list[Begun | asyncio.Task[Changed] | MerganserError] = []
        done: list[Changed | MerganserError] = []
        try:
            for table, key, payload in changes:
                try:
                    begun.append(
                        here.begin(table, key, kind, payload)
                        or self._loop.create_task(self._change_elsewhere(table, key, kind, payload, deadline))
                    )
                except UnknownOutcomeError as error:  # this node's disk
                    begun.append(error)
            for one in begun:
                try:
                    if isinstance(one, MerganserError):
                        raise one
                    done.append(await (here.ended(one, deadline) if isinstance(one, Begun) else one))
                except MerganserError as error:
                    done.append(error)
        finally:
            if len(done) < len(begun):  # given up
                self._let_go(begun[len(done) :])
        return done

    def _let_go(self, begun: Iterable[Begun | asyncio.Task[Changed] | MerganserError]) -> None:
        for one in begun:
            if isinstance(one, Begun):
                self._changes_here.let_go(one)
            elif isinstance(one, asyncio.Task):
                one.cancel()

    async def _change_elsewhere(self, table: Table, key: bytes, kind: int, payload: bytes, deadline: float) -> Changed:
        def question(epoch: Epoch) -> Change:
            request = self._rng.randbytes(_REQUEST_BYTES)  # another one after each refusal, which is for good
            return Change(self._topology.map.epoch, table.id, key, epoch, request, kind, payload)

        errand = self._errand(table, key, deadline)
        return cast("Changed", await self._timed(errand, question, is_read=False, is_asked=kind not in UNASKED))

    async def read(self, table: Table, key: bytes, *, is_consistent: bool, deadline: float) -> Led:
        """Return the item under ``key``: as its leader has it, or as the nearest replica has it.

        Raises:
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: no leader, or no replica, answered by ``deadline`` (loop time).
            CorruptionError: what a replica answered is damaged.
        """
        found = self.at_once(table, key, is_consistent=is_consistent)
        if found is not None:
            return found
        if not is_consistent:
            return await self._read_nearest(table, key, deadline)

        errand = self._errand(table, key, deadline)

        def question(epoch: Epoch) -> ReadLed:
            is_vouched = self._leaders.vouches(errand.group, epoch)
            return ReadLed(self._topology.map.epoch, table.id, key, epoch, is_vouched)

        return cast("Led", await self._timed(errand, question, is_read=True, is_asked=True))

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
        index: int | None = None,
    ) -> LedRows:
        """Return a page of the items of ``start <= key < end``.

        The page may hold fewer items than asked for, even none, and still name where to resume: it ends where a
        replica stopped. It may hold more, as several partitions are read at once.

        Args:
            rows_max: items, or rows a replica sends; tombstones count there.
            bytes_max: bytes after which it is enough.
            index: of this local index: the range, and the keys of the answer, are entries (`storage.keys`).

        Raises:
            as `read`; UnavailableError also when too many such reads are under way until ``deadline``.
        """
        async with self._range_turns.one(deadline):
            if not is_consistent:
                question = ReadRange(0, table.id, start, end, reverse, rows_max, bytes_max, index)
                return await self._read_range_nearest(table, question, deadline)
            no_epoch = Epoch(0, 0)
            wanted = ReadRangeLed(0, table.id, start, end, no_epoch, reverse, rows_max, bytes_max, index)
            return await self._read_range_led(table, wanted, deadline)

    async def read_index(
        self,
        index: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool = False,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> LedRows:
        """Return a page of the entries of a global index, with their projected items, as the nearest replica has them.

        Args:
            index: the table of the index's entries; bounds, order and page as of `read_range`.

        Raises:
            as `read_range`.
        """
        page = await self.read_range(
            index,
            start,
            end,
            reverse=reverse,
            is_consistent=False,
            rows_max=rows_max,
            bytes_max=bytes_max,
            deadline=deadline,
        )
        return LedRows(shown_in(page.rows), page.resume)

    # Of this node, where nothing has to be waited for.

    def at_once(self, table: Table, key: bytes, *, is_consistent: bool) -> Led | None:
        """Return what `read` does, None if that would have to wait, or fails."""
        found = self._led_here(table, key) if is_consistent else self._held_here(table, key)
        if found is not None:
            self.under_way.ended += 1
        return found

    def value_at_once(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        """Return the value of what `at_once` does, b"" if there is none, which no item is; None as it."""
        if is_consistent:
            led = self.at_once(table, key, is_consistent=True)
            return None if led is None else led.value or b""
        found = cast("Found | None", self._asker.at_once(Read(self._topology.map.epoch, table.id, key)))
        if found is None:
            return None
        self.under_way.ended += 1
        stored = found.row  # whose checksum was looked at
        value_begins = None if stored is None else value_at(key, stored)
        return b"" if stored is None or value_begins is None else stored[value_begins:]

    def _led_here(self, table: Table, key: bytes) -> Led | None:
        topology = self._topology
        partition = topology.ring.partition_of(keys.token_in(key))
        if (
            len(topology.ring.preference_list(partition, rule := topology.rule_of(table))) > 1
        ):  # whom the leader asks whether it still is one
            return None
        epoch = self._leaders.known(Group(rule, partition))
        if topology.node_of(epoch.leader) != self._asker.node:
            return None
        return cast("Led | None", self._asker.at_once(ReadLed(topology.map.epoch, table.id, key, epoch)))

    def _held_here(self, table: Table, key: bytes) -> Led | None:
        found = self._asker.at_once(Read(self._topology.map.epoch, table.id, key))
        if found is None:
            return None
        stored = cast("Found", found).row  # whose checksum was looked at
        if stored is None:
            return _UNWRITTEN
        value_begins = value_at(key, stored)
        return Led(None if value_begins is None else stored[value_begins:], version_of(key, stored))

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
        group = Group(self._topology.rule_of(table), partition)
        partitions = self._topology.ring.partitions
        errand = Errand(table, group, partitions=partitions, now=self._loop.time(), deadline=deadline, traffic=traffic)
        return await self._asking.ask(errand, question_in, is_read=True)

    def _errand(self, table: Table, key: bytes, deadline: float) -> Errand:
        ring = self._topology.ring
        group = Group(self._topology.rule_of(table), ring.partition_of(keys.token_in(key)))
        return Errand(table, group, partitions=ring.partitions, now=self._loop.time(), deadline=deadline, key=key)

    async def _timed(
        self, errand: Errand, question_in: Callable[[Epoch], Request], *, is_read: bool, is_asked: bool
    ) -> Reply:
        """Ask, within the bounds of this node, which learns how long it takes if a client waits for it."""
        with self.under_way as under_way:
            began = under_way.time()
            try:
                return await self._asking.ask(errand, question_in, is_read=is_read)
            finally:
                if is_asked and not errand.has_waited:
                    under_way.ended += 1
                    under_way.seconds += under_way.time() - began

    async def _read_range_led(self, table: Table, wanted: ReadRangeLed, deadline: float) -> LedRows:
        while True:
            try:
                return await self._pages_led(table, wanted, deadline)
            except PartitionCutError:  # it begins anew, with the partitions that there are now
                continue

    async def _pages_led(self, table: Table, wanted: ReadRangeLed, deadline: float) -> LedRows:
        """Read partition after partition; more of them at once, the less there is in them."""
        start, end, reverse = wanted.start, wanted.end, wanted.reverse
        ring = self._topology.ring
        left = [_Part(ring, table, partition) for partition in self._topology.partitions_between(table, start, end)]
        if reverse:
            left.reverse()
        rows: list[tuple[bytes, bytes]] = []
        size, at_once = 0, 1
        while left:
            batch, left = left[:at_once], left[at_once:]
            room = max(1, wanted.bytes_max - size)
            asked = [self._page_led(table, part, wanted, room, deadline) for part in batch]
            pages = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked, return_exceptions=True)
            for part, page in zip(batch, pages, strict=True):
                if isinstance(page, BaseException):
                    raise page
                rows += page.rows
                size += sum([len(key) + len(value) for key, value in page.rows])
                is_enough = len(rows) >= wanted.rows_max or size >= wanted.bytes_max
                if page.resume is not None or is_enough:
                    resume = page.resume or part.beyond(start, end, reverse=reverse)
                    return LedRows(tuple(rows), resume)
            at_once = min(2 * at_once, PARTITIONS_MAX)
        return LedRows(tuple(rows), None)

    async def _page_led(
        self, table: Table, part: _Part, wanted: ReadRangeLed, bytes_max: int, deadline: float
    ) -> LedRows:
        low, high = max(wanted.start, part.low), min(wanted.end, part.high)

        def question(epoch: Epoch) -> ReadRangeLed:
            map_epoch, rows_max = self._topology.map.epoch, wanted.rows_max
            return ReadRangeLed(
                map_epoch, table.id, low, high, epoch, wanted.reverse, rows_max, bytes_max, wanted.index
            )

        errand = Errand(
            table,
            Group(self._topology.rule_of(table), part.partition),
            partitions=part.partitions,
            now=self._loop.time(),
            deadline=deadline,
            traffic=Traffic.BULK,
        )
        return cast("LedRows", await self._asking.ask(errand, question, is_read=True))

    # Of the nearest replica.

    @timed
    async def _read_nearest(self, table: Table, key: bytes, deadline: float) -> Led:
        answer = None
        while answer is None:
            question = Read(self._topology.map.epoch, table.id, key)
            answer = await self._ask_nearest(table, self._topology.holders(table, key).serving, question, deadline)
        found = cast("Found", answer)
        register = decode_register(key, found.row)
        return Led(register.value, register.version)

    async def _read_range_nearest(self, table: Table, wanted: ReadRange, deadline: float) -> LedRows:
        """Read as far as one set of replicas holds the range."""
        start, end, reverse = wanted.start, wanted.end, wanted.reverse
        run = self._topology.run(table, start, end, reverse=reverse)
        if run is None:
            return LedRows((), None)
        low, high, holders = run
        map_epoch = self._topology.map.epoch
        question = ReadRange(map_epoch, table.id, low, high, reverse, wanted.rows_max, wanted.bytes_max, wanted.index)
        page = cast("Rows | None", self._asker.at_once(question))
        is_checked = page is not None  # by the replica, and it has not travelled since
        if page is None:
            answer = await self._ask_nearest(table, holders.serving, question, deadline, Traffic.BULK)
            if answer is None:
                return await self._read_range_nearest(table, wanted, deadline)
            page = cast("Rows", answer)
        rows = tuple(self._values(table, page, wanted.index, is_checked=is_checked))
        if page.resume is not None:
            return LedRows(rows, page.resume)
        if not page.is_last:
            last = page.rows[-1][0]
            return LedRows(rows, last if reverse else keys.after(last))
        if reverse:
            return LedRows(rows, low if low > start else None)
        return LedRows(rows, high if high < end else None)

    def _values(
        self, table: Table, page: Rows, index: int | None, *, is_checked: bool
    ) -> Iterable[tuple[bytes, bytes]]:
        if index is not None:
            found = [(entry, self._standing(table, entry, stored)) for entry, stored in page.rows]
        elif is_checked:
            return values_in(page.rows)
        else:
            found = [(key, plain_value(key, stored) or decode_register(key, stored).value) for key, stored in page.rows]
        return ((key, value) for key, value in found if value is not None)

    def _standing(self, table: Table, entry: bytes, stored: bytes) -> bytes | None:
        """Return the value of an item that was found by an entry of a local index; None unless it stands there."""
        register = decode_register(keys.row_of(entry), stored)
        if register.content.intent is None or self._local.stands(table, entry, register.value):
            return register.value
        return None

    async def _ask_nearest(
        self,
        table: Table,
        replicas: Sequence[NodeId],
        question: Read | ReadRange,
        deadline: float,
        traffic: Traffic = Traffic.DATA,
    ) -> Reply | None:
        """Return the first answer of ``replicas``, nearest first; None if others hold it by now."""
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
            if await self._shortfall.has_moved(reading.errors, question.map_epoch):
                return None
            raise await self._shortfall.of_read(table, reading, _ONE, map_epoch=question.map_epoch)
        return next(iter(quorum.replies.values()))  # another may have come in the same turn of the loop
