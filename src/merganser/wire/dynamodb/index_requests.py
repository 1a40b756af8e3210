"""Secondary indexes as CreateTable asks for them: what is wrong with them, and their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from merganser.wire.dynamodb.constraints import Violations, key_schema_violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.key_schemas import KeyAttribute
from merganser.wire.dynamodb.secondary_indexes import ATTRIBUTES_MAX, IndexDefinition, Projection
from merganser.wire.dynamodb.table_settings import (
    INVALID,
    Throughput,
    check_on_demand_limits,
    check_settings,
    check_units,
    check_warmth,
    on_demand_limits_of,
    throughput_violations,
    units_of,
    warm_throughput_of,
)

LOCAL_MAX: Final = 5
GLOBAL_MAX: Final = 20
NON_KEY_ATTRIBUTES_MAX: Final = 20
"""Of one index."""
PROJECTED_MAX: Final = 100
"""NonKeyAttributes of all indexes of a table together."""

SAME_NAME: Final = "Both the Hash Key and the Range Key element in the KeySchema have the same name"
FIRST_NOT_HASH: Final = "Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
SECOND_NOT_RANGE: Final = "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"


class _Kind(NamedTuple):
    parameter: str
    elements_max: int
    """Of a KeySchema."""
    too_many: str


TOO_MANY_GLOBAL: Final = f"{INVALID}GlobalSecondaryIndex count exceeds the per-table limit of {GLOBAL_MAX}"
_LOCAL: Final = _Kind(
    "LocalSecondaryIndexes",
    2,
    f"{INVALID}Number of LocalSecondaryIndexes exceeds per-table limit of {LOCAL_MAX}",
)
_GLOBAL: Final = _Kind(
    "GlobalSecondaryIndexes",
    2 * ATTRIBUTES_MAX,
    TOO_MANY_GLOBAL,
)


def find_index_violations(violations: Violations, request: Mapping[str, Any]) -> None:
    """Add what is wrong with the indexes of a CreateTable by the API's model."""
    for kind in _LOCAL, _GLOBAL:
        at = kind.parameter[0].lower() + kind.parameter[1:]
        for number, index in enumerate(request.get(kind.parameter) or (), start=1):
            violations_of_index(violations, index or {}, f"{at}.{number}.member.", elements_max=kind.elements_max)


def violations_of_index(
    violations: Violations, index: Mapping[str, Any], at: str, *, elements_max: int = 2 * ATTRIBUTES_MAX
) -> None:
    """Add what is wrong with an index to be made."""
    index_name_violations(violations, index, at)
    if violations.required(index, "KeySchema", at):
        key_schema_violations(violations, index["KeySchema"], f"{at}keySchema", most=elements_max)
    if violations.required(index, "Projection", at):
        projection = index["Projection"]
        violations.enum(projection, "ProjectionType", f"{at}projection.")
        names = projection.get("NonKeyAttributes")
        if names is not None:
            shown = f"[{', '.join(map(str, names))}]"
            where = f"{at}projection.nonKeyAttributes"
            violations.length(shown, len(names), where, least=1, most=NON_KEY_ATTRIBUTES_MAX)
            for number, name in enumerate(names, start=1):
                violations.length(name, len(name or ""), f"{where}.{number}.member", least=1, most=255)
    throughput_violations(violations, index.get("ProvisionedThroughput"), f"{at}provisionedThroughput.")


def index_name_violations(violations: Violations, index: Mapping[str, Any], at: str) -> None:
    """Add what is wrong with an IndexName that has to be there."""
    if violations.required(index, "IndexName", at):
        violations.name(index["IndexName"], f"{at}indexName")


