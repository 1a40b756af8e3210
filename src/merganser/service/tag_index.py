"""Which rows have which tags: kept by each replica beside its rows, for tables of values.

An entry is a key and no value: table, partition, the tag's name, and the place of the row (`core.tags`). `HashTrees`
changes it in the batch of its row. What entries there are is a function of the rows that this replica holds, so
whatever brings a row to a replica, merges siblings into it, repairs or purges it, keeps its entries right, and nothing
is sent, compared or repaired. The entries of a row are those of all its values, expired ones among them.

What entries a row had nobody knows any more once it is damaged; and the engine may not be able to read entries. Then
the place is *broken*: all its entries are made anew from the rows, and no query is answered here before that is done::

    whole --a damaged row is overwritten, entries cannot be read--> broken, which is noted on the disk
      ^                                                                 |
      +-- walked, a slice a turn of the loop ---------------------------+  (from the beginning if it breaks again)

When the ring is cut finer, all places of this node are broken, in the batch of the map.

Each entry that a query meets is looked up all the same, and dropped if its row does not bear it out.

Source: Riak's secondary indexes ("2i"): by document, integers and bytes, exact and ranges, covering sets.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from merganser.core import tags
from merganser.core.hash_tree import fingerprint
from merganser.core.splitting import halves
from merganser.core.tags import TagPage
from merganser.model.cluster import ClusterMap
from merganser.model.contents import Tag
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.other_tables import drop_others
from merganser.storage.values import decode_row

EXAMINED_MAX: Final = 1_000
"""Entries looked at for one page: some 20 ms of the loop at most, as each row is decoded."""
REBUILD_ROWS: Final = 256
AGAIN_S: Final = 1.0
"""Between two tries to make anew what is broken, or has broken again meanwhile."""

_ENTRIES = keys.metadata_key("tag|")
_BROKEN = keys.metadata_key("tags-broken|")
_TABLE = struct.Struct(">I")
_PLACE = struct.Struct(">IQ")

Place = tuple[TableId, PartitionId]
Operations = list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]
"""Of a `Batch`."""


class TagIndex:
    """The entries of this node's rows; see the module's docstring."""

    def __init__(self, topology: Topology, engine: Engine) -> None:
        """Index what ``engine`` holds; forget, now and later, tables that ``topology`` knows no more."""
        self._topology = topology
        self._engine = engine
        self.when_broken: Callable[[], None] = lambda: None
        """Told that something is to be mended."""
        self._broken: dict[Place, int] = {}
        """Each with a number that no other break has."""
        self._breaks = 0
        for key, _ in engine.scan(_BROKEN, keys.prefix_end(_BROKEN)):
            self._note_broken(_PLACE.unpack(key[len(_BROKEN) :]))
        self._forget_others(topology.map)
        topology.when_changed(self._forget_others)
        topology.when_split(self._split)

    def changes(
        self, place: Place, key: bytes, before: bytes | None, after: bytes | None, *, is_doubtful: bool = False
    ) -> Operations:
        """Return the puts and deletes that belong into the batch of a row's change.

        Args:
            place: of the row.
            key: of the row.
            before: what is stored.
            after: what is to be stored instead, intact.
            is_doubtful: something else may be stored than ``before``, which could not be read.
        """
        new = _tags_in(key, after)
        try:
            if is_doubtful and self._engine.get(key) != before:
                raise CorruptionError(f"what is stored under {key[:64].hex()} could not be read")
            old = _tags_in(key, before)
        except CorruptionError:
            batch = Batch()
            self._break(place, batch)
            return [*batch.operations, *((_entry(place, tag, key), b"") for tag in new)]
        if old == new:
            return []
        gone: Operations = [(_entry(place, tag, key), None) for tag in old - new]
        return gone + [(_entry(place, tag, key), b"") for tag in new - old]

    def forget(self, place: Place, batch: Batch) -> None:
        """Have all entries of a place removed by ``batch``."""
        self._broken.pop(place, None)
        start = _ENTRIES + _PLACE.pack(*place)
        batch.delete_range(start, keys.prefix_end(start)).delete(_BROKEN + _PLACE.pack(*place))

    def page(
        self,
        table: TableId,
        partitions: Sequence[PartitionId],
        name: str,
        start: bytes,
        end: bytes,
        *,
        most: int,
        now_s: int,
    ) -> TagPage:
        """Return the rows of ``partitions`` that stand at ``start <= place < end`` by tags of ``name``, as of now.

        Raises:
            CorruptionError: the engine cannot read the entries.
        """
        found: list[tuple[bytes, int]] = []
        wrong = Batch()
        scans = [self._scan((table, partition), name, start, end) for partition in partitions]
        stopped_at = None
        for examined, (place, entry) in enumerate(heapq.merge(*scans)):
            if len(found) >= most or examined >= EXAMINED_MAX:
                stopped_at = place
                break
            row_key, tag = tags.row_at(place, _TABLE.pack(table)), Tag(name, tags.value_at(place))
            try:
                stored = self._engine.get(row_key)
                row = None if stored is None else decode_row(row_key, stored)
                all_tags, live_tags = tags.tags_of(row), tags.tags_of(row, now_s)
            except CorruptionError:  # whoever reads the row finds that out
                found.append((place, 0))
                continue
            if stored is None or tag not in all_tags:
                wrong.delete(entry)
            elif tag in live_tags:
                found.append((place, fingerprint(row_key, stored, 0) or 1))
        if wrong.operations and self._engine.failure is None:
            self._engine.commit(wrong)
        return TagPage(found, stopped_at)

    async def mend(self, admit: Callable[[], Awaitable[None]]) -> None:
        """Make anew what is broken; returns when nothing is.

        Args:
            admit: waits between slices while clients need this node more.
        """
        while self._broken and self._engine.failure is None:
            for place in sorted(self._broken):
                with contextlib.suppress(CorruptionError):  # the rows cannot be read: that is seen to by others
                    await self._make_anew(place, admit)
            if self._broken:
                await asyncio.sleep(AGAIN_S)

    @property
    def has_broken(self) -> bool:
        """Tell whether anything is to be mended."""
        return bool(self._broken)

    def is_broken(self, place: Place) -> bool:
        """Tell whether entries of a place may be missing."""
        return place in self._broken

    async def _make_anew(self, place: Place, admit: Callable[[], Awaitable[None]]) -> None:
        broken, start = self._broken.get(place), None
        while broken is not None and self._broken.get(place) == broken:  # else it has broken again, or is gone
            start = self._walk(place, start)
            if start is None:
                return
            await admit()

    def _walk(self, place: Place, start: bytes | None) -> bytes | None:
        """Add the entries of a slice of a place, in this turn of the loop; returns where to go on, None at its end.

        Raises:
            CorruptionError: the engine cannot read the rows.
        """
        low, high = keys.token_range(place[0], *self._topology.ring.token_range(place[1]))
        rows = list(islice(self._engine.scan(start or low, high), REBUILD_ROWS))
        batch = Batch()
        for key, stored in rows:
            with contextlib.suppress(CorruptionError):  # what makes it right makes its entries
                batch.operations += [(_entry(place, tag, key), b"") for tag in _tags_in(key, stored)]
        is_last = len(rows) < REBUILD_ROWS
        if is_last:
            batch.delete(_BROKEN + _PLACE.pack(*place))
        self._engine.commit(batch)
        if is_last:
            del self._broken[place]
        return None if is_last else keys.after(rows[-1][0])

    def _break(self, place: Place, batch: Batch) -> None:
        """Have ``batch`` drop the entries of a place, and note that they are to be made anew."""
        self.forget(place, batch)
        batch.put(_BROKEN + _PLACE.pack(*place), b"")
        self._note_broken(place)

    def _note_broken(self, place: Place) -> None:
        self._breaks += 1
        self._broken[place] = self._breaks
        self.when_broken()

    def entries(self, place: Place) -> set[bytes]:
        """Return all entries of a place, for checks: name and place of each."""
        start = _ENTRIES + _PLACE.pack(*place)
        return {key[len(start) :] for key, _ in self._engine.scan(start, keys.prefix_end(start))}

    def everything(self) -> frozenset[bytes]:
        """Return all entries of this node, for checks."""
        return frozenset(key for key, _ in self._engine.scan(_ENTRIES, keys.prefix_end(_ENTRIES)))

    def _scan(self, place: Place, name: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        if place in self._broken:
            raise CorruptionError(f"the tags of partition {place[1]} of table {place[0]} are made anew here")
        prefix = _prefix(place, name)
        try:
            for key, _ in self._engine.scan(prefix + start, prefix + end):
                yield key[len(prefix) :], key
        except CorruptionError:
            if self._engine.failure is None:
                batch = Batch()
                self._break(place, batch)
                self._engine.commit(batch)
            raise

    def _split(self, batch: Batch, factor: int) -> Callable[[], None]:
        """Have all places of this node made anew: entries stand under the numbers of partitions."""
        parts = [
            (table.id, part)
            for table, whole in self._topology.held()
            if table.has_contents
            for part in halves(whole, factor)
        ]
        for prefix in (_ENTRIES, _BROKEN):
            batch.delete_range(prefix, keys.prefix_end(prefix))
        for place in parts:
            batch.put(_BROKEN + _PLACE.pack(*place), b"")

        def take() -> None:
            self._broken = {}
            for place in parts:
                self._note_broken(place)

        return take

    def _forget_others(self, current: ClusterMap) -> None:
        """Drop the entries of tables that are gone."""
        kept = {table.id for table in current.tables}
        self._broken = {place: broken for place, broken in self._broken.items() if place[0] in kept}
        batch = Batch()
        drop_others(self._engine, _ENTRIES, sorted(table.id for table in current.tables if table.has_contents), batch)
        if batch.operations:
            self._engine.commit(batch)


def entries_of(place: Place, key: bytes, stored: bytes) -> set[bytes]:
    """Return the entries that a stored row is to have.

    Raises:
        CorruptionError: it is damaged.
    """
    return {_entry(place, tag, key) for tag in _tags_in(key, stored)}


def _tags_in(key: bytes, stored: bytes | None) -> set[Tag]:
    """Return the tags of a stored row, those of expired values among them.

    Raises:
        CorruptionError: it is damaged.
    """
    return set() if stored is None else tags.tags_of(decode_row(key, stored))


def _prefix(place: Place, name: str) -> bytes:
    return _ENTRIES + _PLACE.pack(*place) + keys.index_key(name.encode())


def _entry(place: Place, tag: Tag, key: bytes) -> bytes:
    return _prefix(place, tag.name) + tags.place_of(tag.value, key)
