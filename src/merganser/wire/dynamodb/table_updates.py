"""UpdateTable: what it accepts, and what becomes of a table's definition.

DynamoDB describes an updated table as it was, UPDATING, and takes seconds to minutes to become what was asked for.
Here the table is what was asked for when the answer leaves; only its description says UPDATING, in that answer or for
as long as the table delay (`wire.dynamodb.table_states`).
Changes of secondary indexes are those of `wire.dynamodb.index_updates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from merganser.model.cluster import Table
from merganser.wire.dynamodb.constraints import Violations, require_table_name
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.index_updates import (
    added_index,
    check_index_updates,
    find_update_violations,
    moves_indexes,
    with_index_settings,
)
from merganser.wire.dynamodb.stream_settings import stream_of
from merganser.wire.dynamodb.table_settings import (
    INVALID,
    NO_UNITS_ON_DEMAND,
    ON_DEMAND,
    check_on_demand_limits,
    check_settings,
    check_units,
    check_warmth,
    encryption_of,
    find_violations,
    on_demand_limits_of,
    unchanged,
    units_of,
    warm_throughput_of,
)
from merganser.wire.dynamodb.table_states import IndexChange, Transition
from merganser.wire.dynamodb.tables import TableDefinition, definition_of, settings_of
from merganser.wire.dynamodb.unserved import refuse_unserved

_CHANGES: Final = (
    "ProvisionedThroughput",
    "BillingMode",
    "StreamSpecification",
    "GlobalSecondaryIndexUpdates",
    "SSESpecification",
    "ReplicaUpdates",
    "TableClass",
    "DeletionProtectionEnabled",
    "OnDemandThroughput",
    "WarmThroughput",
)


def check_update(request: Mapping[str, Any]) -> None:
    """Check an UpdateTable whose members have the right JSON types, as far as the table does not matter.

    Raises:
        ValidationError: in DynamoDB's words and order.
    """
    require_table_name(request)
    violations = Violations()
    violations.table_pattern(request)
    find_violations(violations, request)
    find_update_violations(violations, request)
    violations.settle()
    refuse_unserved("UpdateTable", request)
    if all(request.get(name) in (None, []) for name in _CHANGES):
        raise ValidationError(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or "
            "SSESpecification or ReplicaUpdates is required"
        )
    units = request.get("ProvisionedThroughput")
    if request.get("BillingMode") == "PROVISIONED" and units is None:
        raise ValidationError(f"{INVALID}ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
    if units is not None:
        check_units(units)
    check_settings(request)
    check_index_updates(request)


def updated(table: Table, request: Mapping[str, Any], *, now_ms: int, delay_ms: int = 0) -> TableDefinition:
    """Return what a checked UpdateTable makes of the definition of a table.

    Args:
        table: as it is.
        request: the UpdateTable.
        now_ms: milliseconds since 1970.
        delay_ms: how long the table is UPDATING if anything changes.

    Raises:
        ApiError: it makes no sense for this table.
    """
    definition = definition_of(table)
    is_protected, table_class = request.get("DeletionProtectionEnabled"), request.get("TableClass")
    after = msgspec.structs.replace(
        _rebilled(definition, request, now_ms=now_ms),
        is_protected=definition.is_protected if is_protected is None else is_protected,
        encryption=encryption_of(request, definition.encryption),
        warm=warm_throughput_of(request, definition.warm),
        stream=stream_of(request, definition.stream, table=table.name, now_ms=now_ms),
    )
    check_on_demand_limits(request, is_on_demand=after.throughput is None)
    check_warmth(request, "table", throughput=after.throughput, before=definition.warm)
    if table_class is not None:
        after = msgspec.structs.replace(after, table_class=table_class, class_changed_ms=now_ms)
    limits = on_demand_limits_of(request, definition.on_demand_limits) if after.throughput is None else None
    after = msgspec.structs.replace(after, on_demand_limits=limits)
    after = with_index_settings(table, definition, after, request, now_ms=now_ms)
    if delay_ms and (after != definition or moves_indexes(request)):
        begun = transition_to(table, definition, after, request, until_ms=now_ms + delay_ms)
        since_ms = begun.until_ms if begun.begins_on_demand else after.on_demand_since_ms
        return msgspec.structs.replace(after, transition=begun, on_demand_since_ms=since_ms)
    return after


def transition_to(
    table: Table, before: TableDefinition, after: TableDefinition, request: Mapping[str, Any], *, until_ms: int
) -> Transition:
    """Return the state of a table that is updated: what DynamoDB describes as it was, until it is as asked for.

    That is throughput, unless the billing mode changes, and since when the table is on demand, if it only begins to be.
    """
    is_on_demand = after.throughput is None
    settings = [(index.table, settings_of(before, index), settings_of(after, index)) for index in table.indexes]
    return Transition(
        "UPDATING",
        until_ms,
        was=None if is_on_demand else before.throughput,
        begins_on_demand=before.throughput is not None and is_on_demand,
        indexes=tuple(
            IndexChange(entries, None if is_on_demand else was.throughput)
            for entries, was, becomes in settings
            if was != becomes
        ),
        added=added_index(request),
    )


def _rebilled(definition: TableDefinition, request: Mapping[str, Any], *, now_ms: int) -> TableDefinition:
    before, units, mode = definition.throughput, units_of(request), request.get("BillingMode")
    is_on_demand = mode == "PAY_PER_REQUEST" if mode else before is None
    if is_on_demand:
        if units is not None:
            raise ValidationError(NO_UNITS_ON_DEMAND)
        if before is None:
            return definition
        return msgspec.structs.replace(definition, throughput=None, on_demand_since_ms=now_ms)
    if units is None:
        return definition
    if before is not None and units == (before.read_units, before.write_units):
        raise unchanged(before, "table", "table")
    since_ms = definition.on_demand_since
    throughput = (before or ON_DEMAND).changed_to(*units, now_ms=now_ms)
    return msgspec.structs.replace(definition, throughput=throughput, on_demand_since_ms=since_ms)
