"""TransactWriteItems and TransactGetItems: up to 100 items of any tables with leaders, all or none, at one instant.

What is wrong with a request is refused before anything is done, as in a batch. What is wrong with one item alone, its
key, its condition, what an update makes of it, or another transaction that holds it, cancels the whole, and the answer
says for each item what it had to do with that.

A repeated request is known by its ClientRequestToken, which SDKs draw by themselves. Within ten minutes it is done
once, and any other request under the token is refused. Tables are told apart by their ids: one that was deleted and
made again has none of the writes. A token all of whose tables are gone is as good as new.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from merganser.model.cluster import Table
from merganser.model.errors import TransactionCanceledError
from merganser.model.transaction import Reason, ReasonKind
from merganser.query.syntax import Update
from merganser.service.transactions import TransactItem
from merganser.wire.dynamodb import capacity
from merganser.wire.dynamodb.answers import answer_of
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.capacity import Consumptions, Split, transact_read_units, transact_write_units
from merganser.wire.dynamodb.changes import check_key_changes, read_expressions, step_of
from merganser.wire.dynamodb.collections import metrics_of_all
from merganser.wire.dynamodb.constraints import Violations, shown
from merganser.wire.dynamodb.errors import CONFLICT_TEXT, TRANSACTION_CANCELED, ApiError, ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders
from merganser.wire.dynamodb.index_capacity import add_index_writes
from merganser.wire.dynamodb.index_items import check_item
from merganser.wire.dynamodb.items import TURN_BYTES, encoded, size_of
from merganser.wire.dynamodb.keys import check_filled, key_of, key_of_item
from merganser.wire.dynamodb.session import Session, require_leaders
from merganser.wire.dynamodb.steps import DELETING, Action, Rejection, measured_in, payload_of, putting, rejection_in
from merganser.wire.dynamodb.steps import Reason as Rejected
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.views import projection_of

ITEMS_MAX: Final = 100
BYTES_MAX: Final = 4 * 1024 * 1024
TOKEN_LENGTH_MAX: Final = 36

_NOT_ONE: Final = "TransactItems can only contain one of Check, Put, Update or Delete"
_SAME_ITEM: Final = "Transaction request cannot include multiple operations on one item"
_TOO_LARGE: Final = "The aggregate size of the items in the transaction exceeds 4 MB"


T = TypeVar("T")
M = TypeVar("M")


class _Kind(NamedTuple):
    action: Action
    required: tuple[str, ...]
    expressions: tuple[str, ...] = ("ConditionExpression",)

    @property
    def content(self) -> str:
        """Item or Key."""
        return self.required[0]


_KINDS: Final[Mapping[str, _Kind]] = {
    "ConditionCheck": _Kind(Action.CHECK, ("Key", "TableName", "ConditionExpression")),
    "Put": _Kind(Action.PUT, ("Item", "TableName")),
    "Delete": _Kind(Action.DELETE, ("Key", "TableName")),
    "Update": _Kind(
        Action.UPDATE, ("Key", "UpdateExpression", "TableName"), ("UpdateExpression", "ConditionExpression")
    ),
}


class _Part(NamedTuple):
    """What a request wants done to one item."""

    kind: _Kind
    request: dict[str, Any]
    size: int
    """Of the item or key, in normal form."""
    update: Update | None


async def transact_write_items(session: Session, request: dict[str, Any]) -> bytes | list[bytes]:
    """Put, delete, update and check up to 100 items, all of them or none."""
    _check_writes(request)
    parts = [await _part(one) for one in request["TransactItems"]]
    if sum(part.size for part in parts) > BYTES_MAX:
        raise ValidationError(_TOO_LARGE)
    tables = [await _table(session, part.request, "TransactWriteItems") for part in parts]
    measures = capacity.is_wanted(request)
    items = _each(functools.partial(_item, measures=measures), tables, parts)
    _refuse_same([(item.table.id, item.key) for item in items])
    token = request.get("ClientRequestToken")
    try:
        answers = await session.transact(
            items, token=None if token is None else token.encode(), digest=_digest_of(request, tables)
        )
    except TransactionCanceledError as error:
        raise _cancelled([_told(reason) for reason in error.reasons]) from None
    if not measures and request.get("ReturnItemCollectionMetrics") is None:
        return b"{}"
    written = [
        (table, part.request[part.kind.content])
        for table, part in zip(tables, parts, strict=True)
        if part.kind.action is not Action.CHECK
    ]
    consumed = await _consumed(session, request, items, answers) if measures else ()
    return answer_of(consumed, await metrics_of_all(session, request, written))


async def transact_get_items(session: Session, request: dict[str, Any]) -> list[bytes]:
    """Get up to 100 items as they were at one instant."""
    _check_reads(request)
    gets = [one["Get"] for one in request["TransactItems"]]
    for get in gets:
        check_parameters(get, expressions=("ProjectionExpression",))
        normalise(get["Key"])
        check_filled(get["Key"])
        check_placeholders(get, has_values=False)
    views = [projection_of(get) for get in gets]
    tables = [await _table(session, get, "TransactGetItems") for get in gets]
    places = list(zip(tables, _each(_key, tables, gets), strict=True))
    for table, view in zip(tables, views, strict=True):
        view.check_keys(table)
    _refuse_same([(table.id, key) for table, key in places])
    try:
        found = await session.snapshot(places)
    except TransactionCanceledError as error:
        raise _cancelled([_told(reason) for reason in error.reasons]) from None
    if sum(size_of(item) for item in found if item is not None) > BYTES_MAX:
        raise ValidationError(_TOO_LARGE)
    shown = [None if item is None else view.of(item) for item, view in zip(found, views, strict=True)]
    answers = [b"{}" if one is None else b'{"Item":%b}' % one for one in shown]
    responses = (b'"Responses":[', b",".join(answers), b"]")
    return answer_of(responses, _read_consumed(tables, found).told(request, Split.READ))


async def _consumed(
    session: Session, request: Mapping[str, Any], items: Sequence[TransactItem], answers: Sequence[bytes]
) -> Sequence[bytes]:
    """Return the member that tells what a transaction consumed; one that had happened before only reads."""
    if not all(answers):
        found = await session.items_of(items)
        return _read_consumed([item.table for item in items], found).told(request, Split.READ)
    consumed = Consumptions()
    for item, answer in zip(items, answers, strict=True):
        measured = measured_in(answer)
        consumption = consumed.of(item.table.name)
        consumption.units += transact_write_units(measured.before, measured.after)
        add_index_writes(consumption, item.table, measured.indexes)
    return consumed.told(request, Split.WRITE)


def _read_consumed(tables: Sequence[Table], found: Sequence[bytes | None]) -> Consumptions:
    consumed = Consumptions()
    for table, item in zip(tables, found, strict=True):
        consumed.of(table.name).units += transact_read_units(0 if item is None else size_of(item))
    return consumed


def _check_writes(request: Mapping[str, Any]) -> None:
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity", "ReturnItemCollectionMetrics")
    for at, one in _elements(violations, request):
        for name, kind in _KINDS.items():
            part = one.get(name)
            if part is not None:
                prefix = f"{at}{name[0].lower()}{name[1:]}."
                for member in kind.required:
                    violations.required(part, member, prefix)
                violations.enum(part, "ReturnValuesOnConditionCheckFailure", prefix)
    token = request.get("ClientRequestToken")
    if token is not None:
        violations.length(token, len(token), "clientRequestToken", least=1, most=TOKEN_LENGTH_MAX)
    violations.settle()


def _check_reads(request: Mapping[str, Any]) -> None:
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity")
    for at, one in _elements(violations, request):
        if violations.required(one, "Get", at):
            for member in ("Key", "TableName"):
                violations.required(one["Get"], member, f"{at}get.")
    violations.settle()


def _elements(violations: Violations, request: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the elements of TransactItems, and how messages call what is in them."""
    if not violations.required(request, "TransactItems"):
        return []
    items = request["TransactItems"]
    if not 1 <= len(items) <= ITEMS_MAX:
        violations.length(shown(items), len(items), "transactItems", least=1, most=ITEMS_MAX)
    return [(f"transactItems.{number}.member.", one or {}) for number, one in enumerate(items, start=1)]


