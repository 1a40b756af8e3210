"""PutItem and DeleteItem: validate, to a step, write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.model.cluster import Table
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, refuse, refuse_unless_none
from merganser.wire.dynamodb.items import encoded, measured
from merganser.wire.dynamodb.keys import key_of, key_of_item
from merganser.wire.dynamodb.session import Session, require_leaders
from merganser.wire.dynamodb.steps import Action, ItemStep
from merganser.wire.dynamodb.tables import definition_of

_LEGACY = ("Expected", "ConditionalOperator")


async def put_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Put an item whole, in place of whatever had its key."""
    _check(request, "Item")
    item = request["Item"]
    size = measured(item)
    _refuse(request)
    table = await session.table(request["TableName"])
    key = key_of_item(definition_of(table).schema, table.id, item)
    stored = encoded(item, size)
    if _is_plain(request):
        await session.replace(table, key, stored)
        return b"{}"
    return await _do(session, table, key, ItemStep(Action.PUT, stored, returns=request["ReturnValues"]))


async def delete_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Delete the item of a key, if there is one."""
    _check(request, "Key")
    normalise(request["Key"])
    _refuse(request)
    table = await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    if _is_plain(request):
        await session.replace(table, key, None)
        return b"{}"
    return await _do(session, table, key, ItemStep(Action.DELETE, returns=request["ReturnValues"]))


def _is_plain(request: Mapping[str, Any]) -> bool:
    """Tell whether nothing of what is there matters."""
    return request.get("ReturnValues") in (None, "NONE")


async def _do(session: Session, table: Table, key: bytes, step: ItemStep) -> bytes | list[bytes]:
    require_leaders(table, f"ReturnValues {step.returns}")
    attributes = await session.step(table, key, step)
    return [b'{"Attributes":', attributes, b"}"] if attributes else b"{}"


def _check(request: Mapping[str, Any], content: str) -> None:
    violations = Violations()
    violations.enums(
        request,
        "ReturnConsumedCapacity",
        "ReturnItemCollectionMetrics",
        "ReturnValues",
        "ReturnValuesOnConditionCheckFailure",
        "ConditionalOperator",
    )
    violations.table_name(request)
    violations.required(request, content)
    violations.settle()
    check_parameters(
        request,
        expressions=("ConditionExpression",),
        legacy=_LEGACY,
        with_values=("ConditionExpression",),
    )
    if request.get("ReturnValues") not in (None, "NONE", "ALL_OLD"):
        raise ValidationError("ReturnValues can only be ALL_OLD or NONE")


def _refuse(request: Mapping[str, Any]) -> None:
    refuse(request, "ConditionExpression", *_LEGACY)
    refuse_unless_none(
        request,
        "ReturnConsumedCapacity",
        "ReturnItemCollectionMetrics",
        "ReturnValuesOnConditionCheckFailure",
    )
