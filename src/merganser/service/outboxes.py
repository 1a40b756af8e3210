"""The outboxes of items: which entries of global indexes a write leaves behind (`core.indexing`).

What items are in the indexes of their table is for its wire to say (`service.steps.Indexer`). Which indexes there are
is read from the newest map known here, in the turn of the loop in which an item is written.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from merganser.core.indexing import OUTBOX_MAX, changed, left, outbox_of
from merganser.model.cluster import Index, Table
from merganser.model.errors import InvariantError, OverloadedError
from merganser.model.ids import TableId
from merganser.model.register import Content, Pending
from merganser.service.steps import Indexer
from merganser.service.topology import Topology
from merganser.storage import keys


class Fate(enum.Enum):
    """What is to become of an entry in an outbox."""

    DUE = "due"
    UNKNOWN = "unknown"
    """Its index is one of a later map."""
    GONE = "gone"
    """Its index is being deleted, or was."""


class Outboxes:
    """What goes into outboxes; see the module's docstring."""

    def __init__(self, topology: Topology, indexers: Mapping[str, Indexer]) -> None:
        """Know the indexes of ``topology``, and the ``indexers`` of the wires by their names."""
        self._topology = topology
        self._indexers = indexers

    def entries(self, table: Table, key: bytes, value: bytes | None) -> dict[Pending, bytes]:
        """Return the entries of an item, and what they show, in all indexes of ``table`` that are not being deleted.

        Raises:
            InvariantError: this node knows no such wire, or the wire names keys of other tables.
        """
        if value is None:
            return {}
        indexer = self._indexers.get(table.wire)
        if indexer is None:
            raise InvariantError(f"nothing on this node knows what items of {table.wire} tables are in their indexes")
        kept = {index.name: index.table for index in table.indexes if index.state != "deleting"}
        entries: dict[Pending, bytes] = {}
        for entry in indexer(table, key, value):
            index = kept.get(entry.index)
            if index is None:
                continue
            if keys.table_in(entry.key) != index:
                raise InvariantError(f"{entry.key.hex()} is no key of index {entry.index} of table {table.name}")
            entries[index, entry.key] = entry.value
        return entries

    def of_write(self, table: Table, key: bytes, before: Content, after: Content) -> Content:
        """Return ``after``, which is to take the place of ``before``, with its outbox.

        Raises:
            OverloadedError: too much is behind already; nothing is to be written.
        """
        table = self.newest(table)
        if not table.indexes and not before.outbox:
            return after
        news: tuple[Pending, ...] = ()
        if table.indexes and before.value != after.value:
            news = tuple(changed(self.entries(table, key, before.value), self.entries(table, key, after.value)))
        outbox = outbox_of(before.outbox, news, is_gone=lambda entry: self.fate(table, entry[0]) is Fate.GONE)
        if len(outbox) > len(before.outbox) >= OUTBOX_MAX:
            raise OverloadedError(f"{len(before.outbox)} entries of indexes are behind the item; nothing was written")
        return _with(after, outbox)

    def of_adopted(self, table: Table, key: bytes, adopted: Content, met: Iterable[Content]) -> Content:
        """Return ``adopted``, one of several contents that were ``met``, with all that may be behind any of them."""
        table = self.newest(table)
        contents = list(met)
        outboxes = [content.outbox for content in (adopted, *contents)]
        if table.indexes:
            outboxes += [tuple(self.entries(table, key, content.value)) for content in contents]
        elif not any(outboxes):
            return adopted
        return _with(adopted, outbox_of(*outboxes, is_gone=lambda entry: self.fate(table, entry[0]) is Fate.GONE))

    def without(self, table: Table, key: bytes, content: Content, delivered: Mapping[Pending, bytes | None]) -> Content:
        """Return ``content`` without what is ``delivered`` (`core.indexing.left`), and of indexes that are gone."""
        table = self.newest(table)
        kept = left(content.outbox, delivered, self.entries(table, key, content.value) if table.indexes else {})
        return _with(content, tuple(entry for entry in kept if self.fate(table, entry[0]) is not Fate.GONE))

    def newest(self, table: Table) -> Table:
        """Return ``table`` as it is by the newest map."""
        return self._topology.table(table.id) or table

    def index(self, table: Table, entries: TableId) -> Index | None:
        """Return the index of ``table`` whose entries are in that table, unless it is being deleted."""
        for index in table.indexes:
            if index.table == entries:
                return None if index.state == "deleting" else index
        return None

    def fate(self, table: Table, entries: TableId) -> Fate:
        """Return what is to become of entries in that table; ``table`` is of the newest map."""
        if self.index(table, entries) is not None:
            return Fate.DUE
        return Fate.UNKNOWN if entries >= self._topology.map.next_table_id else Fate.GONE


def _with(content: Content, outbox: tuple[Pending, ...]) -> Content:
    return content if outbox == content.outbox else msgspec.structs.replace(content, outbox=outbox)
