"""ReturnItemCollectionMetrics: how large the item collections are that a request has written to.

Only tables with local indexes have item collections to speak of. The size is that of all items of a partition key and
of what the local indexes show of them. It is read from the nearest replica, and no further than 8 MB: a collection that
ends before is told as 0 to 1 GB, and of a larger one nothing is known but DynamoDB's own limit, 0 to 10 GB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from merganser.model.cluster import Table
from merganser.model.errors import MerganserError
from merganser.storage.keys import prefix_end
from merganser.wire.dynamodb.index_capacity import entry_size
from merganser.wire.dynamodb.items import attributes_of, size_of
from merganser.wire.dynamodb.keys import partition_bytes, prefix_of
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.tables import definition_of

BYTES_MAX: Final = 8 * 1024 * 1024
_ROWS_MAX: Final = 200  # of one read, as of a page
_SMALL: Final = [0.0, 1.0]
_LARGE: Final = [0.0, 10.0]

_NAME: Final = b'"ItemCollectionMetrics":'
Written = tuple[Table, Mapping[str, Any]]
"""A table, and the item that was put or the key that was updated or deleted, in normal form."""


async def metrics_of(session: Session, request: Mapping[str, Any], written: Written) -> Sequence[bytes]:
    """Return the member ``ItemCollectionMetrics`` of an answer about one item; empty if there is none."""
    told = await _told(session, request, [written])
    return (_NAME, orjson.dumps(next(iter(told.values()))[0])) if told else ()


async def metrics_of_all(session: Session, request: Mapping[str, Any], written: Sequence[Written]) -> Sequence[bytes]:
    """Return the same member of an answer about several items, by table."""
    told = await _told(session, request, written)
    return (_NAME, orjson.dumps(told)) if told else ()


async def _told(
    session: Session, request: Mapping[str, Any], written: Sequence[Written]
) -> dict[str, list[dict[str, Any]]]:
    if request.get("ReturnItemCollectionMetrics") != "SIZE":
        return {}
    told: dict[str, list[dict[str, Any]]] = {}
    seen: set[tuple[int, bytes]] = set()
    for table, attributes in written:
        definition = definition_of(table)
        if not definition.local_indexes:
            continue
        partition = definition.schema.partition
        prefix = prefix_of(table.id, partition_bytes(partition, attributes[partition.name]))
        if (table.id, prefix) not in seen:
            seen.add((table.id, prefix))
            metrics: dict[str, Any] = {"ItemCollectionKey": {partition.name: attributes[partition.name]}}
            try:
                metrics["SizeEstimateRangeGB"] = _LARGE if await _is_large(session, table, prefix) else _SMALL
            except MerganserError:
                pass  # what the request asked for has been done, whatever becomes of the estimate
            told.setdefault(table.name, []).append(metrics)
    return told


async def _is_large(session: Session, table: Table, prefix: bytes) -> bool:
    definition = definition_of(table)
    start, end, room = prefix, prefix_end(prefix), BYTES_MAX
    while room > 0:
        page = await session.page(
            table, start, end, reverse=False, is_consistent=False, rows_max=_ROWS_MAX, bytes_max=room
        )
        for item in page.items:
            size, attributes = size_of(item), attributes_of(item)
            room -= size
            for index in definition.local_indexes:
                room -= entry_size(index, definition.schema, attributes, size)
        if page.resume is None:
            return room <= 0
        start = max(start, page.resume)
    return True
