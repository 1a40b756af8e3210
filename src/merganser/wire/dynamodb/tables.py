"""Tables: what CreateTable accepts, what is kept of it, and how a table is described.

The definition travels in the cluster map as msgpack, opaque to everything but this wire. Settings that UpdateTable
changes as well are those of `wire.dynamodb.table_settings`; what is counted is added by `wire.dynamodb.item_counts`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from merganser.model.cluster import Index, Replication, Table
from merganser.model.policy import Policy
from merganser.wire.dynamodb.arns import table_arn
from merganser.wire.dynamodb.constraints import (
    Violations,
    element_violations,
    key_schema_violations,
    require_table_name,
)
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.index_requests import (
    FIRST_NOT_HASH,
    SAME_NAME,
    SECOND_NOT_RANGE,
    check_indexes,
    find_index_violations,
    local_definitions,
)
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.secondary_indexes import (
    IndexDefinition,
    definition_of_index,
    described_index,
    global_indexes,
)
from merganser.wire.dynamodb.stream_settings import StreamSettings, first_stream_of
from merganser.wire.dynamodb.table_settings import (
    INVALID,
    NO_UNITS_ON_DEMAND,
    ON_DEMAND,
    Encryption,
    OnDemandLimits,
    Throughput,
    TimeToLive,
    TimeToLiveChange,
    WarmThroughput,
    check_on_demand_limits,
    check_settings,
    check_units,
    check_warmth,
    described_limits,
    described_warmth,
    encryption_of,
    find_violations,
    on_demand_limits_of,
    units_of,
    warm_throughput_of,
)
from merganser.wire.dynamodb.table_states import Transition, lasting
from merganser.wire.dynamodb.tags import (
    LEADERLESS_TAG,
    Tags,
    check_tags,
    find_tag_violations,
    policy_in,
    replication_in,
    tags_of,
)
from merganser.wire.dynamodb.unserved import refuse_unserved

_INVALID = INVALID


class IndexSettings(msgspec.Struct, frozen=True):
    """What an UpdateTable has made of the settings of a global index."""

    entries: int
    """The id of the table of its entries."""
    throughput: Throughput | None
    """None: PAY_PER_REQUEST."""
    on_demand_limits: OnDemandLimits | None = None
    warm: WarmThroughput | None = None


class TableDefinition(msgspec.Struct, frozen=True):
    """What is kept of a CreateTable."""

    schema: KeySchema
    created_ms: int
    """Milliseconds since 1970."""
    throughput: Throughput | None
    """None: PAY_PER_REQUEST."""
    is_protected: bool
    """DeleteTable is refused."""
    table_class: str | None = None
    tags: Tags = ()
    class_changed_ms: int | None = None
    on_demand_since_ms: int | None = None
    """When it became PAY_PER_REQUEST last; None: never, or when it was created."""
    encryption: Encryption | None = None
    on_demand_limits: OnDemandLimits | None = None
    warm: WarmThroughput | None = None
    local_indexes: tuple[IndexDefinition, ...] = ()
    """In the order in which they were asked for, by which they are numbered."""
    time_to_live: TimeToLive | None = None
    index_settings: tuple[IndexSettings, ...] = ()
    """Of global indexes, where they are others than the index was made with."""
    stream: StreamSettings | None = None
    transition: Transition | None = None
    """A state that lasts, or lasted; None: there never was one, or it was over with the answer."""
    time_to_live_change: TimeToLiveChange | None = None
    """Likewise of time to live."""

    def transition_at(self, now_ms: int) -> Transition | None:
        """Return the state that the table is in; None: ACTIVE."""
        return lasting(self.transition, now_ms)

    def is_adding(self, index: str, now_ms: int) -> bool:
        """Tell whether the table is still being given the global index of that name."""
        state = self.transition_at(now_ms)
        return state is not None and state.added == index

    @property
    def on_demand_since(self) -> int | None:
        """When it became PAY_PER_REQUEST last; None: never."""
        if self.throughput is None and self.on_demand_since_ms is None:
            return self.created_ms
        return self.on_demand_since_ms

    def encoded(self) -> bytes:
        """Return the bytes for `model.cluster.Table.definition`."""
        return msgspec.msgpack.encode(self)


def definition_of(table: Table) -> TableDefinition:
    """Return the definition of a table."""
    return _decoded(table.definition)


@functools.lru_cache(maxsize=4096)  # tables live long, and every request asks several times
def _decoded(definition: bytes) -> TableDefinition:
    return msgspec.msgpack.decode(definition, type=TableDefinition)


def ends_ms(table: Table) -> int | None:
    """Return when a table is to go, in milliseconds since 1970; the `service.table_ends.Ends` of this wire."""
    transition = definition_of(table).transition
    return transition.until_ms if transition is not None and transition.status == "DELETING" else None


def check_create(request: Mapping[str, Any]) -> None:
    """Check a CreateTable whose members have the right JSON types.

    Raises:
        ValidationError: in DynamoDB's words and order.
    """
    require_table_name(request)
    _constraints(request)
    _billing(request)
    _key_schema(request)
    refuse_unserved("CreateTable", request)
    check_settings(request)
    check_on_demand_limits(request, is_on_demand=request.get("BillingMode") == "PAY_PER_REQUEST")
    units = units_of(request)
    check_warmth(request, "table", throughput=None if units is None else Throughput(*units), before=None)
    check_tags(request.get("Tags") or ())
    for name in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        if request.get(name) is not None and replication_for(request) != "leader":
            raise ValidationError(
                f"{name} needs a table with leaders: create the table without the tag {LEADERLESS_TAG}"
            )


def definition_for(
    request: Mapping[str, Any], *, created_ms: int, transition: Transition | None = None
) -> TableDefinition:
    """Return the definition that a checked CreateTable asks for."""
    kinds = {one["AttributeName"]: one["AttributeType"] for one in request["AttributeDefinitions"]}
    keys = [KeyAttribute(one["AttributeName"], kinds[one["AttributeName"]]) for one in request["KeySchema"]]
    units = units_of(request)
    return TableDefinition(
        schema=KeySchema(*keys),
        created_ms=created_ms,
        throughput=None if units is None else Throughput(*units),
        is_protected=bool(request.get("DeletionProtectionEnabled")),
        table_class=request.get("TableClass"),
        tags=tags_of(request),
        encryption=encryption_of(request, None),
        on_demand_limits=on_demand_limits_of(request, None),
        warm=warm_throughput_of(request, None),
        local_indexes=local_definitions(request),
        stream=first_stream_of(request, now_ms=created_ms),
        transition=transition,
    )


def settings_of(definition: TableDefinition, index: Index) -> IndexSettings:
    """Return the settings of a global index of a table."""
    for kept in definition.index_settings:
        if kept.entries == index.table:
            return kept
    made = definition_of_index(index)
    return IndexSettings(index.table, made.throughput, made.on_demand_limits, made.warm)


def key_attributes(table: Table) -> tuple[KeyAttribute, ...]:
    """Return the attributes of the keys of a table and of its indexes, each once."""
    definition = definition_of(table)
    indexes = (*definition.local_indexes, *(index for _, index in global_indexes(table)))
    listed = (*definition.schema.attributes, *(attribute for index in indexes for attribute in index.attributes))
    return tuple({attribute.name: attribute for attribute in listed}.values())


def replication_for(request: Mapping[str, Any]) -> Replication:
    """Return the protocol that a checked CreateTable asks for."""
    return replication_in(dict(tags_of(request)))


def policy_for(request: Mapping[str, Any]) -> Policy | None:
    """Return where a checked CreateTable wants the table to be, None if it does not say."""
    return policy_in(dict(tags_of(request)))


def describe(table: Table, *, transition: Transition | None, region: str, account: str, now_ms: int) -> dict[str, Any]:
    """Return the TableDescription of a table.

    Args:
        table: a table of this wire.
        transition: the state it is told to be in; None: ACTIVE.
        region: for the ARN.
        account: for the ARN.
        now_ms: milliseconds since 1970.
    """
    definition = definition_of(table)
    status = transition.status if transition is not None else "ACTIVE"
    description: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": one.name, "AttributeType": one.kind}
            for one in sorted(key_attributes(table), key=lambda attribute: attribute.name)
        ],
        "TableName": table.name,
        "KeySchema": [
            {"AttributeName": one.name, "KeyType": kind}
            for one, kind in zip(definition.schema.attributes, ("HASH", "RANGE"), strict=False)
        ],
        "TableStatus": status,
        "CreationDateTime": definition.created_ms / 1000,
        "ProvisionedThroughput": (definition.throughput or ON_DEMAND).described(
            now_ms, transition.was if transition else None
        ),
        "TableArn": table_arn(table.name, region=region, account=account),
        "TableId": table.unique_id,
        "DeletionProtectionEnabled": definition.is_protected,
    }
    since_ms = definition.on_demand_since
    if since_ms is not None:
        summary: dict[str, Any] = {"BillingMode": "PROVISIONED" if definition.throughput else "PAY_PER_REQUEST"}
        if status != "CREATING" and not (transition and transition.begins_on_demand):
            summary["LastUpdateToPayPerRequestDateTime"] = since_ms / 1000
        description["BillingModeSummary"] = summary
    if definition.table_class:
        description["TableClassSummary"] = {"TableClass": definition.table_class}
        if definition.class_changed_ms is not None:
            description["TableClassSummary"]["LastUpdateDateTime"] = definition.class_changed_ms / 1000
    if definition.encryption is not None:
        description["SSEDescription"] = definition.encryption.described(region=region, account=account)
    if definition.stream is not None:
        description.update(definition.stream.described(description["TableArn"]))
    if definition.on_demand_limits is not None:
        description["OnDemandThroughput"] = described_limits(definition.on_demand_limits)
    description["WarmThroughput"] = described_warmth(definition.warm, definition.throughput, status)
    if definition.local_indexes:
        local = [described_index(index, description["TableArn"]) for index in definition.local_indexes]
        description["LocalSecondaryIndexes"] = local
    if table.indexes and status != "DELETING":
        description["GlobalSecondaryIndexes"] = [
            _described_global(index, settings_of(definition, index), description, transition, now_ms)
            for index in table.indexes
        ]
    return description


def _described_global(
    index: Index,
    settings: IndexSettings,
    description: Mapping[str, Any],
    transition: Transition | None,
    now_ms: int,
) -> dict[str, Any]:
    status, is_backfilling = _STATES[index.state], True if index.state == "creating" else None
    change = transition.of_index(index.table) if transition is not None else None
    if transition is not None and transition.status == "CREATING":
        status = "CREATING"
    elif transition is not None and transition.added == index.name:
        status, is_backfilling = "CREATING", False
    elif change is not None:
        status = "UPDATING"
    described = described_index(definition_of_index(index), description["TableArn"])
    described["IndexStatus"] = status
    if is_backfilling is not None:
        described["Backfilling"] = is_backfilling
    described["ProvisionedThroughput"] = (settings.throughput or ON_DEMAND).described(
        now_ms, change.was if change is not None else None
    )
    if settings.on_demand_limits is not None:
        described["OnDemandThroughput"] = described_limits(settings.on_demand_limits)
    described["WarmThroughput"] = described_warmth(settings.warm, settings.throughput, status)
    return described


_STATES: Final = {"creating": "CREATING", "active": "ACTIVE", "deleting": "DELETING"}


def _constraints(request: Mapping[str, Any]) -> None:
    violations = Violations()
    violations.table_pattern(request)
    if violations.required(request, "AttributeDefinitions"):
        element_violations(violations, request["AttributeDefinitions"], "attributeDefinitions", "AttributeType")
    if violations.required(request, "KeySchema"):
        key_schema_violations(violations, request["KeySchema"], "keySchema", most=2)
    find_index_violations(violations, request)
    find_violations(violations, request)
    find_tag_violations(violations, request.get("Tags") or ())
    violations.settle()


def _billing(request: Mapping[str, Any]) -> None:
    units = request.get("ProvisionedThroughput")
    if request.get("BillingMode") == "PAY_PER_REQUEST":
        if units is not None:
            raise ValidationError(NO_UNITS_ON_DEMAND)
        return
    if units is None:
        raise ValidationError(
            f"{_INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
        )
    check_units(units)


def _key_schema(request: Mapping[str, Any]) -> None:
    schema = request["KeySchema"]
    names = [one["AttributeName"] for one in schema]
    defined = [one["AttributeName"] for one in request["AttributeDefinitions"]]
    if schema[0]["KeyType"] != "HASH":
        raise ValidationError(FIRST_NOT_HASH)
    if len(schema) == 2:
        if schema[1]["KeyType"] != "RANGE":
            raise ValidationError(SECOND_NOT_RANGE)
        if names[0] == names[1]:
            raise ValidationError(SAME_NAME)
    if len(set(defined)) != len(defined):
        raise ValidationError("Cannot have two attributes with the same name")
    if not set(names) <= set(defined):
        raise ValidationError("Invalid KeySchema: Some index key attribute have no definition")
    check_indexes(request)
