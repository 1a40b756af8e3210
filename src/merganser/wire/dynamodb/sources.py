"""What a Query or Scan goes through: a table, or one of its indexes.

::

    table         rows of the table                     rows in the order of their sort keys
    local index   entries in the table's partitions     the rows they point to
    global index  rows of a table of its own            what the index shows of the items

All three are ranges of keys, and all pages are read in the same way; a `Source` knows the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from merganser.core.index_tables import index_table
from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.storage import keys
from merganser.storage.keys import after, prefix_end
from merganser.wire.dynamodb.attributes import AttributeMap
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.index_items import global_key, global_partition
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.keys import key_of, partition_bytes, prefix_of, sort_bytes
from merganser.wire.dynamodb.secondary_indexes import IndexDefinition, global_indexes
from merganser.wire.dynamodb.tables import definition_of

STARTING_KEY: Final = "The provided starting key is invalid: "

Range = tuple[bytes, bytes]


class Source(msgspec.Struct, frozen=True):
    """See the module's docstring."""

    table: Table
    """As clients know it."""
    schema: KeySchema
    """The table's."""
    read_from: Table
    """Whose ranges are read: the table, or that of the entries of a global index."""
    index: IndexDefinition | None = None
    number: int | None = None
    """Of a local index."""

    @property
    def is_global(self) -> bool:
        """Tell whether it is a global index."""
        return self.index is not None and self.number is None

    @property
    def partition(self) -> tuple[KeyAttribute, ...]:
        """The attributes that a Query has to name."""
        return (self.schema.partition,) if self.index is None else self.index.partition

    @property
    def sort(self) -> tuple[KeyAttribute, ...]:
        """The attributes that order the items of a Query."""
        if self.index is not None:
            return self.index.sort
        return () if self.schema.sort is None else (self.schema.sort,)

    def position_of(self, item: Mapping[str, Any]) -> AttributeMap:
        """Return the LastEvaluatedKey after an item."""
        key = self.schema.of(item)
        if self.index is not None:
            key.update((attribute.name, item[attribute.name]) for attribute in self.index.attributes)
        return key

    def at(self, position: Mapping[str, Any]) -> bytes:
        """Return where an ExclusiveStartKey, in normal form, lies in the ranges that are read.

        Raises:
            ValidationError: not a key of what is read.
        """
        if self.index is None:
            return self._row(position)
        names = {attribute.name for attribute in (*self.schema.attributes, *self.index.attributes)}
        if position.keys() != names:
            raise ValidationError("The provided starting key is invalid")
        row = self._row({attribute.name: position[attribute.name] for attribute in self.schema.attributes})
        if any(attribute.kind not in position[attribute.name] for attribute in self.index.attributes):
            raise ValidationError("The provided starting key is invalid")
        try:
            if self.number is None:
                return global_key(self.read_from.id, self.index, position, row)
            (sort,) = self.index.sort
            return keys.entry_of(row, self.number, sort_bytes(sort, position[sort.name]))
        except ValidationError as error:
            raise ValidationError(STARTING_KEY + error.message) from None

    def prefix(self, values: Sequence[Mapping[str, Any]]) -> bytes:
        """Return what all keys of a partition key begin with.

        Args:
            values: of the attributes of `partition`, of the right types.

        Raises:
            ValidationError: one is empty or too long.
        """
        parts = [partition_bytes(one, value) for one, value in zip(self.partition, values, strict=True)]
        if self.is_global:
            whole = global_partition(parts)
            return keys.partition_prefix(self.read_from.id, token_of(whole), whole)
        rows = prefix_of(self.table.id, parts[0])
        return rows if self.number is None else keys.entry_prefix(rows, self.number)

    def narrowed(
        self, prefix: bytes, equal: Sequence[Mapping[str, Any]], operator: str, operands: Sequence[Mapping[str, Any]]
    ) -> Range:
        """Return the range of keys under a prefix that a condition on sort attributes leaves.

        Args:
            prefix: of `prefix`.
            equal: values of the first attributes of `sort`, of the right types.
            operator: on the one after them; "" for none.
            operands: of that operator.

        Raises:
            ValidationError: a value is empty or too long.
        """
        values = zip(self.sort, equal, strict=False)
        prefix += b"".join(keys.index_key(sort_bytes(one, value)) for one, value in values)
        if not operator:
            return prefix, prefix_end(prefix)
        attribute = self.sort[len(equal)]
        bounds = [sort_bytes(attribute, operand) for operand in operands]
        return (_OPEN if self.index is None else _CLOSED)[operator](prefix, *bounds)

    def _row(self, key: Mapping[str, Any]) -> bytes:
        try:
            return key_of(self.schema, self.table.id, key)
        except ValidationError as error:
            raise ValidationError(STARTING_KEY + error.message) from None


