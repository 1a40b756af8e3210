"""GetItem: the stored bytes of an item, handed to the socket as they are."""

from __future__ import annotations

from typing import Any

from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.expressions import check_parameters, refuse, refuse_unless_none
from merganser.wire.dynamodb.items import json_of
from merganser.wire.dynamodb.keys import key_of
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.tables import definition_of

_LEGACY = ("AttributesToGet",)


async def get_item(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Return the item of a key, or nothing if there is none."""
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity")
    violations.table_name(request)
    violations.required(request, "Key")
    violations.settle()
    check_parameters(request, expressions=("ProjectionExpression",), legacy=_LEGACY)
    normalise(request["Key"])
    refuse(request, "ProjectionExpression", *_LEGACY)
    refuse_unless_none(request, "ReturnConsumedCapacity")
    table = await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    item = await session.item(table, key, is_consistent=bool(request.get("ConsistentRead")))
    return b"{}" if item is None else [b'{"Item":', json_of(item), b"}"]
