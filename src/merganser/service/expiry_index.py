"""When items expire, in the order of time: kept by each replica beside its registers, for tables whose items do.

An entry is a key and no value: table, partition, second, and the rest of the register's key. `HashTrees` changes it in
the batch of the register, so what brings a register to a replica brings its entry, and nothing is sent or repaired. A
table whose items do not expire has none, and costs nothing.

::

    no mark --the table expires here: walked, a slice a turn--> marked: an entry for each register that expires
       ^                                                           |
       +---- a mark of another `Expiring.identity` is none --------+

- *A place that is marked has an entry for each register that expires.* From the turn in which this node knows that a
  table's items expire, the changes of its registers change entries; the walk adds those of registers from before. The
  mark names what the table was expiring by, which is another name each time it is switched on.
- *There may be entries that are wrong*: of a register that was damaged when it was overwritten, or of what the table
  expired by before. Whoever uses an entry looks at the register; `Expirer` drops those that are wrong when their
  time has come.

When the ring is cut finer, entries and marks go, in the batch of the map, and all is walked again.

What turns a value into a time is a wire's, given to nodes by its name. Only leader-based tables have items that expire
by what is in them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from merganser.core.expiry import due_between
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.other_tables import drop_others
from merganser.storage.registers import decode_register, value_at
from merganser.storage.values import seal, unseal

WALK_ROWS: Final = 256  # some 3 ms, half of it JSON
DUE_MAX: Final = 256

_ENTRIES = keys.metadata_key("expiry|")
_MARKS = keys.metadata_key("expiring|")
_TABLE = struct.Struct(">I")
_PLACE = struct.Struct(">IQ")
_SECOND = struct.Struct(">Q")
_REST_AT = 4
"""Of a register's key, after its table."""
_KEY_AT = len(_ENTRIES) + _PLACE.size + _SECOND.size

Place = tuple[TableId, PartitionId]


class Expiring(NamedTuple):
    """How the items of a table expire."""

    identity: bytes
    """Another one whenever it changes how they do, and when it begins anew."""
    expires_at: Callable[[bytes], int | None]
    """From an item's value to the second since 1970 at which it expires, None: never. Pure, quick, and never fails,
    though the value may be damaged."""


Expiry = Callable[[Table], Expiring | None]
"""Of a wire; None: items of the table do not expire."""


class Due(NamedTuple):
    """An entry whose time has come."""

    key: bytes
    """Of the register."""
    at_s: int


