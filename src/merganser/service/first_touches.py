"""What a leader knows of its items in its term, and how it comes to know more (`core.first_touch`).

A key that is not known is touched when somebody needs it: all who need it wait for one touch. Behind that a walk goes
through every place that was not known at the election, page by page where the hash trees of a majority differ; a range
that is read ahead of the walk is covered in the same way. What differs is written back under this epoch, and whoever
uses it next builds on that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast

from merganser.core.first_touch import KnownPlace, Touched, is_known_by_roots, touched, unequal
from merganser.core.hash_tree import LEAF_LEVEL, LEAVES
from merganser.core.quorum import ReadQuorum, Verdict
from merganser.model.cluster import Table
from merganser.model.errors import (
    CorruptionError,
    MerganserError,
    RefusedError,
    StorageFailedError,
    UnavailableError,
)
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import NOT_LEADING, Touch, TouchRange, TouchTree
from merganser.model.messages import Found, Nodes, Reply, Rows
from merganser.model.register import Content, Version
from merganser.net.transport import Traffic
from merganser.service.asking import SILENT_S, Asker, Reading
from merganser.service.damage import Damage
from merganser.service.hash_trees import HashTrees
from merganser.service.in_flight import Flight, Proposal
from merganser.service.leadership import Led
from merganser.service.outboxes import Outboxes
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, epoch_bytes, version_of
from merganser.storage.values import check_row

TOUCH_S = 2.0  # a majority that does not answer in that time is not there
PAGE_ROWS = 256  # compared in one turn of the loop: about a millisecond
PAGE_BYTES = 1_000_000
WALK_AGAIN_S = 1.0
"""Before a place is tried again that could not be read to its end: replicas are away, or hold damaged rows."""


class Term:
    """What this node does as the leader of one group in one epoch."""

    __slots__ = ("closed_until", "epoch", "epoch_bytes", "flight", "led", "places", "touching")

    def __init__(self, led: Led, flight: Flight) -> None:
        """Know nothing yet."""
        self.led = led
        self.epoch = led.epoch
        self.epoch_bytes = epoch_bytes(led.epoch)
        self.flight = flight
        self.places: dict[TableId, KnownPlace] = {}
        self.touching: dict[bytes, list[asyncio.Future[None]]] = {}
        """Keys that are being touched, and who waits for that."""
        self.closed_until = 0.0
        """Loop time before which no change is taken, because another is to lead."""


class Adopting(Protocol):
    """Whoever gives a register its next version."""

    def __call__(
        self, term: Term, table: Table, key: bytes, content: Content, *, before: bytes | None, is_intact: bool
    ) -> Proposal:
        """Write ``content`` in this turn of the loop, in the place of ``before``.

        Raises:
            UnavailableError: nothing was written.
            UnknownOutcomeError: the engine failed.
        """


class FirstTouches:
    """Makes items known; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        trees: HashTrees,
        damage: Damage,
        outboxes: Outboxes,
        *,
        admit: Callable[[], Awaitable[None]],
        adopt: Adopting,
        put_back: Callable[[Table, bytes | None, Proposal], None],
        learned: Callable[[Term, RefusedError], None],
    ) -> None:
        """Ask the other replicas.

        Args:
            topology: knows the tables.
            asker: asks peers.
            engine: holds this node's registers.
            trees: tell where they may differ from those of others.
            damage: takes note of damaged ones.
            outboxes: says what is behind what is written back.
            admit: waits between pages while clients need this node more.
            adopt: writes a register back.
            put_back: stores again what is in flight, in the place of what is damaged here.
            learned: told of a refusal that names a later epoch.
        """
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._trees = trees
        self._damage = damage
        self._outboxes = outboxes
        self._admit = admit
        self._adopt = adopt
        self._put_back = put_back
        self._learned = learned
        self._loop = asyncio.get_running_loop()
        self._to_walk: dict[tuple[Term, TableId], None] = {}
        self._news = asyncio.Event()

    # What is known

    def begin(self, term: Term) -> None:
        """Look at the roots that came with the promises, and queue what they leave open."""
        for table in self._topology.led_tables(term.led.group.rule):
            self.place(term, table)

    def place(self, term: Term, table: Table) -> KnownPlace:
        """Return what is known of the rows of ``table``."""
        place = term.places.get(table.id)
        if place is None:
            start, _ = self._range(term, table)
            is_whole = is_known_by_roots(term.led.roots.get(table.id, {}), self._asker.node, term.led.quorum)
            place = term.places[table.id] = KnownPlace(start, is_whole=is_whole)
            if not is_whole:
                self._to_walk[term, table.id] = None
                self._news.set()
        return place

    def knows(self, term: Term, table: Table, key: bytes, version: Version) -> bool:
        """Tell whether the register of this node, which is of ``version``, is what the majority holds or will hold."""
        if version[:2] == term.epoch:
            return True
        place = term.places.get(table.id)
        return (place if place is not None else self.place(term, table)).knows(key)

    # One key

    async def touch(self, term: Term, table: Table, key: bytes) -> None:
        """Return once ``key`` is known, or may be: the caller looks again.

        Raises:
            UnavailableError: too few replicas answered.
            CorruptionError: an answer is damaged.
            UnknownOutcomeError: the engine failed.
        """
        waiting = term.touching.get(key)
        if waiting is not None:
            waiter = self._loop.create_future()
            waiting.append(waiter)
            await waiter
            return
        term.touching[key] = waiting = []
        try:
            await self._touch(term, table, key)
        finally:
            del term.touching[key]
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def own(self, table: TableId, key: bytes) -> tuple[bytes | None, bool]:
        """Return what this node holds under ``key``, and whether that is intact; what is not is noted."""
        stored = None
        try:
            stored = self._engine.get(key)
            if stored is not None:
                check_row(key, stored)
                version_of(key, stored)
        except CorruptionError:
            self._damage.met_row(table, key)
            return stored or b"", False
        return stored, True

    async def _touch(self, term: Term, table: Table, key: bytes) -> None:
        if not self._engine.is_durable(key):
            await self._durable()
        own, is_intact = self.own(table.id, key)
        if not is_intact and self._is_put_back(term, table, key, own):
            return
        question = Touch(self._topology.map.epoch, table.id, key, term.epoch)
        placed, enough = term.led.placed, term.led.meets - is_intact
        replies = await self._ask(term, term.led.quorum - is_intact, question, Traffic.DATA, enough=enough)
        if not term.led.is_standing or term.led.placed != placed:
            return
        answers = [cast("Found", reply).row for reply in replies]
        self._settle(term, table, key, answers)

    def _settle(self, term: Term, table: Table, key: bytes, answers: Sequence[bytes | None]) -> Proposal | None:
        """Judge ``answers`` in one turn of the loop; returns what is written back, if anything."""
        own, is_intact = self.own(table.id, key)
        if is_intact and own is not None and version_of(key, own)[:2] == term.epoch:
            return None
        if not is_intact and self._is_put_back(term, table, key, own):
            return None
        verdict = touched(
            own,
            answers,
            is_own_intact=is_intact,
            quorum=term.led.quorum,
            meets=term.led.meets,
            version_of=lambda row: _version(key, row),
        )
        if verdict is None:
            return None
        if verdict.is_known:
            self.place(term, table).touched(key)
            return None
        met = [*answers, own] if is_intact else answers
        return self._write_back(term, table, key, verdict, own, met, is_intact=is_intact)

    def _is_put_back(self, term: Term, table: Table, key: bytes, damaged: bytes | None) -> bool:
        """Store what is in flight again; of what others hold, an ack of the next version would count for this one."""
        newest = term.flight.newest(key)
        if newest is not None:
            self._put_back(table, damaged, newest)
        return newest is not None

    def _write_back(
        self,
        term: Term,
        table: Table,
        key: bytes,
        verdict: Touched,
        own: bytes | None,
        met: Sequence[bytes | None],
        *,
        is_intact: bool,
    ) -> Proposal:
        content = decode_register(key, verdict.adopt).content
        contents = [decode_register(key, stored).content for stored in dict.fromkeys(met)]
        content = self._outboxes.of_adopted(table, key, content, contents)
        return self._adopt(term, table, key, content, before=own, is_intact=is_intact)

    async def _ask(
        self, term: Term, required: int, question: Touch | TouchRange, traffic: Traffic, *, enough: int | None = None
    ) -> Sequence[Reply]:
        """Return at least ``required`` answers of other replicas, or ``enough`` if that many do not come.

        Raises:
            UnavailableError: too few answered.
        """
        if required <= 0:
            return ()
        others = term.led.followers(self._asker.node)
        reading = Reading(
            ReadQuorum(self._asker.nearest_first(others), required=required),
            ask=lambda node: self._asker.ask(node, question, timeout_s=TOUCH_S, traffic=traffic),
            hedge_s=SILENT_S,
            note_silence=self._asker.note_silence,
        )
        verdict = await reading.settled(self._loop.time() + TOUCH_S)
        for error in reading.errors.values():
            if isinstance(error, RefusedError) and error.code == NOT_LEADING:
                self._learned(term, error)
        if verdict is not Verdict.SUCCEEDED and len(reading.quorum.replies) < (required if enough is None else enough):
            why = "; ".join(f"{node}: {error}" for node, error in reading.errors.items()) or "they are silent"
            raise UnavailableError(
                f"{len(reading.quorum.replies)} of {required} other replicas told what they hold ({why}); "
                "nothing was done, try again"
            )
        return list(reading.quorum.replies.values())

    # Ranges

    async def cover(self, term: Term, table: Table, start: bytes, end: bytes, *, rows_max: int = PAGE_ROWS) -> bytes:
        """Make the first rows of ``start <= key < end`` known; returns up to which key.

        Raises:
            UnavailableError: too few replicas answered, or somebody else leads.
            CorruptionError: this node cannot read what it holds.
            UnknownOutcomeError: the engine failed.
        """
        question = TouchRange(
            self._topology.map.epoch, table.id, start, end, term.epoch, min(rows_max, PAGE_ROWS), PAGE_BYTES
        )
        placed = term.led.placed
        pages = [cast("Rows", reply) for reply in await self._ask(term, term.led.quorum - 1, question, Traffic.BULK)]
        if not self._engine.is_all_durable:
            await self._durable()
        if not term.led.is_standing:
            raise UnavailableError("another node has begun to lead; nothing was done, try again")
        if term.led.placed != placed:
            return start
        for page in pages:
            if not page.is_last:
                end = min(end, keys.after(page.rows[-1][0]))
        written, damaged, end = self._compare(term, table, start, end, pages)
        for key in damaged:
            await self.touch(term, table, key)
        for proposal in written:
            if not await proposal.ended():
                raise UnavailableError("another node has begun to lead; try again")
        self.place(term, table).covered(start, end)
        return end

    def _compare(
        self, term: Term, table: Table, start: bytes, end: bytes, pages: Sequence[Rows]
    ) -> tuple[list[Proposal], list[bytes], bytes]:
        """Write back what differs; returns that, keys damaged here, and how far the comparison went."""
        own: dict[bytes, bytes] = {}
        for key, stored in self._engine.scan(start, end):
            if len(own) == PAGE_ROWS:
                end = keys.after(max(own))
                break
            own[key] = stored
        theirs = [dict(page.rows) for page in pages]
        written, damaged = [], []
        for key in sorted({*own, *(key for rows in theirs for key in rows)}):
            if key >= end or (all(rows.get(key) == own.get(key) for rows in theirs) and self._is_intact(key, own)):
                continue
            if not self.own(table.id, key)[1]:
                damaged.append(key)
            elif (proposal := self._settle(term, table, key, [rows.get(key) for rows in theirs])) is not None:
                written.append(proposal)
        return written, damaged, end

    def _is_intact(self, key: bytes, own: dict[bytes, bytes]) -> bool:
        stored = own.get(key)
        try:
            if stored is not None:
                check_row(key, stored)
        except CorruptionError:
            return False
        return True

    async def _durable(self) -> None:
        try:
            await self._engine.durable()
        except StorageFailedError as error:
            raise UnavailableError(f"this node's disk has failed ({error}); nothing was written") from None

    # The walk

    async def run(self) -> None:
        """Go through what is not known, while the node lives."""
        while True:
            self._news.clear()
            again = False
            for term, table_id in list(self._to_walk):
                again |= not await self._walk(term, table_id)
            try:
                async with asyncio.timeout(WALK_AGAIN_S if again else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _walk(self, term: Term, table_id: TableId) -> bool:
        """Go on in one place; returns whether that is no longer to be done."""
        table = self._topology.table(table_id)
        if table is not None and term.led.is_standing:
            place = self.place(term, table)
            try:
                for start, end in await self._unequal(term, table):
                    place.covered(place.until, start)
                    while start < end and term.led.is_standing:
                        await self._admit()
                        start = await self.cover(term, table, start, end)
            except MerganserError:  # whoever is in the way is back later, or healed
                return not term.led.is_standing
            if term.led.is_standing:
                place.completed()
        self._to_walk.pop((term, table_id), None)
        return True

    async def _unequal(self, term: Term, table: Table) -> Sequence[tuple[bytes, bytes]]:
        """Return the ranges in which a majority may differ, after what is known already; all of it, if nobody can tell.

        The others have promised the epoch when they answer, so what is equal stays so but for what this node writes.
        """
        partition, (low, high) = term.led.group.partition, self._range(term, table)
        low = max(low, self.place(term, table).until)
        others: list[Sequence[int]] = []
        placed = term.led.placed
        await self._durable()
        for node in self._asker.nearest_first(term.led.followers(self._asker.node)):
            if len(others) == term.led.quorum - 1:
                break
            leaves = await self._leaves_of(term, table, node)
            if leaves is not None:
                others.append(leaves)
        if term.led.placed != placed:  # who was asked may be no replica any more, and fewer are needed than were
            return ((low, high),)
        if len(others) < term.led.quorum - 1 or self._trees.root(table.id, partition) is None:
            return ((low, high),)
        own = self._trees.nodes(table.id, partition, LEAF_LEVEL, range(LEAVES))
        ranges = [
            (
                self._trees.stretch_range(table.id, partition, first)[0],
                self._trees.stretch_range(table.id, partition, end - 1)[1],
            )
            for first, end in unequal(own, others)
        ]
        return [(max(start, low), end) for start, end in ranges if end > low]

    async def _leaves_of(self, term: Term, table: Table, node: NodeId) -> Sequence[int] | None:
        """Return the leaves of a replica's tree, None if it does not tell."""
        question = TouchTree(self._topology.map.epoch, table.id, term.led.group.partition, term.epoch)
        try:
            reply = await self._asker.ask(node, question, timeout_s=TOUCH_S, traffic=Traffic.BULK)
        except MerganserError:
            return None
        hashes = cast("Nodes", reply).hashes
        return hashes if len(hashes) == LEAVES else None

    def forget(self, term: Term) -> None:
        """Give up a term that is over."""
        for table in term.places:
            self._to_walk.pop((term, table), None)

    def _range(self, term: Term, table: Table) -> tuple[bytes, bytes]:
        partition: PartitionId = term.led.group.partition
        return self._topology.partition_range(table, partition, partition)


def _version(key: bytes, stored: bytes) -> Version:
    check_row(key, stored)
    return version_of(key, stored)