def source_of(table: Table, request: Mapping[str, Any], *, now_ms: int) -> Source:
    """Return what a Query or Scan goes through, at a time.

    Raises:
        ValidationError: there is no such index, or it cannot be read as the request says.
    """
    definition, name = definition_of(table), request.get("IndexName")
    if name is None:
        return Source(table, definition.schema, table)
    for number, index in enumerate(definition.local_indexes):
        if index.name == name:
            return Source(table, definition.schema, table, index, number)
    for kept, index in global_indexes(table):
        if index.name == name:
            is_filled = kept.state != "creating" and not definition.is_adding(name, now_ms)
            return _global(Source(table, definition.schema, index_table(table, kept), index), request, is_filled)
    raise ValidationError(f"The table does not have the specified index: {name}")


def _global(source: Source, request: Mapping[str, Any], is_filled: bool) -> Source:
    if request.get("ConsistentRead"):
        raise ValidationError("Consistent reads are not supported on global secondary indexes")
    if not is_filled:
        raise ValidationError(f"Cannot read from backfilling global secondary index: {request['IndexName']}")
    return source


def _equal(prefix: bytes, bound: bytes) -> Range:
    return prefix + bound, after(prefix + bound)


def _less(prefix: bytes, bound: bytes) -> Range:
    return prefix, prefix + bound


def _at_most(prefix: bytes, bound: bytes) -> Range:
    return prefix, after(prefix + bound)


def _greater(prefix: bytes, bound: bytes) -> Range:
    return after(prefix + bound), prefix_end(prefix)


def _at_least(prefix: bytes, bound: bytes) -> Range:
    return prefix + bound, prefix_end(prefix)


def _between(prefix: bytes, low: bytes, high: bytes) -> Range:
    return prefix + low, after(prefix + high)


def _begins_with(prefix: bytes, bound: bytes) -> Range:
    return prefix + bound, prefix_end(prefix + bound)


def _beyond(prefix: bytes, bound: bytes) -> bytes:
    return prefix_end(prefix + keys.index_key(bound))


_OPEN: Final[Mapping[str, Callable[..., Range]]] = {
    "=": _equal,
    "<": _less,
    "<=": _at_most,
    ">": _greater,
    ">=": _at_least,
    "BETWEEN": _between,
    "begins_with": _begins_with,
}
"""Ranges of sort keys that end their key."""

_CLOSED: Final[Mapping[str, Callable[..., Range]]] = {
    "=": lambda prefix, bound: (prefix + keys.index_key(bound), _beyond(prefix, bound)),
    "<": lambda prefix, bound: (prefix, prefix + keys.index_key(bound)),
    "<=": lambda prefix, bound: (prefix, _beyond(prefix, bound)),
    ">": lambda prefix, bound: (_beyond(prefix, bound), prefix_end(prefix)),
    ">=": lambda prefix, bound: (prefix + keys.index_key(bound), prefix_end(prefix)),
    "BETWEEN": lambda prefix, low, high: (prefix + keys.index_key(low), _beyond(prefix, high)),
    "begins_with": lambda prefix, bound: (prefix + keys.escaped(bound), prefix_end(prefix + keys.escaped(bound))),
}
"""Ranges of sort keys that are followed by more, and so are closed."""

OPERATORS: Final = frozenset(_OPEN)
