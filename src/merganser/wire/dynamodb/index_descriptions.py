"""How the secondary indexes of a table are described."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merganser.model.cluster import Index, Table
from merganser.wire.dynamodb.secondary_indexes import IndexDefinition, definition_of_index
from merganser.wire.dynamodb.table_settings import ON_DEMAND, described_limits, described_warmth

_STATES = {"creating": "CREATING", "active": "ACTIVE", "deleting": "DELETING"}


def described_indexes(
    table: Table, local: Sequence[IndexDefinition], table_arn: str, status: str, now_ms: int
) -> dict[str, Any]:
    """Return the members LocalSecondaryIndexes and GlobalSecondaryIndexes of a TableDescription; none that is empty.

    Args:
        table: of this wire.
        local: its local indexes.
        table_arn: of the table.
        status: CREATING, UPDATING, ACTIVE or DELETING.
        now_ms: milliseconds since 1970.
    """
    described: dict[str, Any] = {}
    if local:
        described["LocalSecondaryIndexes"] = [_described(index, table_arn) for index in local]
    if table.indexes:
        described["GlobalSecondaryIndexes"] = [
            _described_global(index, table_arn, status, now_ms) for index in table.indexes
        ]
    return described


def _described(index: IndexDefinition, table_arn: str) -> dict[str, Any]:
    return {
        "IndexName": index.name,
        "KeySchema": index.described_keys(),
        "Projection": index.projection.described(),
        "IndexArn": f"{table_arn}/index/{index.name}",
    }


def _described_global(index: Index, table_arn: str, table_status: str, now_ms: int) -> dict[str, Any]:
    definition = definition_of_index(index)
    status = table_status if table_status in ("CREATING", "DELETING") else _STATES[index.state]
    described = _described(definition, table_arn)
    described["IndexStatus"] = status
    if index.state == "creating":
        described["Backfilling"] = True
    described["ProvisionedThroughput"] = (definition.throughput or ON_DEMAND).described(now_ms)
    if definition.on_demand_limits is not None:
        described["OnDemandThroughput"] = described_limits(definition.on_demand_limits)
    if definition.warm is not None:
        described["WarmThroughput"] = described_warmth(definition.warm, status)
    return described
