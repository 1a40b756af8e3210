"""ItemCount and the sizes in the description of a table and its indexes.

DynamoDB counts anew every six hours or so; here a description says what replicas had counted a moment ago. Leaderless
tables are not counted, and say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.service.counts import NOTHING, Count

Counts = Mapping[TableId, Count]
"""By table: the client's, and those of its global indexes."""


def nothing_in(table: Table) -> Counts:
    """Return the counts of a table that was just made."""
    return dict.fromkeys((table.id, *(index.table for index in table.indexes)), NOTHING) if table.has_leaders else {}


def add_counts(description: dict[str, Any], table: Table, counts: Counts) -> dict[str, Any]:
    """Return a TableDescription with what is counted of it."""
    count = counts.get(table.id)
    if count is not None:
        description.update(TableSizeBytes=count.size_bytes, ItemCount=count.items)
        local = {number: (items, size_bytes) for number, items, size_bytes in count.local}
        for number, index in enumerate(description.get("LocalSecondaryIndexes", ())):
            items, size_bytes = local.get(number, (0, 0))
            index.update(IndexSizeBytes=size_bytes, ItemCount=items)
    counted = {index.name: counts.get(index.table) for index in table.indexes}
    for index in description.get("GlobalSecondaryIndexes", ()):
        entries = counted.get(index["IndexName"])
        if entries is not None:
            index.update(IndexSizeBytes=entries.size_bytes, ItemCount=entries.items)
    return description