async def _part(one: Mapping[str, Any] | None) -> _Part:
    """Bring one element into normal form, and check what can be checked without its table."""
    given = [(kind, (one or {}).get(name)) for name, kind in _KINDS.items()]
    wanted = [(kind, part) for kind, part in given if part is not None]
    if len(wanted) != 1:
        raise ValidationError(_NOT_ONE)
    ((kind, part),) = wanted
    check_parameters(part, expressions=kind.expressions, with_values=kind.expressions)
    size = normalise(part[kind.content])
    if kind.content == "Key":
        check_filled(part["Key"])
    values_size = check_placeholders(part)
    update = read_expressions(part)
    if size + values_size > TURN_BYTES:
        await asyncio.sleep(0)
    return _Part(kind, part, size, update)


async def _table(session: Session, part: Mapping[str, Any], operation: str) -> Table:
    table = await session.table(part["TableName"])
    require_leaders(table, operation)
    return table


def _each(make: Callable[[Table, M], T], tables: Sequence[Table], parts: Sequence[M]) -> list[T]:
    """Make something of each part.

    Raises:
        ApiError: some do not fit their tables, and the transaction is cancelled.
    """
    made: list[T] = []
    reasons: list[Mapping[str, Any] | None] = []
    for table, part in zip(tables, parts, strict=True):
        try:
            made.append(make(table, part))
            reasons.append(None)
        except ValidationError as error:
            reasons.append({"Code": "ValidationError", "Message": error.message})
    if any(reasons):
        raise _cancelled(reasons)
    return made


