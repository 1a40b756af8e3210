"""Query: the items of one partition key of a table or index, in the order of their sort keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merganser.query.binding import Placeholders
from merganser.query.key_condition import AttributeCondition, key_conditions
from merganser.query.legacy import key_conditions_of
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders, placeholders_of
from merganser.wire.dynamodb.key_schemas import KeyAttribute
from merganser.wire.dynamodb.legacy import checks_in
from merganser.wire.dynamodb.looking import looking_at
from merganser.wire.dynamodb.pages import (
    answer,
    check_listed,
    check_start_and_select,
    read_page,
)
from merganser.wire.dynamodb.session import Session, Span
from merganser.wire.dynamodb.sources import OPERATORS, Source, source_of
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
    source = source_of(await session.table(request["TableName"]), request, now_ms=session.now_ms)
    start_key = request.get("ExclusiveStartKey")
    key = None if start_key is None else source.at(start_key)
    prefix, span = _span(source, conditions, reverse=request.get("ScanIndexForward") is False)
    if key is not None:
        _check_start(prefix, span, key)
        span = span.beyond(key)
    view.check_keys(source.table, unfiltered=(*source.partition, *source.sort))
    looking = looking_at(source, request, view)
    page = await read_page(session, source, span, request, looking)
    if source.index is None and not source.sort:
        page = page._replace(last=None)  # there cannot be a second item, and DynamoDB says so
    return answer(page, source, request)


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
    check_placeholders(request)
    placeholders = placeholders_of(request)
    view = view_of(request, placeholders)
    return _key_conditions(request, placeholders), view if older is WHOLE else older


def _key_conditions(request: Mapping[str, Any], placeholders: Placeholders) -> Conditions:
    if request.get("KeyConditionExpression") is not None:
        return key_conditions(request["KeyConditionExpression"], placeholders)
    placeholders.check_all_used()
    conditions = key_conditions_of(checks_in(request, "KeyConditions"))
    if not conditions or (len(conditions) > 2 and request.get("IndexName") is None):  # of an index `_span` knows more
        raise ValidationError(_ONE_OR_TWO)
    return conditions


def _span(source: Source, conditions: Conditions, *, reverse: bool) -> tuple[bytes, Span]:
    """Return what the conditions on the partition key choose, and what all of them do.

    Raises:
        ValidationError: they do not fit the key schema.
    """
    partition, sort = source.partition, source.sort
    if len(conditions) > max(2, len(partition) + len(sort)):
        raise ValidationError(_ONE_OR_TWO if len(partition) == 1 and len(sort) < 2 else _NOT_SUPPORTED)
    for attribute in partition:
        _check_partition(attribute, conditions)
    values = [conditions[attribute.name].operands[0] for attribute in partition]
    ranged = _sort_conditions(sort, conditions, len(conditions) - len(partition))
    prefix = source.prefix(values)
    equal = [condition.operands[0] for condition in ranged[:-1]]
    operator, operands = (ranged[-1].operator, ranged[-1].operands) if ranged else ("", ())
    start, end = source.narrowed(prefix, equal, operator, operands)
    return prefix, Span(start, end, reverse)


def _check_partition(attribute: KeyAttribute, conditions: Conditions) -> None:
    condition = conditions.get(attribute.name)
    if condition is None:
        raise ValidationError(f"Query condition missed key schema element: {attribute.name}")
    _check_kinds(attribute, condition)
    if condition.operator != "=":
        raise ValidationError(_NOT_SUPPORTED)


def _sort_conditions(sort: Sequence[KeyAttribute], conditions: Conditions, count: int) -> list[AttributeCondition]:
    """Return the conditions on the first ``count`` sort attributes; all but the last are for equality.

    Raises:
        ValidationError: there are others.
    """
    if count > len(sort):
        raise ValidationError(_NOT_SUPPORTED)
    found: list[AttributeCondition] = []
    for attribute in sort[:count]:
        condition = conditions.get(attribute.name)
        if condition is None:
            raise ValidationError(f"Query condition missed key schema element: {attribute.name}")
        if found and found[-1].operator != "=":
            raise ValidationError(_NOT_SUPPORTED)
        _check_kinds(attribute, condition)
        found.append(condition)
    return found


def _check_kinds(attribute: KeyAttribute, condition: AttributeCondition) -> None:
    if condition.operator not in OPERATORS:
        raise ValidationError("Attempted conditional constraint is not an indexable operation")
    if any(attribute.kind not in operand for operand in condition.operands):
        raise ValidationError(_TYPE_MISMATCH)


def _check_start(prefix: bytes, span: Span, key: bytes) -> None:
    if not key.startswith(prefix):
        raise ValidationError("The provided starting key is outside query boundaries based on provided conditions")
    if not span.start <= key < span.end:
        raise ValidationError("The provided starting key does not match the range key predicate")
