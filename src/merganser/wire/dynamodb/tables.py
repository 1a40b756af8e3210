"""Tables: what CreateTable accepts, what is kept of it, and how a table is described.

The definition travels in the cluster map as msgpack, opaque to everything but this wire. Of what
DynamoDB describes, ``ItemCount`` and ``TableSizeBytes`` are left out: nothing counts them yet.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from merganser.model.cluster import Replication, Table
from merganser.wire.dynamodb.constraints import Violations, require_table_name
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.keys import KeyAttribute, KeySchema
from merganser.wire.dynamodb.unserved import refuse_unserved

UNITS_MAX: Final = 1_000_000_000_000
TAGS_MAX: Final = 50
REPLICATION_TAG: Final = "merganser:replication"
LEADERLESS_TAG: Final = f"{REPLICATION_TAG} = leaderless"
"""As errors name it."""

_INVALID = "One or more parameter values were invalid: "


class Throughput(msgspec.Struct, frozen=True):
    """Provisioned capacity: kept and described, not enforced."""

    read_units: int
    write_units: int


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
    tags: tuple[tuple[str, str], ...] = ()

    def encoded(self) -> bytes:
        """Return the bytes for `model.cluster.Table.definition`."""
        return msgspec.msgpack.encode(self)


@functools.lru_cache(maxsize=4096)  # tables live long, and every request needs its own
def definition_of(table: Table) -> TableDefinition:
    """Return the definition of a table."""
    return msgspec.msgpack.decode(table.definition, type=TableDefinition)


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
    _check_tags(request.get("Tags") or ())


def definition_for(request: Mapping[str, Any], *, created_ms: int) -> TableDefinition:
    """Return the definition that a checked CreateTable asks for."""
    kinds = {one["AttributeName"]: one["AttributeType"] for one in request["AttributeDefinitions"]}
    keys = [KeyAttribute(one["AttributeName"], kinds[one["AttributeName"]]) for one in request["KeySchema"]]
    units = request.get("ProvisionedThroughput")
    return TableDefinition(
        schema=KeySchema(*keys),
        created_ms=created_ms,
        throughput=Throughput(int(units["ReadCapacityUnits"]), int(units["WriteCapacityUnits"])) if units else None,
        is_protected=bool(request.get("DeletionProtectionEnabled")),
        table_class=request.get("TableClass"),
        tags=tuple((tag["Key"], tag["Value"]) for tag in request.get("Tags") or ()),
    )


def replication_for(request: Mapping[str, Any]) -> Replication:
    """Return the protocol that a checked CreateTable asks for."""
    tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}
    return "leaderless" if tags.get(REPLICATION_TAG) == "leaderless" else "leader"


def describe(table: Table, *, status: str, region: str, account: str) -> dict[str, Any]:
    """Return the TableDescription of a table.

    Args:
        table: a table of this wire.
        status: CREATING, ACTIVE or DELETING.
        region: for the ARN.
        account: for the ARN.
    """
    definition = definition_of(table)
    created_s = definition.created_ms / 1000
    units = definition.throughput or Throughput(0, 0)
    description: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": one.name, "AttributeType": one.kind}
            for one in sorted(definition.schema.attributes, key=lambda attribute: attribute.name)
        ],
        "TableName": table.name,
        "KeySchema": [
            {"AttributeName": one.name, "KeyType": kind}
            for one, kind in zip(definition.schema.attributes, ("HASH", "RANGE"), strict=False)
        ],
        "TableStatus": status,
        "CreationDateTime": created_s,
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0,
            "ReadCapacityUnits": units.read_units,
            "WriteCapacityUnits": units.write_units,
        },
        "TableArn": f"arn:aws:dynamodb:{region}:{account}:table/{table.name}",
        "TableId": table.unique_id,
        "DeletionProtectionEnabled": definition.is_protected,
    }
    if definition.throughput is None:
        summary: dict[str, Any] = {"BillingMode": "PAY_PER_REQUEST"}
        if status != "CREATING":
            summary["LastUpdateToPayPerRequestDateTime"] = created_s
        description["BillingModeSummary"] = summary
    if definition.table_class:
        description["TableClassSummary"] = {"TableClass": definition.table_class}
    return description


def _constraints(request: Mapping[str, Any]) -> None:
    violations = Violations()
    violations.table_pattern(request)
    if violations.required(request, "AttributeDefinitions"):
        _element_constraints(violations, request["AttributeDefinitions"], "attributeDefinitions", "AttributeType")
    if violations.required(request, "KeySchema"):
        schema = request["KeySchema"]
        violations.length(_shown(schema), len(schema), "keySchema", least=1, most=2)
        _element_constraints(violations, schema, "keySchema", "KeyType")
    violations.enums(request, "BillingMode", "TableClass")
    units = request.get("ProvisionedThroughput")
    if units is not None:
        for name in ("ReadCapacityUnits", "WriteCapacityUnits"):
            violations.required(units, name, "provisionedThroughput.")
            violations.between(units, name, least=1, prefix="provisionedThroughput.")
    for number, tag in enumerate(request.get("Tags") or (), start=1):
        for name in ("Key", "Value"):
            violations.required(tag or {}, name, f"tags.{number}.member.")
    violations.settle()


def _element_constraints(violations: Violations, elements: Any, at: str, kind: str) -> None:
    for number, element in enumerate(elements, start=1):
        prefix = f"{at}.{number}.member."
        if violations.required(element or {}, "AttributeName", prefix):
            name = element["AttributeName"]
            violations.length(name, len(name), prefix + "attributeName", least=1, most=255)
        if violations.required(element or {}, kind, prefix):
            violations.enum(element, kind, prefix)


def _shown(schema: Any) -> str:
    """Print a key schema as DynamoDB's Java does."""
    elements = (
        f"KeySchemaElement(attributeName={one.get('AttributeName')}, keyType={one.get('KeyType')})" for one in schema
    )
    return f"[{', '.join(elements)}]"