def _key(table: Table, part: Mapping[str, Any]) -> bytes:
    return key_of(definition_of(table).schema, table.id, part["Key"])


def _item(table: Table, part: _Part, *, measures: bool) -> TransactItem:
    request, action = part.request, part.kind.action
    is_plain = request.get("ConditionExpression") is None and not measures
    if action is Action.PUT:
        key = key_of_item(definition_of(table).schema, table.id, request["Item"])
        check_item(table, request["Item"])
        item = encoded(request["Item"], part.size)
        if is_plain:
            return TransactItem(table, key, putting(item))
        return TransactItem(table, key, payload_of(step_of(request, action, item=item, measures=measures)))
    key = _key(table, request)
    if action is Action.DELETE and is_plain:
        return TransactItem(table, key, DELETING)
    if action is Action.UPDATE:
        assert part.update is not None, "its UpdateExpression is required"
        check_key_changes(table, part.update)
        return TransactItem(table, key, payload_of(step_of(request, action, key=request["Key"], measures=measures)))
    step = step_of(request, action, measures=measures)
    return TransactItem(table, key, payload_of(step), is_check=action is Action.CHECK)


def _refuse_same(places: Sequence[tuple[int, bytes]]) -> None:
    if len(set(places)) != len(places):
        raise ValidationError(_SAME_ITEM)


def _digest_of(request: Mapping[str, Any], tables: Sequence[Table]) -> bytes:
    """Return what tells a repeated request from another one: its items, in normal form, and the ids of its tables."""
    told = [[table.id for table in tables], request["TransactItems"]]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()


def _told(reason: Reason | None) -> Mapping[str, Any] | None:
    """Return what the client is told of one item, None if it is not to blame."""
    if reason is None:
        return None
    if reason.kind is ReasonKind.CONFLICT:
        return {"Code": "TransactionConflict", "Message": CONFLICT_TEXT}
    rejection: Rejection = rejection_in(reason.answer)
    if rejection.reason is Rejected.VALIDATION:
        return {"Code": "ValidationError", "Message": rejection.message}
    told: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": rejection.message}
    if rejection.item is not None:
        told["Item"] = orjson.Fragment(rejection.item)
    return told


def _cancelled(reasons: Sequence[Mapping[str, Any] | None]) -> ApiError:
    told = [reason or {"Code": "None"} for reason in reasons]
    codes = ", ".join(reason["Code"] for reason in told)
    return ApiError(
        TRANSACTION_CANCELED,
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        {"CancellationReasons": told},
    )
