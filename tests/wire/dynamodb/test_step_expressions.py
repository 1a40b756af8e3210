"""What conditions and updates make of an item, at its leader."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Decided
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.items import attributes_of, encoded, size_of
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.steps import Action, ItemStep, Reason, Rejection, evaluate, payload_of, rejection_in
from merganser.wire.dynamodb.tables import TableDefinition

DEFINITION = TableDefinition(KeySchema(KeyAttribute("p", "S")), created_ms=0, throughput=None, is_protected=False)
TABLE = Table(TableId(1), "t", "dynamodb", 3, DEFINITION.encoded(), "u", "leader")
KEY = {"p": {"S": "k"}}


def stored(**attributes: Any) -> bytes:
    item = {**KEY, **attributes}
    return encoded(item, normalise(item))


OLD = stored(a={"N": "1"}, m={"M": {"x": {"S": "old"}, "y": {"L": [{"N": "1"}, {"N": "2"}]}}})
NOTHING_THERE = Rejection(Reason.CONDITION, "The conditional request failed")
CONDITION = msgspec.structs.replace(NOTHING_THERE, size=size_of(OLD))


def done(step: ItemStep, current: bytes | None = OLD) -> Decided:
    decided = evaluate(TABLE, payload_of(step), current)
    assert not decided.is_rejected, rejection_in(decided.answer)
    return decided


def refused(step: ItemStep, current: bytes | None = OLD) -> Rejection:
    decided = evaluate(TABLE, payload_of(step), current)
    assert decided.is_rejected
    assert decided.content is None
    return rejection_in(decided.answer)


def updating(update: str, returns: str = "NONE", **values: Any) -> ItemStep:
    return ItemStep(
        Action.UPDATE,
        key=KEY,
        update=update,
        returns=returns,
        values={f":{name}": value for name, value in values.items()},
    )


def content_of(decided: Decided) -> dict[str, Any]:
    assert decided.content is not None
    assert decided.content.value is not None
    item = attributes_of(decided.content.value)
    assert decided.content.value == stored(**item)
    return item


@pytest.mark.parametrize("action", list(Action))
def test_a_step_whose_condition_fails_is_not_done(action: Action) -> None:
    step = ItemStep(action, item=OLD, key=KEY, condition="a = :v", values={":v": {"N": "2"}}, returns="ALL_OLD")
    assert refused(step) == CONDITION
    assert refused(step, None) == NOTHING_THERE


@pytest.mark.parametrize(
    ("action", "content"),
    [(Action.PUT, Content(b"\0\0\0\5{}")), (Action.DELETE, EMPTY), (Action.CHECK, None), (Action.UPDATE, None)],
)
def test_a_step_whose_condition_holds_is_done(action: Action, content: Content | None) -> None:
    step = ItemStep(action, item=b"\0\0\0\5{}", condition="#a = :v", names={"#a": "a"}, values={":v": {"N": "1"}})
    assert done(step) == Decided(content)


def test_a_condition_on_nothing_sees_no_attributes() -> None:
    assert done(ItemStep(Action.PUT, OLD, condition="attribute_not_exists(p)"), None) == Decided(Content(OLD))
    assert refused(ItemStep(Action.PUT, OLD, condition="attribute_not_exists(p)")) == CONDITION


def test_an_item_that_fails_a_condition_is_shown_to_whoever_asks() -> None:
    step = ItemStep(Action.DELETE, condition="attribute_not_exists(p)", shows_failed=True)
    assert refused(step).item == OLD[4:]
    assert refused(ItemStep(Action.DELETE, condition="attribute_exists(p)", shows_failed=True), None) == NOTHING_THERE


def test_an_update_changes_what_it_names_and_keeps_the_rest() -> None:
    item = content_of(done(updating("SET a = a + :v, m.x = :v REMOVE m.y[0]", v={"N": "2"})))
    assert item == {**KEY, "a": {"N": "3"}, "m": {"M": {"x": {"N": "2"}, "y": {"L": [{"N": "2"}]}}}}


def test_an_update_brings_results_into_normal_form_and_counts_their_size() -> None:
    item = stored(n={"N": "1" + "0" * 20}, s={"NS": ["2", "10"]})
    decided = done(updating("ADD n :n, s :s", n={"N": "-1"}, s={"NS": ["3"]}), item)
    result = content_of(decided)
    assert result == {**KEY, "n": {"N": "9" * 20}, "s": {"NS": ["2", "3", "10"]}}
    assert decided.content is not None
    assert size_of(decided.content.value or b"") == normalise(dict(result))


def test_an_update_of_nothing_makes_an_item_of_the_key() -> None:
    assert content_of(done(updating("SET a = :v", v={"N": "2"}), None)) == {**KEY, "a": {"N": "2"}}
    assert content_of(done(updating(""), None)) == KEY


def test_an_update_that_only_takes_away_makes_no_item() -> None:
    assert done(updating("REMOVE a", returns="ALL_NEW"), None) == Decided(None)


def test_an_update_that_changes_nothing_writes_nothing() -> None:
    assert done(updating("")) == Decided(None)
    assert done(updating("SET a = a", returns="ALL_NEW")) == Decided(None, OLD[4:])


@pytest.mark.parametrize(
    ("returns", "answer"),
    [
        ("NONE", None),
        ("ALL_OLD", attributes_of(OLD)),
        ("UPDATED_OLD", {"m": {"M": {"y": {"L": [{"N": "2"}]}}}, "a": {"N": "1"}}),
        (
            "ALL_NEW",
            {**KEY, "m": {"M": {"x": {"S": "old"}, "y": {"L": [{"N": "1"}, {"N": "9"}]}}}, "b": {"N": "9"}},
        ),
        ("UPDATED_NEW", {"m": {"M": {"y": {"L": [{"N": "9"}]}}}, "b": {"N": "9"}}),
    ],
)
def test_an_update_returns_what_is_asked_for(returns: str, answer: Any) -> None:
    decided = done(updating("SET m.y[1] = :v, b = :v REMOVE a", returns, v={"N": "9"}))
    assert (orjson.loads(decided.answer) if decided.answer else None) == answer


def test_updated_values_of_an_item_that_was_not_there() -> None:
    assert done(updating("SET b = :v", "UPDATED_OLD", v={"N": "9"}), None).answer == b""
    assert done(updating("SET b = :v", "ALL_OLD", v={"N": "9"}), None).answer == b""
    assert done(updating("SET b = :v", "UPDATED_NEW", v={"N": "9"}), None).answer == b'{"b":{"N":"9"}}'


@pytest.mark.parametrize(
    ("update", "value", "message"),
    [
        (
            "SET b = b + :v",
            {"N": "1"},
            "The provided expression refers to an attribute that does not exist in the item",
        ),
        ("SET b.c = :v", {"N": "1"}, "The document path provided in the update expression is invalid for update"),
        ("ADD m :v", {"N": "1"}, "An operand in the update expression has an incorrect data type"),
        ("SET b = :v", {"S": "x" * 400 * 1024}, "Item size to update has exceeded the maximum allowed size"),
        (
            "SET a = a + :v",
            {"N": "1" + "0" * 38},
            "Attempting to store more than 38 significant digits in a Number",
        ),
    ],
)
def test_an_update_that_the_item_is_not_made_for_is_rejected(update: str, value: Any, message: str) -> None:
    assert refused(updating(update, v=value)) == Rejection(Reason.VALIDATION, message)


def test_an_update_cannot_nest_deeper_than_an_item_may() -> None:
    value: dict[str, Any] = {"N": "1"}
    for _ in range(30):
        value = {"L": [value]}
    assert refused(updating("SET m.y[0] = :v", v=value)).message.startswith("Nesting Levels have exceeded")


def test_a_condition_is_looked_at_before_the_update() -> None:
    step = ItemStep(Action.UPDATE, key=KEY, update="SET b = z", condition="attribute_exists(z)")
    assert refused(step) == CONDITION


def test_an_expression_that_cannot_be_read_is_rejected() -> None:
    rejection = refused(ItemStep(Action.CHECK, condition="a"))
    assert rejection.reason is Reason.VALIDATION
    assert rejection.message.startswith("Invalid ConditionExpression: Syntax error")