class ExpiryIndex:
    """The entries of this node's registers; see the module's docstring."""

    def __init__(self, topology: Topology, engine: Engine, wires: Mapping[str, Expiry] | None = None) -> None:
        """Index what ``engine`` holds; forget, now and later, what ``topology`` says does not expire."""
        self._topology = topology
        self._engine = engine
        self._wires = wires or {}
        self._whole: dict[Place, bytes] = {}
        """The identities in marks that were seen."""
        self.splits = 0
        """Since the start: a walk that began before one is to begin anew."""
        self._forget_others(topology.map)
        topology.when_changed(self._forget_others)
        topology.when_split(self._split)

    def of(self, table: Table) -> Expiring | None:
        """Return how items of a table expire; None if they do not."""
        wire = self._wires.get(table.wire) if table.has_leaders else None
        return None if wire is None else wire(table)

    def changes(
        self, expiring: Expiring, place: Place, key: bytes, before: bytes | None, after: bytes | None
    ) -> list[tuple[bytes, bytes | None]]:
        """Return the puts and deletes that belong into the batch of a register's change."""
        try:
            old = _time_of(expiring, key, before)
        except CorruptionError:  # its entry stays, and is found to be wrong in time
            old = None
        new = _time_of(expiring, key, after)
        if old == new:
            return []
        changes: list[tuple[bytes, bytes | None]] = []
        if old is not None:
            changes.append((_entry(place, old, key), None))
        if new is not None:
            changes.append((_entry(place, new, key), b""))
        return changes

    def forget(self, place: Place, batch: Batch) -> None:
        """Have all entries of a place removed by ``batch``."""
        self._whole.pop(place, None)
        start = _ENTRIES + _PLACE.pack(*place)
        batch.delete_range(start, keys.prefix_end(start))
        batch.delete(_mark(place))

    def is_whole(self, place: Place, expiring: Expiring) -> bool:
        """Tell whether every register of the place that expires has its entry."""
        if self._whole.get(place) == expiring.identity:
            return True
        mark = _mark(place)
        try:
            stored = self._engine.get(mark)
            if stored is None or unseal(mark, stored) != expiring.identity:
                return False
        except CorruptionError:
            return False
        self._whole[place] = expiring.identity
        return True

    def walk(self, place: Place, expiring: Expiring, start: bytes | None) -> bytes | None:
        """Add the entries of a slice of a place, in this turn of the loop, and the mark at its end.

        Args:
            place: held here.
            expiring: of its table, as of this turn.
            start: where to begin; None: at the beginning.

        Returns:
            where to go on, None when it is through.

        Raises:
            CorruptionError: the engine cannot read on.
        """
        low, high = keys.token_range(place[0], *self._topology.ring.token_range(place[1]))
        rows = list(islice(self._engine.scan(start or low, high), WALK_ROWS))
        batch = Batch()
        for key, stored in rows:
            try:
                at_s = _time_of(expiring, key, stored)
            except CorruptionError:  # what makes it right makes its entry
                continue
            if at_s is not None:
                batch.put(_entry(place, at_s, key), b"")
        if len(rows) < WALK_ROWS:
            mark = _mark(place)
            batch.put(mark, seal(mark, expiring.identity))
        if batch.operations:
            self._engine.commit(batch)
        return None if len(rows) < WALK_ROWS else keys.after(rows[-1][0])

    def due(self, place: Place, now_s: float, after: Due | None = None) -> list[Due]:
        """Return entries whose time has come by ``now_s``, the oldest first, at most `DUE_MAX`.

        Args:
            place: held here.
            now_s: seconds since 1970.
            after: the last one that was returned before.

        Raises:
            CorruptionError: the engine cannot read them; the place is not whole any more.
        """
        oldest_s, newest_s = due_between(now_s)
        start = _second(place, oldest_s) if after is None else keys.after(_entry(place, after.at_s, after.key))
        try:
            return [_due_in(key) for key, _ in islice(self._engine.scan(start, _second(place, newest_s)), DUE_MAX)]
        except CorruptionError:
            self._whole.pop(place, None)
            self._engine.commit(Batch().delete(_mark(place)))
            raise

    def check(self, place: Place, expiring: Expiring, entry: Due) -> bool:
        """Tell whether an entry is right, as of this turn of the loop, and drop it if it is not.

        Raises:
            CorruptionError: the register cannot be read; the entry stays.
        """
        value = decode_register(entry.key, self._engine.get(entry.key)).value
        if value is not None and expiring.expires_at(value) == entry.at_s:
            return True
        self._engine.commit(Batch().delete(_entry(place, entry.at_s, entry.key)))
        return False

    def entries(self, place: Place) -> list[Due]:
        """Return all entries of a place, for checks."""
        return [_due_in(key) for key, _ in self._engine.scan(_second(place, 0), _second((place[0], _next(place)), 0))]

    def _split(self, batch: Batch, _factor: int) -> Callable[[], None]:
        for prefix in (_ENTRIES, _MARKS):
            batch.delete_range(prefix, keys.prefix_end(prefix))

        def take() -> None:
            self._whole, self.splits = {}, self.splits + 1

        return take

    def _forget_others(self, current: ClusterMap) -> None:
        """Drop the entries and marks of tables that are gone, or whose items do not expire."""
        expiring = sorted(table.id for table in current.tables if self.of(table) is not None)
        kept = set(expiring)
        self._whole = {place: identity for place, identity in self._whole.items() if place[0] in kept}
        batch = Batch()
        for prefix in (_ENTRIES, _MARKS):
            drop_others(self._engine, prefix, expiring, batch)
        if batch.operations:
            self._engine.commit(batch)


def _time_of(expiring: Expiring, key: bytes, stored: bytes | None) -> int | None:
    """Return when a stored register expires, anything if it is damaged in its value.

    Raises:
        CorruptionError: it is damaged beyond that.
    """
    at = None if stored is None else value_at(key, stored)
    return None if stored is None or at is None else expiring.expires_at(stored[at:])


def _mark(place: Place) -> bytes:
    return _MARKS + _PLACE.pack(*place)


def _second(place: Place, at_s: int) -> bytes:
    return _ENTRIES + _PLACE.pack(*place) + _SECOND.pack(at_s)


def _entry(place: Place, at_s: int, key: bytes) -> bytes:
    return _second(place, at_s) + key[_REST_AT:]


def _due_in(entry: bytes) -> Due:
    table = entry[len(_ENTRIES) : len(_ENTRIES) + _TABLE.size]
    return Due(table + entry[_KEY_AT:], int(_SECOND.unpack_from(entry, _KEY_AT - _SECOND.size)[0]))


def _next(place: Place) -> PartitionId:
    return PartitionId(place[1] + 1)
