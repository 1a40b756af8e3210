"""The tables of the entries of global indexes: one for each index, beside the table that it is of."""

from __future__ import annotations

from merganser.model.cluster import Index, Table

_INDEX_SUFFIX = ".index"
"""Makes the wire of the tables of entries: clients ask by their own wire, and never see them."""


def index_named(table: Table, name: str) -> Index | None:
    """Return the global index of ``table`` with that name, in whatever state."""
    return next((index for index in table.indexes if index.name == name), None)


def index_table(base: Table, index: Index) -> Table:
    """Return the table of the entries of an index of ``base``: it has its replicas, partitions and leaders."""
    return Table(
        id=index.table,
        name=f"{base.id}/{index.name}",
        wire=base.wire + _INDEX_SUFFIX,
        n=base.n,
        definition=b"",
        unique_id=f"{index.unique_id}/{index.table}",
        replication="leader",
        policy=base.policy,
    )


def is_index(table: Table) -> bool:
    """Tell whether ``table`` holds the entries of an index, and is no client's own."""
    return table.wire.endswith(_INDEX_SUFFIX)
