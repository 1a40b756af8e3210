"""GetItem: the stored bytes of an item, handed to the socket as they are, or the part of it that is asked for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from merganser.model.cluster import Table
from merganser.wire.dynamodb import capacity
from merganser.wire.dynamodb.answers import answer_of, joined
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.capacity import Consumption, read_units
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders
from merganser.wire.dynamodb.items import json_of, size_of
from merganser.wire.dynamodb.keys import key_of
from merganser.wire.dynamodb.legacy import check_names
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.views import View, projection_of

_LEGACY = ("AttributesToGet",)
_USUAL = frozenset(("TableName", "Key", "ConsistentRead"))


def get_item(
    session: Session, request: dict[str, Any]
) -> bytes | list[bytes] | Coroutine[Any, Any, bytes | list[bytes]]:
    """Return the item of a key, or nothing if there is none; at once if it is here."""
    table = session.known(request) if request.keys() <= _USUAL else None
    if table is None or request.get("Key") is None:
        return _get_checked(session, request)
    normalise(request["Key"])  # nothing more can be wrong
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    is_consistent = bool(request.get("ConsistentRead"))
    found = session.item_at_once(table, key, is_consistent=is_consistent)
    return _get_waiting(session, table, key, is_consistent=is_consistent) if found is None else _shown(found)


async def _get_waiting(session: Session, table: Table, key: bytes, *, is_consistent: bool) -> bytes | list[bytes]:
    return _shown(await session.item(table, key, is_consistent=is_consistent))


def _shown(item: bytes | None) -> bytes | list[bytes]:
    return joined(b'{"Item":', json_of(item), b"}") if item else b"{}"


async def _get_checked(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """As `get_item`, of a request of which anything may be asked, or wrong."""
    view = _checked(request)
    table = await session.table(request["TableName"])
    key = key_of(definition_of(table).schema, table.id, request["Key"])
    view.check_keys(table)
    is_consistent = bool(request.get("ConsistentRead"))
    item = await session.item(table, key, is_consistent=is_consistent)
    shown = None if item is None else view.of(item)
    if not capacity.is_wanted(request):
        return b"{}" if shown is None else joined(b'{"Item":', shown, b"}")
    units = read_units(0 if item is None else size_of(item), is_consistent=is_consistent)
    item_member = () if shown is None else (b'"Item":', shown)
    return answer_of(item_member, capacity.told(request, Consumption(table.name, units)))


def _checked(request: dict[str, Any]) -> View:
    """Check a request as far as that can be without its table, and return what it asks to see.

    Raises:
        ValidationError: something is wrong.
    """
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity")
    check_names(violations, request)
    violations.table_name(request)
    violations.required(request, "Key")
    violations.settle()
    check_parameters(request, expressions=("ProjectionExpression",), legacy=_LEGACY)
    normalise(request["Key"])
    check_placeholders(request, has_values=False)
    return projection_of(request)
