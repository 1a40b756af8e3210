"""ReturnItemCollectionMetrics: how large the item collections are that a request has written to.

Only tables with local indexes have item collections to speak of. The size is that of all items of a partition key and
of what the local indexes show of them. A collection is no larger than its partition of the ring, whose replicas know
what they hold: as long as that is less than 1 GB, so is the collection, and nothing is read. Else it is read from the
nearest replica, no further than 8 MB: one that ends before is 0 to 1 GB, a larger one 0 to what its partition holds.
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
from merganser.wire.dynamodb.session import PageRequest, Session, Span
from merganser.wire.dynamodb.tables import definition_of

BYTES_MAX: Final = 8 * 1024 * 1024
_ROWS_MAX: Final = 200  # of one read, as of a page
GB: Final = 1024**3
_LIMIT_GB: Final = 10
"""DynamoDB's own, of a collection whose partition nobody has counted."""

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
                metrics["SizeEstimateRangeGB"] = [0.0, float(await _most_gb(session, table, prefix))]
            except MerganserError:
                pass  # what the request asked for has been done, whatever becomes of the estimate
            told.setdefault(table.name, []).append(metrics)
    return told


async def _most_gb(session: Session, table: Table, prefix: bytes) -> int:
    """Return a bound of the size of a collection."""
    around = await session.bytes_around(table, prefix)
    if around is not None and around < GB:
        return 1
    if not await _is_large(session, table, prefix):
        return 1
    return _LIMIT_GB if around is None else -(-around // GB)


async def _is_large(session: Session, table: Table, prefix: bytes) -> bool:
    definition = definition_of(table)
    start, end, room = prefix, prefix_end(prefix), BYTES_MAX
    while room > 0:
        page = await session.page(table, PageRequest(Span(start, end), _ROWS_MAX, room))
        for item in page.items:
            size, attributes = size_of(item), attributes_of(item)
            room -= size
            for index in definition.local_indexes:
                room -= entry_size(index, definition.schema, attributes, size)
        if page.resume is None:
            return room <= 0
        start = max(start, page.resume)
    return True
