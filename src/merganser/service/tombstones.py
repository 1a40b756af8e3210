"""Drop tombstones of registers: the leader of a group does, once every replica holds the same one.

::

    found, old enough --all replicas: the same fingerprint, durable--> next generation begins --> dropped here,
                                                                       in one turn of the loop    then by all others

Nothing that is later than a tombstone is on its way when it is dropped; what is earlier could bring the item back:
a message that the network has held back, or repeats. Such a message is of an earlier epoch, which every replica has
promised to refuse by then, or was sent by this leader before. So each message of a leader is of a *generation* of its
epoch; the next one begins with each drop, and a replica that has dropped takes nothing of an earlier one
(`service.generations`). What is still wanted of that is sent again. A replica that has not dropped yet holds the
tombstone, which outranks all that is earlier.

One that misses the drop differs from the leader afterwards. The tombstone that it has is written anew then
(`service.settlement`), and dropped another time.

Only places in which something was deleted in this term are gone through, and each once after an election.

A tombstone stays for longer than any request lasts: who reads an item twice sees by its version that it came and went.

Source: docs/internals/tombstones.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

import msgspec

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError
from merganser.model.ids import NodeId, TableId
from merganser.model.leader_messages import Drop
from merganser.model.leadership import Group
from merganser.model.messages import Fingerprints, LookAgain, Request
from merganser.model.register import Version
from merganser.net.transport import Traffic
from merganser.service.anti_entropy import REPAIR_INTERVAL_S
from merganser.service.asking import Asker
from merganser.service.generations import Generations
from merganser.service.hash_trees import HashTrees
from merganser.service.leader import Leader
from merganser.service.leadership import Leadership, Led
from merganser.service.standstill import Standstill
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import is_tombstone, version_of
from merganser.storage.values import check_row

LOOK_S: Final = 5.0  # between two looks of a node that leads nothing
SLICE_ROWS: Final = 256  # looked at between two turns of the loop: about a millisecond
ROWS_PER_S: Final = 20_000  # a tenth of a core
BATCH: Final = 256
"""Dropped together, for one generation."""
ASK_TIMEOUT_S: Final = 10.0
DROP_TIMEOUT_S: Final = 5.0

Found = tuple[bytes, bytes]
"""Key, and the tombstone as it is stored."""


class _Mark(msgspec.Struct, frozen=True):
    """Up to where tombstones are old enough, from when on."""

    led: Led
    version: Version
    until_s: float


class Tombstones:
    """Drops what nobody needs any more; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        generations: Generations,
        trees: HashTrees,
        leadership: Leadership,
        leader: Leader,
        *,
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        keep_s: float,
        interval_s: float = REPAIR_INTERVAL_S,
        standstill: Standstill,
    ) -> None:
        """Go through what this node leads.

        Args:
            topology: knows the tables.
            asker: asks the other replicas.
            engine: holds registers.
            generations: of this node.
            trees: through which registers are dropped.
            leadership: knows what this node leads.
            leader: knows what is on its way.
            rng: spreads the work.
            admit: waits while clients need this node more.
            keep_s: longer than any request lasts.
            interval_s: between two looks at the same place.
            standstill: while it is on nothing is dropped.
        """
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._generations = generations
        self._trees = trees
        self._leadership = leadership
        self._leader = leader
        self._rng = rng
        self._admit = admit
        self._keep_s = keep_s
        self._interval_s = interval_s
        self._standstill = standstill
        self._loop = asyncio.get_running_loop()
        self._marks: dict[tuple[Group, TableId], _Mark] = {}
        self._suspects: dict[tuple[Group, TableId], None] = {}
        """Places that may hold tombstones."""
        leadership.when_elected(self._elected)
        leader.items.when_deleted = self._deleted
        self.dropped = 0
        """By this node as a leader, since its start."""

    async def run(self) -> None:
        """Go through every place that is led here once per interval, for as long as the node lives."""
        while True:
            places = [
                (led, table)
                for led in self._leadership.leading()
                for table in self._topology.led_tables(led.group.rule)
                if (led.group, table.id) in self._suspects
            ]
            if not places:
                await asyncio.sleep(min(LOOK_S, self._interval_s))
            pause_s = self._interval_s / max(1, len(places))
            for led, table in places:
                await asyncio.sleep(pause_s * self._rng.uniform(0.8, 1.2))
                try:
                    await self.sweep(led, table)
                except InvariantError:
                    raise
                except MerganserError:  # whoever is away is back later, or another leads
                    continue

    async def sweep(self, led: Led, table: Table) -> int:
        """Drop what is old enough in one place; returns how many.

        What is there now is old enough for a sweep that comes after a while.

        Raises:
            MerganserError: a replica did not answer, or this node leads no more.
        """
        place, now_s = (led.group, table.id), self._loop.time()
        mark = self._marks.get(place)
        if mark is not None and mark.led is led and now_s < mark.until_s:
            return 0
        self._marks[place] = _Mark(led, Version(*led.epoch, led.sequence), now_s + self._keep_s)
        if mark is None or mark.led is not led:
            self._forget_others()
            return 0
        self._suspects.pop(place, None)  # what is deleted from now on makes it one again, and what stays does
        try:
            dropped, found = await self._sweep(led, table, mark.version)
            is_clean = dropped == found
        except BaseException:
            self._suspects[place] = None
            raise
        if not is_clean:
            self._suspects[place] = None
        return dropped

    async def _sweep(self, led: Led, table: Table, newest: Version) -> tuple[int, int]:
        """Return how many tombstones were dropped, and how many there were."""
        dropped, seen, batch = 0, 0, list[Found]()
        position, end = self._topology.partition_range(table, led.group.partition, led.group.partition)
        while position < end and led.is_standing:
            await self._admit()
            found, position = self._tombstones_from(position, end)
            seen += len(found)
            batch += [(key, stored) for key, stored in found if version_of(key, stored) <= newest]
            await asyncio.sleep(SLICE_ROWS / ROWS_PER_S)
            while len(batch) >= BATCH or (batch and position >= end):
                dropped += await self._drop(led, table, batch[:BATCH])
                del batch[:BATCH]
        return dropped, seen

    def _elected(self, led: Led) -> None:
        for table in self._topology.led_tables(led.group.rule):
            self._suspects[led.group, table.id] = None

    def _deleted(self, led: Led, table: TableId) -> None:
        self._suspects[led.group, table] = None

    def _forget_others(self) -> None:
        """Forget the marks of terms that are over."""
        for place in [place for place, mark in self._marks.items() if not mark.led.is_standing]:
            del self._marks[place]

    def _tombstones_from(self, start: bytes, end: bytes) -> tuple[list[Found], bytes]:
        """Return the tombstones of a slice, and where to go on.

        Raises:
            CorruptionError: the engine cannot read it.
        """
        page = list(islice(self._engine.scan(start, end), SLICE_ROWS))
        found = [(key, stored) for key, stored in page if _is_tombstone(key, stored)]
        return found, end if len(page) < SLICE_ROWS else keys.after(page[-1][0])

    async def _drop(self, led: Led, table: Table, tombstones: Sequence[Found]) -> int:
        """Drop those of ``tombstones`` that all replicas hold and that nothing has come to; returns how many."""
        await self._engine.durable()
        placed = led.placed
        same = await self._held_by_all(led, table, tombstones)
        if led.placed != placed:
            return 0
        drop = self._drop_here(led, table, same)  # in one turn of the loop, nothing of it awaited before
        if drop is None:
            return 0
        self.dropped += len(drop.tombstones)
        told = await asyncio.gather(
            *(self._ask(node, drop, DROP_TIMEOUT_S, Traffic.DATA) for node in led.followers(self._topology.node)),
            return_exceptions=True,
        )
        for error in told:  # who was not reached differs from now on, and is settled
            if isinstance(error, Exception) and (
                isinstance(error, InvariantError) or not isinstance(error, MerganserError)
            ):
                raise error
        return len(drop.tombstones)

    async def _held_by_all(self, led: Led, table: Table, tombstones: Sequence[Found]) -> list[Found]:
        """Return those that every other replica holds as this one does, durably.

        Raises:
            MerganserError: one of them did not answer.
        """
        epoch, wanted = self._topology.map.epoch, tuple(key for key, _ in tombstones)
        question = LookAgain(epoch, table.id, led.group.partition, wanted)
        same = list(tombstones)
        for node in led.followers(self._topology.node):
            answer = await self._ask(node, question, ASK_TIMEOUT_S, Traffic.BULK)
            if not isinstance(answer, Fingerprints) or len(answer.fingerprints) != len(wanted):
                raise CorruptionError(f"{node} answered {type(answer).__name__} to {len(wanted)} keys")
            theirs = dict(zip(wanted, answer.fingerprints, strict=True))
            same = [
                (key, stored)
                for key, stored in same
                if theirs[key] == self._trees.fingerprint_of(table.id, key, stored)
            ]
        return same

    def _drop_here(self, led: Led, table: Table, tombstones: Sequence[Found]) -> Drop | None:
        """Begin a generation and drop ``tombstones`` on this node; returns what the others are to be told."""
        if self._standstill.is_on or not led.is_standing or not self._leader.knows_all(table, led=led):
            return None
        left = [
            (key, stored)
            for key, stored in tombstones
            if self._engine.get(key) == stored and not self._leader.terms.is_in_flight(led, key)
        ]
        if not left:
            return None
        led.generation += 1
        self._generations.begin(led.group, (led.epoch, led.generation))
        self._trees.write([(table.id, key, stored, None) for key, stored in left])
        versions = tuple((key, version_of(key, stored)) for key, stored in left)
        return Drop(self._topology.map.epoch, table.id, led.group.partition, led.epoch, led.generation, versions)

    async def _ask(self, node: NodeId, request: Request, timeout_s: float, traffic: Traffic) -> object:
        return await self._asker.ask(node, request, timeout_s=timeout_s, traffic=traffic)


def _is_tombstone(key: bytes, stored: bytes) -> bool:
    try:
        check_row(key, stored)
        return is_tombstone(key, stored)
    except CorruptionError:
        return False