def _billing(request: Mapping[str, Any]) -> None:
    units = request.get("ProvisionedThroughput")
    if request.get("BillingMode") == "PAY_PER_REQUEST":
        if units is not None:
            raise ValidationError(
                f"{_INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is "
                "PAY_PER_REQUEST"
            )
        return
    if units is None:
        raise ValidationError(
            f"{_INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
        )
    for name in ("ReadCapacityUnits", "WriteCapacityUnits"):
        if units[name] > UNITS_MAX:
            raise ValidationError(f"Given value {int(units[name])} for {name} is out of bounds")


def _key_schema(request: Mapping[str, Any]) -> None:
    schema = request["KeySchema"]
    names = [one["AttributeName"] for one in schema]
    defined = [one["AttributeName"] for one in request["AttributeDefinitions"]]
    if schema[0]["KeyType"] != "HASH":
        raise ValidationError("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
    if len(schema) == 2:
        if schema[1]["KeyType"] != "RANGE":
            raise ValidationError("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
        if names[0] == names[1]:
            raise ValidationError("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    if len(set(defined)) != len(defined):
        raise ValidationError("Cannot have two attributes with the same name")
    if not set(names) <= set(defined):
        raise ValidationError("Invalid KeySchema: Some index key attribute have no definition")
    for name in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        if request.get(name) is not None:
            if not request[name]:
                raise ValidationError(f"{_INVALID}List of {name} is empty")
            refuse_unserved("CreateTable", request, name)
    if len(defined) != len(names):
        raise ValidationError(
            f"{_INVALID}Number of attributes in KeySchema does not exactly match number of attributes defined in "
            "AttributeDefinitions"
        )


def _check_tags(tags: Any) -> None:
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) != len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValidationError(f"{_INVALID}Duplicate Tag keys: {repeated}")
    if len(keys) > TAGS_MAX:
        raise ValidationError(f"{_INVALID}Too many Tags: a table has at most {TAGS_MAX}")
    for tag in tags:
        if tag["Key"] == REPLICATION_TAG and tag["Value"] not in get_args(Replication):
            raise ValidationError(
                f"{_INVALID}The tag {REPLICATION_TAG} is {tag['Value']!r}, and can be leader, which it is without the "
                "tag, or leaderless"
            )
