"""Remove markers of entries that are gone, once no late message can bring them back (docs/internals/indexes.md).

A marker may go in an epoch later than the one that it was written in: whatever is sent in this epoch was confirmed
after it had begun. So a leader goes through the tables of entries in its partition when it begins to lead it. Those
that gather in one epoch are counted now and then; when they are many, the leader begins a new epoch for their sake.

A marker becomes a register with nothing in it, which `service.tombstones` drops.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Final

from merganser.core.index_tables import is_index
from merganser.core.indexing import is_marker
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Register, Version
from merganser.service.leader import Leader
from merganser.service.leadership import Leadership, Led
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register

MARKERS_MAX: Final = 10_000
"""Of one epoch: 2 MB, and as many rows that a reader of the index skips. A new epoch keeps clients waiting for some
milliseconds."""
COUNT_S: Final = 3_600.0  # with ten million entries on a node, going through them takes half a minute
LOOK_S: Final = 1.0
SLICE_ROWS: Final = 256  # half a millisecond


class Markers:
    """Removes markers; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        leadership: Leadership,
        leader: Leader,
        *,
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        markers_max: int = MARKERS_MAX,
    ) -> None:
        """Go through what this node leads.

        Args:
            topology: knows the tables.
            engine: holds the entries.
            leadership: what this node leads.
            leader: of the entries.
            rng: spreads the work.
            admit: waits between slices of background work while clients need this node more.
            markers_max: of one epoch.
        """
        self._topology = topology
        self._engine = engine
        self._leadership = leadership
        self._leader = leader
        self._rng = rng
        self._admit = admit
        self._markers_max = markers_max
        self._loop = asyncio.get_running_loop()
        self._due: dict[tuple[Led, TableId], float] = {}
        """When to go through each place."""
        self.removed = 0
        """Since the start of this node."""
        leadership.when_elected(self._elected)

    async def run(self) -> None:
        """Look after markers for as long as the node lives."""
        while True:
            await asyncio.sleep(LOOK_S * self._rng.uniform(0.8, 1.2))
            for (led, table_id), due_s in list(self._due.items()):
                table = self._topology.table(table_id)
                if table is None or not led.is_standing:
                    del self._due[led, table_id]
                elif due_s <= self._loop.time():
                    self._due[led, table_id] = self._loop.time() + COUNT_S * self._rng.uniform(0.8, 1.2)
                    await self._look_after(led, table)

    async def _look_after(self, led: Led, table: Table) -> None:
        try:
            if await self.sweep(led, table) >= self._markers_max and led.is_standing:
                await self._leadership.renew(led.group)
        except InvariantError:
            raise
        except MerganserError:  # whoever is in the way is back later, or another leads
            self._due[led, table.id] = self._loop.time() + LOOK_S

    async def sweep(self, led: Led, table: Table) -> int:
        """Remove the markers of earlier epochs; returns how many there are of this one.

        Raises:
            MerganserError: some could not be known, or this node leads no more.
        """
        position, end = self._topology.partition_range(table, led.group.partition, led.group.partition)
        of_this_epoch = 0
        while position < end and led.is_standing:
            await self._admit()
            rows = list(itertools.islice(self._engine.scan(position, end), SLICE_ROWS))
            for key, stored in rows:
                version = _version_of_marker(key, stored)
                if version is not None and version.epoch < led.epoch:
                    await self._remove(led, table, key)
                of_this_epoch += version is not None and version.epoch == led.epoch
            position = keys.after(rows[-1][0]) if len(rows) == SLICE_ROWS else end
        return of_this_epoch

    async def _remove(self, led: Led, table: Table, key: bytes) -> None:
        await self._leader.chosen(table, key, led=led)

        def amended(register: Register) -> Content:
            content = register.content
            is_due = register.version.epoch < led.epoch and content.value is not None and is_marker(content.value)
            return EMPTY if is_due else content

        self.removed += self._leader.amend(table, key, amended, led=led)

    def _elected(self, led: Led) -> None:
        for table in self._topology.led_tables(led.group.rule):
            if is_index(table):
                self._due[led, table.id] = self._loop.time()


def _version_of_marker(key: bytes, stored: bytes) -> Version | None:
    """Return the version of a stored register if it is a marker; None if not, or if it is damaged."""
    try:
        register = decode_register(key, stored)
        return register.version if register.value is not None and is_marker(register.value) else None
    except CorruptionError:
        return None
