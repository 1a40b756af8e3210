"""Query: the items of one partition key, in the order of their sort keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from merganser.model.cluster import Table
from merganser.query.binding import Placeholders
from merganser.query.key_condition import AttributeCondition, key_conditions
from merganser.query.legacy import key_conditions_of
from merganser.storage.keys import after, prefix_end
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, placeholders_of
from merganser.wire.dynamodb.keys import KeyAttribute, KeySchema, partition_bytes, prefix_of, sort_bytes
from merganser.wire.dynamodb.legacy import checks_in
from merganser.wire.dynamodb.pages import (
    Span,
    answer,
    check_index,
    check_listed,
    check_start_and_select,
    read_page,
    starting_key,
)
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.views import WHOLE, View, legacy_view_of, view_of

_EXPRESSIONS = ("ProjectionExpression", "FilterExpression", "KeyConditionExpression")
_VALUED = ("FilterExpression", "KeyConditionExpression")
_LEGACY = ("AttributesToGet", "QueryFilter", "ConditionalOperator")

_ONE_OR_TWO = "Conditions can be of length 1 or 2 only"
_NOT_SUPPORTED = "Query key condition not supported"
_TYPE_MISMATCH = "One or more parameter values were invalid: Condition parameter type does not match schema type"

Conditions = Mapping[str, AttributeCondition]


async def query(session: Session, request: dict[str, Any]) -> list[bytes]:
    """Return a page of the items that the key condition chooses."""
    conditions, view = _check(request)
    table = await session.table(request["TableName"])
    check_index(request)
    schema = definition_of(table).schema
    start_key = request.get("ExclusiveStartKey")
    key = None if start_key is None else starting_key(schema, table, start_key)
    span = _span(schema, table, conditions, reverse=request.get("ScanIndexForward") is False)
    if key is not None:
        _check_start(schema, table, conditions, span, key)
        span = span.beyond(key)
    view.check_keys(schema, filters_keys=False)
    page = await read_page(session, table, span, request, view)
    if schema.sort is None:
        page = page._replace(last=None)  # there cannot be a second item, and DynamoDB says so
    return answer(page, table, request)


def _check(request: Mapping[str, Any]) -> tuple[Conditions, View]:
    violations = Violations()
    check_listed(violations, request)
    violations.settle()
    legacy = _LEGACY if request.get("KeyConditionExpression") is None else (*_LEGACY, "KeyConditions")
    check_parameters(request, expressions=_EXPRESSIONS, legacy=legacy, with_values=_VALUED)
    older = legacy_view_of(request, "QueryFilter")
    check_start_and_select(request)
    if request.get("KeyConditionExpression") is None and request.get("KeyConditions") is None:
        raise ValidationError(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
        )
    placeholders = placeholders_of(request)
    view = view_of(request, placeholders)
    return _key_conditions(request, placeholders), view if older is WHOLE else older


def _key_conditions(request: Mapping[str, Any], placeholders: Placeholders) -> Conditions:
    if request.get("KeyConditionExpression") is not None:
        return key_conditions(request["KeyConditionExpression"], placeholders)
    placeholders.check_all_used()
    conditions = key_conditions_of(checks_in(request, "KeyConditions"))
    if not 1 <= len(conditions) <= 2:
        raise ValidationError(_ONE_OR_TWO)
    return conditions


def _span(schema: KeySchema, table: Table, conditions: Conditions, *, reverse: bool) -> Span:
    """Return the rows that the conditions choose.

    Raises:
        ValidationError: they do not fit the key schema.
    """
    partition = _partition_condition(schema, conditions)
    sort = _sort_condition(schema, conditions)
    prefix = prefix_of(table.id, partition_bytes(schema.partition, partition.operands[0]))
    if schema.sort is None or sort is None:
        return Span(prefix, prefix_end(prefix), reverse)
    bounds = [sort_bytes(schema.sort, operand) for operand in sort.operands]
    start, end = _BOUNDS[sort.operator](prefix, *bounds)
    return Span(start, end, reverse)


def _partition_condition(schema: KeySchema, conditions: Conditions) -> AttributeCondition:
    name = schema.partition.name
    if len(conditions) > 2:
        raise ValidationError(_ONE_OR_TWO)
    if name not in conditions:
        raise ValidationError(f"Query condition missed key schema element: {name}")
    _check_kinds(schema.partition, conditions[name])
    if conditions[name].operator != "=":
        raise ValidationError(_NOT_SUPPORTED)
    return conditions[name]


def _sort_condition(schema: KeySchema, conditions: Conditions) -> AttributeCondition | None:
    if len(conditions) == 1:
        return None
    if schema.sort is None:
        raise ValidationError(_NOT_SUPPORTED)
    if schema.sort.name not in conditions:
        raise ValidationError(f"Query condition missed key schema element: {schema.sort.name}")
    condition = conditions[schema.sort.name]
    _check_kinds(schema.sort, condition)
    return condition


def _check_kinds(attribute: KeyAttribute, condition: AttributeCondition) -> None:
    if condition.operator not in _BOUNDS:
        raise ValidationError("Attempted conditional constraint is not an indexable operation")
    if any(attribute.kind not in operand for operand in condition.operands):
        raise ValidationError(_TYPE_MISMATCH)


def _check_start(schema: KeySchema, table: Table, conditions: Conditions, span: Span, key: bytes) -> None:
    operand = conditions[schema.partition.name].operands[0]
    if not key.startswith(prefix_of(table.id, partition_bytes(schema.partition, operand))):
        raise ValidationError("The provided starting key is outside query boundaries based on provided conditions")
    if not span.start <= key < span.end:
        raise ValidationError("The provided starting key does not match the range key predicate")


def _equal(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return prefix + bound, after(prefix + bound)


def _less(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return prefix, prefix + bound


def _at_most(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return prefix, after(prefix + bound)


def _greater(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return after(prefix + bound), prefix_end(prefix)


def _at_least(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return prefix + bound, prefix_end(prefix)


def _between(prefix: bytes, low: bytes, high: bytes) -> tuple[bytes, bytes]:
    return prefix + low, after(prefix + high)


def _begins_with(prefix: bytes, bound: bytes) -> tuple[bytes, bytes]:
    return prefix + bound, prefix_end(prefix + bound)


_BOUNDS: Final[Mapping[str, Callable[..., tuple[bytes, bytes]]]] = {
    "=": _equal,
    "<": _less,
    "<=": _at_most,
    ">": _greater,
    ">=": _at_least,
    "BETWEEN": _between,
    "begins_with": _begins_with,
}
