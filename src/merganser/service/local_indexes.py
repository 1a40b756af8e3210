"""Local indexes: other orders of the items of one partition key, kept by each replica beside its registers.

An entry is a key and no value (`storage.keys`): it stands in the index for an item, whose register the reader looks up.
What entries there are is a function of the registers that this replica holds; `HashTrees` changes both in one batch.
So they are never sent, compared or repaired: whatever brings a register to a replica brings its entries.

An item that a transaction holds has the entries of what it is *and* of what it will be, because a reader learns only
from the ledger which of the two it is already. Whoever reads such an item asks `stands` whether it has come by the
right one.

What turns a value into keys is a wire's: its `Indexer`, given to nodes by the name of the wire.

Source: design §5; docs/internals/local-indexes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError
from merganser.model.register import Content
from merganser.service.counts import LocalSizes
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register

Place = tuple[int, bytes]
"""Where an item stands: the number of a local index, and its key in that."""

LocalKeys = Callable[[bytes], Sequence[Place]]
"""Of one table: from the value of an item to where it stands."""

LocalIndexer = Callable[[Table], LocalKeys | None]
"""Of a wire; None: the table has no local indexes."""

LocalMeasurer = Callable[[Table], LocalSizes | None]
"""Of a wire, likewise."""

EXAMINED_MAX = 1_000
"""Entries looked at for one page, those of other indexes among them: some 2 ms in which the loop serves nobody else."""


class EntryPage(NamedTuple):
    """Entries of one index in a range, and what is stored under the keys of their rows."""

    found: list[tuple[bytes, bytes]]
    """Entry and stored register, in the order asked for."""
    resume: bytes | None
    """Where it goes on (the exclusive end, when reversed); None: at the end of the range, or nowhere."""


class LocalIndexes:
    """The local indexes of this node's registers; see the module's docstring."""

    def __init__(
        self,
        engine: Engine,
        indexers: Mapping[str, LocalIndexer] | None = None,
        measurers: Mapping[str, LocalMeasurer] | None = None,
    ) -> None:
        """Index what ``engine`` holds, by the wires' ``indexers``, and measure what indexes show by ``measurers``."""
        self._engine = engine
        self._indexers = indexers or {}
        self._measurers = measurers or {}

    def of(self, table: Table) -> LocalKeys | None:
        """Return how items of ``table`` are indexed; None if it has no local indexes."""
        indexer = self._indexers.get(table.wire) if table.has_leaders else None
        return None if indexer is None else indexer(table)

    def sizes_of(self, table: Table) -> LocalSizes | None:
        """Return how what the local indexes of ``table`` show is measured; None if it has none, or nobody measures."""
        measurer = self._measurers.get(table.wire) if table.has_leaders else None
        return None if measurer is None else measurer(table)

    def stands(self, table: Table, entry: bytes, value: bytes | None) -> bool:
        """Tell whether an item of that value has that entry."""
        keys_of = self.of(table)
        return keys_of is not None and value is not None and entry in entries(keys_of, keys.row_of(entry), value)

    def changes(
        self, keys_of: LocalKeys, key: bytes, before: bytes | None, after: bytes | None, *, is_doubtful: bool = False
    ) -> list[tuple[bytes, bytes | None]]:
        """Return the puts and deletes that belong into the batch of a register's change.

        Args:
            keys_of: of its table.
            key: of the register.
            before: what is stored.
            after: what is to be stored instead, intact.
            is_doubtful: something else may be stored than ``before``, which could not be read. What is damaged tells
                nothing, either, of what the entries were made of.
        """
        new = _places_of(keys_of, key, after)
        try:
            if is_doubtful and self._engine.get(key) != before:
                raise CorruptionError(f"what is stored under {key[:64].hex()} could not be read")
            old = _places_of(keys_of, key, before)
        except CorruptionError:
            old = self._held(key)
        if old == new:
            return []
        gone: list[tuple[bytes, bytes | None]] = [(_stored_at(key, one), None) for one in old if one not in new]
        return gone + [(_stored_at(key, one), b"") for one in new if one not in old]

    def page(self, start: bytes, end: bytes, *, index: int, reverse: bool, rows_max: int, bytes_max: int) -> EntryPage:
        """Return a page of the entries of an index in ``start <= entry < end``, as of this turn of the loop.

        Raises:
            CorruptionError: the engine cannot read on.
        """
        found: list[tuple[bytes, bytes]] = []
        bytes_left, last = bytes_max, b""
        scanned = self._engine.scan(keys.local_key(start), keys.local_key(end), reverse=reverse)
        for examined, (stored_key, _) in enumerate(scanned):
            if examined >= EXAMINED_MAX or (found and (len(found) >= rows_max or bytes_left <= 0)):
                return EntryPage(found, last if reverse else keys.after(last))
            last = keys.split_local_key(stored_key)
            stored = self._stored(keys.row_of(last)) if keys.index_in(last) == index else None
            if stored is not None:
                found.append((last, stored))
                bytes_left -= len(last) + len(stored)
        return EntryPage(found, None)

    def _stored(self, key: bytes) -> bytes | None:
        """Return what is stored, no register at all if the engine cannot read it."""
        try:
            return self._engine.get(key)
        except CorruptionError:
            return b""

    def _held(self, key: bytes) -> dict[Place, None]:
        """Return where a row stands by the entries of all of its partition key; nowhere if they are unreadable."""
        start, end = keys.collections_between(key, keys.after(key))
        found: dict[Place, None] = {}
        try:
            for stored_key, _ in self._engine.scan(keys.local_key(start), keys.local_key(end)):
                entry = keys.split_local_key(stored_key)
                if keys.row_of(entry) == key:
                    found[keys.index_in(entry), keys.key_in(entry)] = None
        except CorruptionError:  # whoever reads there is refused as well
            return found
        return found


def entries(keys_of: LocalKeys, key: bytes, value: bytes) -> list[bytes]:
    """Return the entries of an item of that value."""
    return [keys.entry_of(key, index, index_key) for index, index_key in keys_of(value)]


def _places_of(keys_of: LocalKeys, key: bytes, stored: bytes | None) -> dict[Place, None]:
    """Return where a stored register stands.

    Raises:
        CorruptionError: it is damaged.
    """
    content: Content = decode_register(key, stored).content
    found = {} if content.value is None else dict.fromkeys(keys_of(content.value))
    intent = content.intent
    if intent is not None and intent.changes and intent.value is not None:
        found.update(dict.fromkeys(keys_of(intent.value)))
    return found


def _stored_at(key: bytes, place: Place) -> bytes:
    return keys.local_key(keys.entry_of(key, *place))