def check_indexes(request: Mapping[str, Any]) -> None:
    """Check the indexes of a CreateTable whose own key schema is right.

    Raises:
        ValidationError: in DynamoDB's words and order.
    """
    local, others = request.get(_LOCAL.parameter), request.get(_GLOBAL.parameter)
    defined = [one["AttributeName"] for one in request["AttributeDefinitions"]]
    if local is None and others is None and len(defined) != len(request["KeySchema"]):
        raise ValidationError(
            f"{INVALID}Number of attributes in KeySchema does not exactly match number of attributes defined in "
            "AttributeDefinitions"
        )
    names: set[str] = set()
    if local is not None:
        _check_local(request, local, defined, names)
    if others is not None:
        _check_listed(_GLOBAL, others)
        for index in others:
            check_global(index, defined, is_on_demand=request.get("BillingMode") == "PAY_PER_REQUEST")
            _check_name(index, names)
        if len(others) > GLOBAL_MAX:
            raise ValidationError(_GLOBAL.too_many)
    indexes = [*(local or ()), *(others or ())]
    used = [element["AttributeName"] for one in (request, *indexes) for element in one["KeySchema"]]
    check_all_used(defined, used)
    check_projected([len(index["Projection"].get("NonKeyAttributes") or ()) for index in indexes])


def check_projected(counts: Sequence[int]) -> None:
    """Check how many attributes the indexes of a table include.

    Raises:
        ValidationError: too many.
    """
    if sum(counts) > PROJECTED_MAX:
        raise ValidationError(
            f"{INVALID}Number of NonKeyAttributes over all secondary indexes exceeds the per-table limit of "
            f"{PROJECTED_MAX}"
        )


def check_all_used(defined: Sequence[str], used: Sequence[str]) -> None:
    """Check that each attribute that is defined is one of a key.

    Raises:
        ValidationError: one is not.
    """
    if not set(defined) <= set(used):
        raise ValidationError(
            f"{INVALID}Some AttributeDefinitions are not used. AttributeDefinitions: [{', '.join(defined)}], "
            f"keys used: [{', '.join(dict.fromkeys(used))}]"
        )


def check_global(index: Mapping[str, Any], defined: Sequence[str], *, is_on_demand: bool) -> None:
    """Check a global index to be made, whatever others there are.

    Raises:
        ValidationError: in DynamoDB's words and order.
    """
    schema, name = index["KeySchema"], index["IndexName"]
    _check_defined(schema, defined)
    kinds = [element["KeyType"] for element in schema]
    _check_distinct(schema)
    if kinds[0] != "HASH":
        raise ValidationError(FIRST_NOT_HASH)
    if kinds != sorted(kinds):
        raise ValidationError(f"{INVALID}A HASH key element comes after a RANGE key element for index: {name}")
    for kind in ("HASH", "RANGE"):
        if kinds.count(kind) > ATTRIBUTES_MAX:
            raise ValidationError(
                f"{INVALID}Number of {kind} key elements exceeds the limit of {ATTRIBUTES_MAX} for index: {name}"
            )
    _check_projection(index["Projection"])
    check_throughput(index, is_on_demand=is_on_demand)


def check_throughput(index: Mapping[str, Any], *, is_on_demand: bool, is_new: bool = True) -> None:
    """Check that a global index says as much of its throughput as the billing mode of its table wants.

    Raises:
        ValidationError: less, or more.
    """
    units, name = index.get("ProvisionedThroughput"), index["IndexName"]
    if is_on_demand and units is not None:
        raise ValidationError(
            f"{INVALID}ProvisionedThroughput should not be specified for index: {name} when BillingMode is "
            "PAY_PER_REQUEST"
        )
    if is_new and not is_on_demand and units is None:
        raise ValidationError(f"{INVALID}ProvisionedThroughput is not specified for index: {name}")
    if units is not None:
        check_units(units)
    settings = {key: index.get(key) for key in ("OnDemandThroughput", "WarmThroughput")}
    check_settings(settings)
    check_on_demand_limits(settings, is_on_demand=is_on_demand)
    if is_new:
        throughput = None if units is None else Throughput(units["ReadCapacityUnits"], units["WriteCapacityUnits"])
        check_warmth(settings, f"index {name}", throughput=throughput, before=None)


def local_definitions(request: Mapping[str, Any]) -> tuple[IndexDefinition, ...]:
    """Return the local indexes that a checked CreateTable asks for."""
    return tuple(
        index_definition(index, request["AttributeDefinitions"]) for index in request.get(_LOCAL.parameter) or ()
    )


def global_definitions(request: Mapping[str, Any]) -> tuple[IndexDefinition, ...]:
    """Return the global indexes that a checked CreateTable asks for."""
    return tuple(
        index_definition(index, request["AttributeDefinitions"]) for index in request.get(_GLOBAL.parameter) or ()
    )


