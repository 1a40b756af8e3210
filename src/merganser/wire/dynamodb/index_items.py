"""Where items stand in secondary indexes: their keys there, for the services and for checks of writes.

The entry of a global index is a row of a table of its own. Its partition key is that of the index, several attributes
each closed, one after another; its sort key the sort attributes of the index, each closed, and then the primary key of
the item, which makes it unique::

    one partition attribute     its bytes, as those of a table's
    several                     each with 00 written as 00 FF, and closed
    sort key                    sort attributes of the index, each so; then the partition key of the item, so, then its
                                sort key raw
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.model.index import Entry
from merganser.service.counts import LocalSizes
from merganser.service.local_indexes import LocalKeys
from merganser.storage import keys
from merganser.wire.dynamodb.attributes import AttributeMap, normalise
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.items import attributes_of, encoded, size_of
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.keys import partition_bytes, sort_bytes
from merganser.wire.dynamodb.secondary_indexes import IndexDefinition, global_indexes, picked
from merganser.wire.dynamodb.tables import definition_of

_INVALID: Final = "One or more parameter values were invalid: "
_EMPTY: Final = (
    "One or more parameter values are not valid. A value specified for a secondary index key is not supported. "
    "The AttributeValue for a key attribute cannot contain an empty"
)


def local_indexer(table: Table) -> LocalKeys | None:
    """Return how items are indexed by the local indexes of a table; the `service.local_indexes.LocalIndexer`."""
    indexes = definition_of(table).local_indexes
    return functools.partial(_local_keys, indexes) if indexes else None


def local_measurer(table: Table) -> LocalSizes | None:
    """Return how what the local indexes of a table show is measured; the `service.local_indexes.LocalMeasurer`."""
    definition = definition_of(table)
    indexes = definition.local_indexes
    return functools.partial(_local_sizes, indexes, definition.schema) if indexes else None


def indexer(table: Table, key: bytes, value: bytes) -> Sequence[Entry]:
    """Return the entries of an item in the global indexes of its table; the `service.steps.Indexer`."""
    item, schema = attributes_of(value), definition_of(table).schema
    found: list[Entry] = []
    for index, definition in global_indexes(table):
        if stands(definition, item):
            entry_key = global_key(index.table, definition, item, key)
            shown = value if definition.shows_all else projected(definition, schema, item)
            found.append(Entry(index.name, entry_key, shown))
    return found


def projected(definition: IndexDefinition, schema: KeySchema, item: AttributeMap) -> bytes:
    """Return what an index shows of an item, in stored form."""
    shown = picked(item, definition.shown(schema))
    return encoded(shown, normalise(shown))


def global_key(table: TableId, definition: IndexDefinition, values: Mapping[str, Any], row_key: bytes) -> bytes:
    """Return the key of the entry of an item in a global index.

    Args:
        table: of the entries.
        definition: of the index.
        values: with the key attributes of the index.
        row_key: of the item, in its own table.
    """
    _, _, partition, sort = keys.split_row_key(row_key)
    parts = [keys.index_key(sort_bytes(one, values[one.name])) for one in definition.sort]
    own = global_partition([partition_bytes(one, values[one.name]) for one in definition.partition])
    return keys.row_key(table, token_of(own), own, b"".join([*parts, keys.index_key(partition), sort]))


def global_partition(parts: Sequence[bytes]) -> bytes:
    """Return the partition key of a global index from the bytes of its attributes."""
    return parts[0] if len(parts) == 1 else b"".join(map(keys.index_key, parts))


def stands(definition: IndexDefinition, item: Mapping[str, Any]) -> bool:
    """Tell whether an item, in normal form, stands in an index."""
    return all(_bytes_of(one, item, is_partition=True) is not None for one in definition.partition) and all(
        _bytes_of(one, item, is_partition=False) is not None for one in definition.sort
    )


def check_item(table: Table, item: Mapping[str, Any]) -> None:
    """Check that an item to be put can stand in the indexes of its table, or lacks attributes of their keys.

    Raises:
        ValidationError: with DynamoDB's text.
    """
    for definition in indexes_of(table):
        _check(definition, item, "")


def check_updated(table: Table, item: Mapping[str, Any], changed: Mapping[str, object]) -> None:
    """Check what an update has made of an item, as `check_item` does.

    Args:
        table: of the item.
        item: in normal form.
        changed: names of the attributes that may be others than they were.

    Raises:
        ValidationError: with DynamoDB's text.
    """
    for definition in indexes_of(table):
        for attribute in definition.attributes:
            if attribute.name in changed and attribute.name in item:
                if attribute.kind not in item[attribute.name]:
                    raise ValidationError(
                        "The update expression attempted to update the secondary index key to unsupported type"
                    )
                _check_value(definition, attribute, item[attribute.name], is_update=True)


def indexes_of(table: Table) -> tuple[IndexDefinition, ...]:
    """Return all secondary indexes of a table, global ones first, as DynamoDB looks at them."""
    local = definition_of(table).local_indexes
    return (*(definition for _, definition in global_indexes(table)), *local) if table.indexes else local


def _check(definition: IndexDefinition, item: Mapping[str, Any], what: str) -> None:
    for attribute in definition.attributes:
        value = item.get(attribute.name)
        if value is None:
            continue
        if attribute.kind not in value:
            raise type_mismatch(definition, attribute, next(iter(value)))
        _check_value(definition, attribute, value)


def type_mismatch(definition: IndexDefinition, attribute: KeyAttribute, kind: str) -> ValidationError:
    """Return what is said of a value of type ``kind`` for a key attribute of an index."""
    return ValidationError(
        f"{_INVALID}Type mismatch for Index Key {attribute.name} Expected: {attribute.kind} Actual: {kind} "
        f"IndexName: {definition.name}"
    )


def _check_value(
    definition: IndexDefinition, attribute: KeyAttribute, value: Mapping[str, Any], *, is_update: bool = False
) -> None:
    if not value[attribute.kind]:
        kind = "string" if attribute.kind == "S" else "binary"
        if is_update:
            raise ValidationError(
                "One or more parameter values are not valid. The update expression attempted to update a secondary "
                "index key to a value that is not supported. The AttributeValue for a key attribute cannot contain an "
                f"empty {kind} value."
            )
        raise ValidationError(f"{_EMPTY} {kind} value. IndexName: {definition.name}, IndexKey: {attribute.name}")
    if attribute in definition.partition:
        partition_bytes(attribute, value)
    else:
        sort_bytes(attribute, value)


@functools.lru_cache(maxsize=4)
def _looked_into(value: bytes) -> AttributeMap:
    """Return the attributes of a stored item, which nobody may change: keys and sizes are asked for after another."""
    return attributes_of(value)


def _local_sizes(indexes: Sequence[IndexDefinition], schema: KeySchema, value: bytes) -> list[tuple[int, int]]:
    item = _looked_into(value)
    return [
        (number, size_of(value) if definition.shows_all else _size_shown(definition, schema, item))
        for number, definition in enumerate(indexes)
        if _bytes_of(definition.sort[0], item, is_partition=False) is not None
    ]


def _size_shown(definition: IndexDefinition, schema: KeySchema, item: AttributeMap) -> int:
    return normalise(picked(item, definition.shown(schema)))  # which is in normal form, and stays as it is


def _local_keys(indexes: Sequence[IndexDefinition], value: bytes) -> list[tuple[int, bytes]]:
    item = _looked_into(value)
    found: list[tuple[int, bytes]] = []
    for number, definition in enumerate(indexes):
        key = _bytes_of(definition.sort[0], item, is_partition=False)
        if key is not None:
            found.append((number, key))
    return found


def _bytes_of(attribute: KeyAttribute, item: Mapping[str, Any], *, is_partition: bool) -> bytes | None:
    """Return the bytes of a key attribute; None if it is missing, or cannot be one."""
    value = item.get(attribute.name)
    if value is None or attribute.kind not in value:
        return None
    try:
        return (partition_bytes if is_partition else sort_bytes)(attribute, value)
    except ValidationError:
        return None
