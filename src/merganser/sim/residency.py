"""Looks at everything that is written to any disk for what may not be there (`sim.checkers.residency`).

Each batch is judged when it is committed, so that what is there for a moment only is seen as well. In the end all
that the disks hold is looked through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merganser.core.ring import settled
from merganser.model.cluster import ClusterMap
from merganser.sim.checkers import Violation
from merganser.sim.checkers.residency import Place, forbidden
from merganser.sim.machine import Machine
from merganser.sim.steps import WIRE
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine

TOLD_MAX = 3  # of one run: the first ones say what is wrong
_EVERYTHING = b"\x00", b"\xff" * 40
_VALUES = b"value-"
"""What the values of `Clients.new_value` begin with."""


class WatchedEngine(MemoryEngine):
    """An engine whose batches somebody else sees, too."""

    watch: Watch | None = None
    machine: Machine

    def commit(self, batch: Batch) -> None:
        """Apply ``batch``, as any engine does, and have it judged."""
        super().commit(batch)
        if self.watch is not None:
            self.watch.judge(self.machine, batch)


class Watch:
    """One run's; see the module's docstring."""

    def __init__(self, world: World, *, has_changes: bool = False) -> None:
        """Look at the machines of ``world``.

        If there are changes of policies, a transaction that began before one has its record where it was, and other
        tables, which clients give the same keys, are where they like.
        """
        self._world = world
        self._has_changes = has_changes
        self._told: set[bytes] = {_VALUES}
        """What only clients write: how values begin, and the partition keys that were seen so far."""
        self.violations: list[Violation] = []

    def begin(self) -> None:
        """Watch the engines of all machines from now on."""
        for machine in self._world.machines:
            if isinstance(machine.engine, WatchedEngine):
                machine.engine.machine, machine.engine.watch = machine, self

    def judge(self, machine: Machine, batch: Batch) -> None:
        """Judge what ``batch`` puts on a machine."""
        puts = [one for one in map(_put, batch.operations) if one is not None]
        current = self._newest()
        if current is not None:
            self._note_names(current, puts)
            self._add(self._sentences(current, machine, puts))

    def look(self) -> None:
        """Look through all that there is, on machines that are down as well."""
        current = self._newest()
        if current is None:
            return
        for machine in self._world.machines:
            self._add(self._sentences(current, machine, machine.engine.scan(*_EVERYTHING)))

    def _newest(self) -> ClusterMap | None:
        maps = [machine.member.topology.map for machine in self._world.machines if machine.member is not None]
        return max(maps, key=lambda one: one.epoch, default=None)

    def _sentences(self, current: ClusterMap, machine: Machine, stored: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
        maps = [current] if machine.member is None else [current, machine.member.topology.map]
        layouts = [*maps, *map(settled, maps)]  # who is about to be in a zone takes what it is to hold there
        records = [node for one in layouts for node in one.nodes if node.id == machine.node]
        zones = tuple(dict.fromkeys((machine.zone, *(node.zone for node in records))))
        spared = {one.id for one in current.tables if not one.policy}
        place = Place(machine.node, machine.data_center, zones)
        return forbidden(maps, place, stored, self._told, spared=spared if self._has_changes else ())

    def _add(self, sentences: Iterable[str]) -> None:
        if len(self.violations) < TOLD_MAX:
            self.violations += [Violation("residency", sentence) for sentence in sentences]
            del self.violations[TOLD_MAX:]

    def _note_names(self, current: ClusterMap, puts: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember the partition keys of rows of tables with a policy: only clients write those."""
        bound = {table.id for table in current.tables if table.policy and table.wire == WIRE}
        for key, _ in puts:
            if keys.table_in(key) in bound:
                self._told.add(keys.split_row_key(key)[2])


def _put(operation: tuple[bytes, bytes | None] | tuple[bytes, bytes, None]) -> tuple[bytes, bytes] | None:
    """Return key and value of an operation that puts any."""
    value = operation[1]
    return None if len(operation) == 3 or value is None else (operation[0], value)
