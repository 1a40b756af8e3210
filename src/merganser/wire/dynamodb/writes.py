"""PutItem, DeleteItem and UpdateItem: validate, to a step, do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from merganser.model.cluster import Table
from merganser.query.legacy import Change, Check, update_of
from merganser.query.syntax import ExpressionError, Update
from merganser.wire.dynamodb import capacity
from merganser.wire.dynamodb.answers import answer_of
from merganser.wire.dynamodb.attributes import TooLargeError, normalise
from merganser.wire.dynamodb.capacity import Consumption, write_units
from merganser.wire.dynamodb.changes import check_key_changes, read_expressions, step_of
from merganser.wire.dynamodb.collections import metrics_of
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError, detected
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders
from merganser.wire.dynamodb.index_capacity import add_index_writes
from merganser.wire.dynamodb.index_items import check_item
from merganser.wire.dynamodb.items import encoded
from merganser.wire.dynamodb.keys import key_of, key_of_item
from merganser.wire.dynamodb.legacy import changes_in, check_constraints, expected_in
from merganser.wire.dynamodb.session import Session, require_leaders
from merganser.wire.dynamodb.steps import Action, ItemStep, Measured, measured_in
from merganser.wire.dynamodb.tables import definition_of

T = TypeVar("T")

_USUAL: Final = frozenset(("TableName", "Item"))
_LEGACY: Final = ("Expected", "ConditionalOperator")
_CONDITION: Final = ("ConditionExpression",)
_UPDATE: Final = ("UpdateExpression", "ConditionExpression")


class _Place(NamedTuple):
    """Where a request writes."""

    table: Table
    key: bytes
    attributes: Mapping[str, Any]
    """With the primary key among them, in normal form."""


async def put_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Put an item whole, in place of whatever had its key."""
    table = session.known(request)
    # then nothing can be wrong but the item
    is_usual = table is not None and request.keys() <= _USUAL and request.get("Item") is not None
    size, checks = _read(_size_of_item if is_usual else _check_put, request)
    item = request["Item"]
    if table is None:
        table = await session.table(request["TableName"])
    definition = definition_of(table)
    key = key_of_item(definition.schema, table.id, item)
    if table.indexes or definition.local_indexes:
        check_item(table, item)
    stored = encoded(item, size)
    if is_usual or _is_plain(request, checks):
        await session.replace(table, key, stored)
        return b"{}"
    step = step_of(request, Action.PUT, item=stored, checks=checks, measures=capacity.is_wanted(request))
    return await _do(session, request, _Place(table, key, item), step)


async def delete_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Delete the item of a key, if there is one."""
    checks = _read(_check_delete, request)
    table = session.known(request) or await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    if _is_plain(request, checks):
        await session.replace(table, key, None)
        return b"{}"
    step = step_of(request, Action.DELETE, checks=checks, measures=capacity.is_wanted(request))
    return await _do(session, request, _Place(table, key, request["Key"]), step)


async def update_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Change attributes of the item of a key, which is made if there is none."""
    update, changes, checks = _read(_check_update, request)
    table = session.known(request) or await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    if update is not None:
        check_key_changes(table, update)
    require_leaders(table, "UpdateItem")
    step = step_of(
        request,
        Action.UPDATE,
        key=request["Key"],
        checks=checks,
        changes=changes,
        measures=capacity.is_wanted(request),
    )
    return await _do(session, request, _Place(table, key, request["Key"]), step)


def _read(check: Callable[[dict[str, Any]], T], request: dict[str, Any]) -> T:
    """Return what ``check`` finds in a request, its values brought into normal form.

    Raises:
        ValidationError: it is wrong whatever the table is.
    """
    try:
        return check(request)
    except TooLargeError:
        raise
    except (ValidationError, ExpressionError) as error:
        raise detected(error) from None


def _size_of_item(request: dict[str, Any]) -> tuple[int, tuple[Check, ...]]:
    return normalise(request["Item"]), ()


