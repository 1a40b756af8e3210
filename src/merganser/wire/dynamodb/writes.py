"""PutItem and DeleteItem: validate, to mutation, write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, refuse, refuse_unless_none
from merganser.wire.dynamodb.items import DELETION, measured, storage
from merganser.wire.dynamodb.keys import key_of, key_of_item
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.tables import definition_of

_LEGACY = ("Expected", "ConditionalOperator")


async def put_item(session: Session, request: dict[str, Any]) -> bytes:
    """Put an item whole, in place of whatever had its key."""
    _check(request, "Item")
    item = request["Item"]
    size = measured(item)
    _refuse(request)
    table = await session.table(request["TableName"])
    key = key_of_item(definition_of(table).schema, table.id, item)
    await session.write(table, key, storage(item, size))
    return b"{}"


async def delete_item(session: Session, request: dict[str, Any]) -> bytes:
    """Delete the item of a key, if there is one."""
    _check(request, "Key")
    normalise(request["Key"])
    _refuse(request)
    table = await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    await session.write(table, key, DELETION)
    return b"{}"


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
        "ReturnValues",
        "ReturnConsumedCapacity",
        "ReturnItemCollectionMetrics",
        "ReturnValuesOnConditionCheckFailure",
    )
