"""What a write takes of the secondary indexes of its table.

An item that enters an index, or leaves it, takes a write of its entry; one whose key in the index becomes another takes
both. If only other projected attributes change it is one write, by the larger of the entry before and after; if none
does, the index takes nothing. An entry is as large as what it shows. Only the leader of an item sees it before and
after, so this is part of what a step measures.

Source: Amazon DynamoDB Developer Guide, "Provisioned throughput considerations for Global Secondary Indexes" and
"… for Local Secondary Indexes".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from merganser.model.cluster import Table
from merganser.wire.dynamodb.attributes import AttributeMap, normalise
from merganser.wire.dynamodb.capacity import Consumption, write_units
from merganser.wire.dynamodb.index_items import indexes_of, stands
from merganser.wire.dynamodb.items import attributes_of, size_of
from merganser.wire.dynamodb.key_schemas import KeySchema
from merganser.wire.dynamodb.secondary_indexes import IndexDefinition, picked
from merganser.wire.dynamodb.tables import definition_of


class _Entry(msgspec.Struct, frozen=True):
    """What an index shows of an item."""

    key: AttributeMap
    shown: Mapping[str, object]
    size: int


def index_writes(table: Table, before: bytes | None, after: bytes | None) -> dict[str, float]:
    """Return the units that the indexes of a table take, by name, without those that take none.

    Args:
        table: of the item.
        before: the item in stored form as it was, None if there was none.
        after: as it is.
    """
    definitions = indexes_of(table)
    if not definitions or before == after:
        return {}
    schema = definition_of(table).schema
    was, becomes = (None if item is None else attributes_of(item) for item in (before, after))
    taken = {}
    for definition in definitions:
        old = _entry(definition, schema, was, before)
        new = _entry(definition, schema, becomes, after)
        units = _units(old, new)
        if units:
            taken[definition.name] = units
    return taken


def add_index_writes(consumption: Consumption, table: Table, taken: Mapping[str, float]) -> None:
    """Add to the consumption of a table what its indexes took."""
    local = {definition.name for definition in definition_of(table).local_indexes} if taken else ()
    for name, units in taken.items():
        indexes = consumption.local_indexes if name in local else consumption.global_indexes
        indexes[name] = indexes.get(name, 0.0) + units


def entry_size(definition: IndexDefinition, schema: KeySchema, item: AttributeMap, size: int) -> int:
    """Return the size of what an index shows of an item, 0 if the item does not stand in it.

    Args:
        definition: of the index.
        schema: of the table.
        item: in normal form.
        size: of the item.
    """
    if not stands(definition, item):
        return 0
    return size if definition.shows_all else normalise(picked(item, definition.shown(schema)))


def _entry(
    definition: IndexDefinition, schema: KeySchema, item: AttributeMap | None, stored: bytes | None
) -> _Entry | None:
    if item is None or stored is None or not stands(definition, item):
        return None
    key = {attribute.name: item[attribute.name] for attribute in definition.attributes}
    shown = item if definition.shows_all else picked(item, definition.shown(schema))
    return _Entry(key, shown, entry_size(definition, schema, item, size_of(stored)))


def _units(old: _Entry | None, new: _Entry | None) -> float:
    if old is None or new is None:
        return sum(write_units(entry.size, 0) for entry in (old, new) if entry is not None)
    if old.key != new.key:
        return write_units(old.size, 0) + write_units(0, new.size)
    return 0.0 if old.shown == new.shown else write_units(old.size, new.size)