def _check_put(request: dict[str, Any]) -> tuple[int, tuple[Check, ...]]:
    """Return the size of the item and what is expected."""
    _check(request, "Item")
    size = normalise(request["Item"])
    _check_returns(request)
    checks = expected_in(request)
    check_placeholders(request, names_wrong=False)
    read_expressions(request)
    return size, checks


def _check_delete(request: dict[str, Any]) -> tuple[Check, ...]:
    """Return what is expected."""
    _check(request, "Key")
    normalise(request["Key"])
    _check_returns(request)
    checks = expected_in(request)
    check_placeholders(request, names_wrong=False)
    read_expressions(request)
    return checks


def _check_update(request: dict[str, Any]) -> tuple[Update | None, tuple[Change, ...], tuple[Check, ...]]:
    """Return the update, the AttributeUpdates it is of, if any, and what is expected."""
    _check(request, "Key", expressions=_UPDATE, legacy=("AttributeUpdates", *_LEGACY))
    normalise(request["Key"])
    changes, checks = changes_in(request), expected_in(request)
    check_placeholders(request, names_wrong=False)
    update = update_of(changes) if changes else read_expressions(request)
    return update, changes, checks


def _is_plain(request: Mapping[str, Any], checks: tuple[Check, ...]) -> bool:
    """Tell whether nothing of what is there matters, and nothing is to be told."""
    return (
        request.get("ReturnValues") in (None, "NONE")
        and request.get("ConditionExpression") is None
        and not checks
        and request.get("ReturnConsumedCapacity") is None
        and request.get("ReturnItemCollectionMetrics") is None
    )


async def _do(session: Session, request: Mapping[str, Any], place: _Place, step: ItemStep) -> bytes | list[bytes]:
    table, key, _ = place
    if step.is_blind:
        return await _replace(session, request, place, step)
    condition = "ConditionExpression" if step.condition else "Expected" if step.checks else ""
    require_leaders(table, condition or f"ReturnValues {step.returns}")
    answer = await session.step(table, key, step)
    if step.measures:
        return await _answer(session, request, place, measured_in(answer))
    if request.get("ReturnItemCollectionMetrics") is None:
        return [b'{"Attributes":', answer, b"}"] if answer else b"{}"
    attributes = (b'"Attributes":', answer) if answer else ()
    return answer_of(attributes, await metrics_of(session, request, (table, place.attributes)))


async def _replace(session: Session, request: Mapping[str, Any], place: _Place, step: ItemStep) -> bytes | list[bytes]:
    """Do a step that needs no leader, and tell what the request wants to know of it."""
    item = step.item if step.action is Action.PUT else None
    if step.measures:
        return await _answer(session, request, place, await session.replace_measured(place.table, place.key, item))
    await session.replace(place.table, place.key, item)
    return answer_of(await metrics_of(session, request, (place.table, place.attributes)))


async def _answer(session: Session, request: Mapping[str, Any], place: _Place, measured: Measured) -> list[bytes]:
    attributes = (b'"Attributes":', measured.attributes) if measured.attributes else ()
    consumption = Consumption(place.table.name, write_units(measured.before, measured.after))
    add_index_writes(consumption, place.table, measured.indexes)
    metrics = await metrics_of(session, request, (place.table, place.attributes))
    return answer_of(attributes, capacity.told(request, consumption), metrics)


def _check(
    request: Mapping[str, Any],
    content: str,
    *,
    expressions: tuple[str, ...] = _CONDITION,
    legacy: tuple[str, ...] = _LEGACY,
) -> None:
    violations = Violations()
    violations.enums(
        request,
        "ReturnConsumedCapacity",
        "ReturnItemCollectionMetrics",
        "ReturnValues",
        "ReturnValuesOnConditionCheckFailure",
        "ConditionalOperator",
    )
    check_constraints(violations, request)
    violations.table_name(request)
    violations.required(request, content)
    violations.settle()
    check_parameters(request, expressions=expressions, legacy=legacy, with_values=expressions)


def _check_returns(request: Mapping[str, Any]) -> None:
    if request.get("ReturnValues") not in (None, "NONE", "ALL_OLD"):
        raise ValidationError("ReturnValues can only be ALL_OLD or NONE")
