"""From key attributes to the key of a row, and what DynamoDB says of those that do not fit the table.

The partition key's bytes, which are hashed into the token: a string in UTF-8, a binary raw, a number
in its normal form in ASCII. The sort key's bytes order as its values do (`storage.ordered`).

Values are expected in normal form (`attributes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from merganser.core.token import token_of
from merganser.model.ids import TableId
from merganser.storage.keys import partition_prefix, row_key
from merganser.storage.ordered import encode_binary, encode_number, encode_string
from merganser.wire.dynamodb.attributes import decode_binary
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema

PARTITION_KEY_BYTES_MAX: Final = 2048
SORT_KEY_BYTES_MAX: Final = 1024

NOT_THE_SCHEMA = "The provided key element does not match the schema"
_INVALID = "One or more parameter values were invalid: "
_EMPTY = "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty"


def key_of_item(schema: KeySchema, table: TableId, item: Mapping[str, Any]) -> bytes:
    """Return the key of the row for an item to be put.

    Raises:
        ValidationError: a key attribute is missing, of another type, empty or too long.
    """
    for attribute in schema.attributes:
        value = item.get(attribute.name)
        if value is None:
            raise ValidationError(f"{_INVALID}Missing the key {attribute.name} in the item")
        if attribute.kind not in value:
            raise ValidationError(
                f"{_INVALID}Type mismatch for key {attribute.name} expected: {attribute.kind} "
                f"actual: {next(iter(value))}"
            )
    return _row_key(schema, table, item)


def key_of(schema: KeySchema, table: TableId, key: Mapping[str, Any]) -> bytes:
    """Return the key of the row that a request names.

    Raises:
        ValidationError: not the key attributes of the table and nothing else, or one is empty or too long.
    """
    partition, sort = schema.partition, schema.sort
    if len(key) != (1 if sort is None else 2) or partition.kind not in (key.get(partition.name) or ()):
        raise ValidationError(NOT_THE_SCHEMA)
    if sort is not None and sort.kind not in (key.get(sort.name) or ()):
        raise ValidationError(NOT_THE_SCHEMA)
    return _row_key(schema, table, key)


def check_filled(key: Mapping[str, Any]) -> None:
    """Check that no attribute of a Key is empty, whatever the schema of its table is.

    Raises:
        ValidationError: one is.
    """
    for name, value in key.items():
        kind = next(iter(value))
        if kind in ("S", "B") and not value[kind]:
            raise _empty(KeyAttribute(name, kind))


def partition_bytes(attribute: KeyAttribute, value: Mapping[str, Any]) -> bytes:
    """Return what is hashed into the token.

    Raises:
        ValidationError: empty or too long.
    """
    data = _PARTITION[attribute.kind](value[attribute.kind])
    if not data:
        raise _empty(attribute)
    if len(data) > PARTITION_KEY_BYTES_MAX and attribute.kind != "N":
        raise ValidationError(
            f"{_INVALID}Size of hashkey has exceeded the maximum size limit of{PARTITION_KEY_BYTES_MAX} bytes"  # sic
        )
    return data


def sort_bytes(attribute: KeyAttribute, value: Mapping[str, Any]) -> bytes:
    """Return bytes that order as the values of the sort key do.

    Raises:
        ValidationError: empty or too long.
    """
    data = _SORT[attribute.kind](value[attribute.kind])
    if not data:
        raise _empty(attribute)
    if len(data) > SORT_KEY_BYTES_MAX:
        raise ValidationError(
            f"{_INVALID}Aggregated size of all range keys has exceeded the size limit of {SORT_KEY_BYTES_MAX} bytes"
        )
    return data


def prefix_of(table: TableId, partition: bytes) -> bytes:
    """Return what the keys of all rows of a partition key begin with."""
    return partition_prefix(table, token_of(partition), partition)


def _row_key(schema: KeySchema, table: TableId, values: Mapping[str, Any]) -> bytes:
    partition = partition_bytes(schema.partition, values[schema.partition.name])
    token = token_of(partition)
    if schema.sort is None:
        return row_key(table, token, partition)
    return row_key(table, token, partition, sort_bytes(schema.sort, values[schema.sort.name]))


def _empty(attribute: KeyAttribute) -> ValidationError:
    kind = "string" if attribute.kind == "S" else "binary"
    return ValidationError(f"{_EMPTY} {kind} value. Key: {attribute.name}")


def _binary(text: str) -> bytes:
    return encode_binary(decode_binary(text))


_PARTITION: dict[str, Callable[[str], bytes]] = {"S": str.encode, "N": str.encode, "B": decode_binary}
_SORT: dict[str, Callable[[str], bytes]] = {"S": encode_string, "N": encode_number, "B": _binary}
