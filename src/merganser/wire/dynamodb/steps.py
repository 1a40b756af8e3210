"""What a request does to one item of a leader-based table: as it travels to the leader, and evaluated there.

A payload is one byte and what follows::

    P  the stored form of an item   put it, whatever is there: the most common write, and nothing to decode
    D                               delete the item, whatever is there
    S  an `ItemStep` in msgpack     all else

The answer of a step that was done is the JSON of the attributes that the request wants back, or nothing; if the step
measures, a `Measured` in msgpack that holds it. That of a step that was rejected is a `Rejection` in msgpack. Only a
request that cannot be understood at all raises: what an item makes impossible is an answer like any other, which a
transaction has to hear of, too.

Expressions travel as their text, with the names and values of the request; the older parameters as `query.legacy` has
them. Whoever sent them has read them before and
refused what is wrong whatever the item is; the leader reads them again, and remembers texts it has parsed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.register import EMPTY, Content, Decided
from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.documents import projected
from merganser.query.evaluation import holds
from merganser.query.legacy import TYPE_MISMATCH, Change, Check, condition_of, update_of
from merganser.query.syntax import Condition, Update
from merganser.query.update import WRONG_TYPE, removes_only, updated
from merganser.wire.dynamodb.attributes import ITEM_BYTES_MAX, AttributeMap
from merganser.wire.dynamodb.errors import CONDITION_FAILED, ApiError, ValidationError
from merganser.wire.dynamodb.index_capacity import index_writes
from merganser.wire.dynamodb.index_items import check_updated
from merganser.wire.dynamodb.items import attributes_of, encoded, json_of, remeasured, size_of

_PUT, _DELETE, _STEP = b"PDS"


class Action(enum.IntEnum):
    """What a step does to its item."""

    PUT = 1
    DELETE = 2
    CHECK = 3
    """Nothing: it only has a condition."""
    UPDATE = 4


class ItemStep(msgspec.Struct, frozen=True, array_like=True):
    """A step that needs more than the item to put; new members go to the end, with defaults."""

    action: Action
    item: bytes = b""
    """Of a put: the stored form."""
    returns: str = "NONE"
    """ReturnValues."""
    key: dict[str, Any] = {}
    """Of an update: the key attributes, for an item that it makes."""
    update: str = ""
    """UpdateExpression; empty, and no ``changes``: the item is only to be there."""
    condition: str = ""
    """ConditionExpression; empty: none."""
    names: dict[str, str] = {}
    """ExpressionAttributeNames."""
    values: dict[str, Any] = {}
    """ExpressionAttributeValues, in normal form."""
    shows_failed: bool = False
    """ReturnValuesOnConditionCheckFailure is ALL_OLD."""
    measures: bool = False
    """The request wants to know what it consumed."""
    checks: tuple[Check, ...] = ()
    """Expected."""
    any_of: bool = False
    """ConditionalOperator is OR: one of the checks is enough."""
    changes: tuple[Change, ...] = ()
    """AttributeUpdates."""

    def measured(self) -> ItemStep:
        """Return the same step, measuring."""
        return self if self.measures else msgspec.structs.replace(self, measures=True)

    @property
    def is_blind(self) -> bool:
        """Tell whether nothing of what is there matters to it."""
        is_whole = self.action in (Action.PUT, Action.DELETE)
        return is_whole and self.returns == "NONE" and not self.condition and not self.checks


class Measured(msgspec.Struct, frozen=True, array_like=True):
    """The answer of a step that measures; new members go to the end, with defaults."""

    before: int
    """Size of the item as it was, 0 if there was none."""
    after: int
    """Size of the item as it is, 0 if there is none."""
    attributes: bytes = b""
    """JSON of what the request wants back, or nothing."""
    indexes: dict[str, float] = {}
    """Units that the secondary indexes of the table took, by name."""


class Reason(enum.IntEnum):
    """Why a step was rejected."""

    CONDITION = 1
    VALIDATION = 2
    """It cannot be done to the item as it is."""


class ConditionFailedError(ApiError):
    """The condition of a write did not hold."""

    def __init__(self, message: str, members: Mapping[str, Any] | None, size: int) -> None:
        """Keep the size of the item, by which it is to be paid for."""
        super().__init__(CONDITION_FAILED, message, members)
        self.size = size


class Rejection(msgspec.Struct, frozen=True, array_like=True):
    """The answer of a step that was not done."""

    reason: Reason
    message: str
    """DynamoDB's text."""
    item: bytes | None = None
    """JSON of the item, if there is one and the request wanted to see it."""
    size: int = 0
    """Of the item that was looked at, 0 if there is none."""

    def error(self) -> ApiError:
        """Return what the client is told."""
        if self.reason is Reason.VALIDATION:
            return ValidationError(self.message)
        members = None if self.item is None else {"Item": orjson.Fragment(self.item)}
        return ConditionFailedError(self.message, members, self.size)


DELETING: Final = bytes((_DELETE,))
"""Delete the item, whatever is there."""

CONDITION_TEXT: Final = "The conditional request failed"
_DELETED = Decided(EMPTY)
_NOTHING_THERE = Decided(None)
_NO_UPDATE = Update(())
_ENCODER = msgspec.msgpack.Encoder()
_STEPS = msgspec.msgpack.Decoder(ItemStep)
_REJECTIONS = msgspec.msgpack.Decoder(Rejection)
_MEASURED = msgspec.msgpack.Decoder(Measured)