def index_definition(index: Mapping[str, Any], defined: Sequence[Mapping[str, str]]) -> IndexDefinition:
    """Return the definition of a checked index.

    Args:
        index: as it is asked for.
        defined: AttributeDefinitions, with all of its key attributes.
    """
    kinds = {one["AttributeName"]: one["AttributeType"] for one in defined}
    attributes: dict[str, list[KeyAttribute]] = {"HASH": [], "RANGE": []}
    for element in index["KeySchema"]:
        name = element["AttributeName"]
        attributes[element["KeyType"]].append(KeyAttribute(name, kinds[name]))
    units, projection = units_of(index), index["Projection"]
    return IndexDefinition(
        index["IndexName"],
        tuple(attributes["HASH"]),
        tuple(attributes["RANGE"]),
        Projection(projection["ProjectionType"], tuple(projection.get("NonKeyAttributes") or ())),
        throughput=None if units is None else Throughput(*units),
        on_demand_limits=on_demand_limits_of(index, None),
        warm=warm_throughput_of(index, None),
    )


def _check_local(
    request: Mapping[str, Any], indexes: Sequence[Mapping[str, Any]], defined: Sequence[str], names: set[str]
) -> None:
    _check_listed(_LOCAL, indexes)
    if len(request["KeySchema"]) != 2:
        raise ValidationError(
            f"{INVALID}Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex"
        )
    table_hash = request["KeySchema"][0]["AttributeName"]
    for index in indexes:
        schema, name = index["KeySchema"], index["IndexName"]
        _check_defined(schema, defined)
        _check_distinct(schema)
        if schema[0]["KeyType"] != "HASH":
            raise ValidationError(FIRST_NOT_HASH)
        if len(schema) == 1:
            raise ValidationError(f"{INVALID}Index KeySchema does not have a range key for index: {name}")
        if schema[1]["KeyType"] != "RANGE":
            raise ValidationError(SECOND_NOT_RANGE)
        own_hash = schema[0]["AttributeName"]
        if own_hash != table_hash:
            raise ValidationError(
                f"{INVALID}Index KeySchema does not have the same leading hash key as table KeySchema for index: "
                f"{name}. index hash key: {own_hash}, table hash key: {table_hash}"
            )
        _check_projection(index["Projection"])
        _check_name(index, names)
    if len(indexes) > LOCAL_MAX:
        raise ValidationError(_LOCAL.too_many)


def _check_listed(kind: _Kind, indexes: Sequence[Mapping[str, Any]]) -> None:
    if not indexes:
        raise ValidationError(f"{INVALID}List of {kind.parameter} is empty")


def _check_defined(schema: Sequence[Mapping[str, str]], defined: Sequence[str]) -> None:
    names = [element["AttributeName"] for element in schema]
    if not set(names) <= set(defined):
        raise ValidationError(
            f"{INVALID}Some index key attributes are not defined in AttributeDefinitions. Keys: [{', '.join(names)}], "
            f"AttributeDefinitions: [{', '.join(defined)}]"
        )


def _check_distinct(schema: Sequence[Mapping[str, str]]) -> None:
    names = [element["AttributeName"] for element in schema]
    if len(set(names)) != len(names):
        raise ValidationError(SAME_NAME)


def _check_projection(projection: Mapping[str, Any]) -> None:
    kind, names = projection.get("ProjectionType"), projection.get("NonKeyAttributes")
    if kind is None:
        raise ValidationError(f"{INVALID}Unknown ProjectionType: null")
    if names is not None and kind != "INCLUDE":
        raise ValidationError(f"{INVALID}ProjectionType is {kind}, but NonKeyAttributes is specified")
    if names is None and kind == "INCLUDE":
        raise ValidationError(f"{INVALID}ProjectionType is INCLUDE, but NonKeyAttributes is not specified")


def _check_name(index: Mapping[str, Any], names: set[str]) -> None:
    if index["IndexName"] in names:
        raise ValidationError(f"{INVALID}Duplicate index name: {index['IndexName']}")
    names.add(index["IndexName"])