def putting(item: bytes) -> bytes:
    """Return the payload that puts an item, in stored form, whatever is there."""
    return b"P" + item


def payload_of(step: ItemStep) -> bytes:
    """Return the payload of any other step."""
    return b"S" + _ENCODER.encode(step)


def step_in(payload: bytes) -> ItemStep:
    """Return the step of a payload that was made here."""
    if payload == DELETING:
        return ItemStep(Action.DELETE)
    if payload[0] == _PUT:
        return ItemStep(Action.PUT, payload[1:])
    return _STEPS.decode(memoryview(payload)[1:])


def rejected(rejection: Rejection) -> Decided:
    """Return what a step comes to that is not done."""
    return Decided(None, _ENCODER.encode(rejection), is_rejected=True)


def rejection_in(answer: bytes) -> Rejection:
    """Return why a step was rejected."""
    return _REJECTIONS.decode(answer)


def measured_in(answer: bytes) -> Measured:
    """Return what a step that measures came to."""
    return _MEASURED.decode(answer)


def evaluate(table: Table, payload: bytes, current: bytes | None) -> Decided:
    """Return what becomes of an item; the `service.steps.Evaluator` of this wire.

    Args:
        table: its table.
        payload: what to do.
        current: the item in stored form, None if there is none.

    Raises:
        RequestError: the payload is none that this release understands.
    """
    kind = payload[0] if payload else 0
    if kind == _PUT:
        return Decided(Content(payload[1:]))
    if kind == _DELETE:
        return _NOTHING_THERE if current is None else _DELETED
    if kind != _STEP:
        raise RequestError(f"a step of kind {kind}, which this release does not know: run the same on all nodes")
    try:
        step = _STEPS.decode(memoryview(payload)[1:])
    except msgspec.DecodeError as error:
        raise RequestError(f"a step that this release cannot read ({error}): run the same on all nodes") from None
    try:
        decided = _evaluate(table, step, current)
        return _measured(table, decided, current) if step.measures and not decided.is_rejected else decided
    except RequestError as error:
        return rejected(Rejection(Reason.VALIDATION, str(error)))


def _measured(table: Table, decided: Decided, current: bytes | None) -> Decided:
    after = current if decided.content is None else decided.content.value
    before_size, after_size = (0 if item is None else size_of(item) for item in (current, after))
    measured = Measured(before_size, after_size, decided.answer, index_writes(table, current, after))
    return Decided(decided.content, _ENCODER.encode(measured))


def _evaluate(table: Table, step: ItemStep, current: bytes | None) -> Decided:
    is_looked_into = step.condition or step.checks or step.action is Action.UPDATE
    item = attributes_of(current) if is_looked_into and current is not None else {}
    placeholders = Placeholders(step.names, step.values)
    condition = _condition(step, placeholders)
    if condition is not None and not holds(condition, item):
        shown = json_of(current) if step.shows_failed and current is not None else None
        size = 0 if current is None else size_of(current)
        return rejected(Rejection(Reason.CONDITION, CONDITION_TEXT, shown, size))
    if step.action is Action.UPDATE:
        return _updated(table, step, _update(step, placeholders), current, item)
    answer = json_of(current) if current is not None and step.returns == "ALL_OLD" else b""
    if step.action is Action.PUT:
        return Decided(Content(step.item), answer)
    if step.action is Action.DELETE and current is not None:
        return Decided(EMPTY, answer)
    return Decided(None, answer)


def _condition(step: ItemStep, placeholders: Placeholders) -> Condition | None:
    if step.condition:
        return expressions.condition(step.condition, placeholders)
    return condition_of(step.checks, any_of=step.any_of) if step.checks else None


def _update(step: ItemStep, placeholders: Placeholders) -> Update:
    if step.update:
        return expressions.update(step.update, placeholders)
    return update_of(step.changes) if step.changes else _NO_UPDATE


def _updated(table: Table, step: ItemStep, update: Update, current: bytes | None, item: AttributeMap) -> Decided:
    try:
        after = updated(update, item, bytes_max=ITEM_BYTES_MAX)
        if current is None and removes_only(update):
            return _NOTHING_THERE
        changed = dict.fromkeys([str(action.path.parts[0]) for action in update.actions])
        if current is None:
            after = {**step.key, **after}
            changed = dict.fromkeys(after)
        size = remeasured(after, item, 0 if current is None else size_of(current), changed)
        check_updated(table, after, changed)
        stored = encoded(after, size)
    except RequestError as error:
        message = TYPE_MISMATCH if step.changes and str(error) == WRONG_TYPE else str(error)
        return rejected(Rejection(Reason.VALIDATION, message))
    content = None if stored == current else Content(stored)
    match step.returns:
        case "ALL_OLD":
            return Decided(content, b"" if current is None else json_of(current))
        case "ALL_NEW":
            return Decided(content, json_of(stored))
        case "UPDATED_OLD" | "UPDATED_NEW":
            shown = projected(
                item if step.returns == "UPDATED_OLD" else after, [action.path for action in update.actions]
            )
            return Decided(content, orjson.dumps(shown) if shown else b"")
        case _:
            return Decided(content)
