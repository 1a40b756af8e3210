"""The older conditions and changes, as the trees that expressions become: they are what the same expression says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.evaluation import holds
from merganser.query.legacy import Change, Check, condition_of, key_conditions_of, update_of
from merganser.query.update import updated
from query.attribute_values import attribute_value, item_of, ordered, values

ITEM = {"a": {"N": "5"}, "s": {"S": "hello"}, "set": {"NS": ["1", "2"]}, "l": {"L": [{"S": "x"}]}}
ONE, FIVE, NINE = {"N": "1"}, {"N": "5"}, {"N": "9"}


@pytest.mark.parametrize(
    ("attribute", "operator", "operands", "is_held"),
    [
        ("a", "EQ", [FIVE], True),
        ("a", "EQ", [{"S": "5"}], False),
        ("gone", "EQ", [FIVE], False),
        ("a", "NE", [ONE], True),
        ("a", "NE", [FIVE], False),
        ("gone", "NE", [FIVE], True),
        ("a", "LT", [FIVE], False),
        ("a", "LE", [FIVE], True),
        ("a", "GT", [ONE], True),
        ("a", "GE", [NINE], False),
        ("gone", "LT", [NINE], False),
        ("a", "BETWEEN", [ONE, FIVE], True),
        ("s", "BETWEEN", [{"S": "i"}, {"S": "j"}], False),
        ("a", "IN", [ONE, FIVE], True),
        ("a", "IN", [ONE], False),
        ("gone", "IN", [ONE], False),
        ("s", "BEGINS_WITH", [{"S": "he"}], True),
        ("s", "BEGINS_WITH", [{"S": "el"}], False),
        ("s", "CONTAINS", [{"S": "el"}], True),
        ("set", "CONTAINS", [ONE], True),
        ("set", "CONTAINS", [NINE], False),
        ("l", "CONTAINS", [{"S": "x"}], True),
        ("set", "NOT_CONTAINS", [NINE], True),
        ("set", "NOT_CONTAINS", [ONE], False),
        ("gone", "NOT_CONTAINS", [ONE], True),
        ("a", "NOT_CONTAINS", [ONE], True),
        ("a", "NULL", [], False),
        ("gone", "NULL", [], True),
        ("a", "NOT_NULL", [], True),
        ("gone", "NOT_NULL", [], False),
        ("l[0]", "NOT_NULL", [], False),
    ],
)
def test_operator_says_of_an_attribute(attribute: str, operator: str, operands: list[Any], is_held: bool) -> None:
    assert holds(condition_of([Check(attribute, operator, tuple(operands))]), ITEM) is is_held


def test_an_attribute_is_called_by_its_whole_name() -> None:
    assert holds(condition_of([Check("a.b[0]", "EQ", (ONE,))]), {"a.b[0]": ONE})


@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_all_checks_must_hold_or_any(number: int, failing: int) -> None:
    checks = [Check("a" if at >= failing else "gone", "NOT_NULL") for at in range(number)]
    assert holds(condition_of(checks), ITEM) is (failing == 0)
    assert holds(condition_of(checks, any_of=True), ITEM) is (failing < number)


def test_thousands_of_checks_are_evaluated() -> None:
    assert holds(condition_of([Check("a", "EQ", (FIVE,))] * 5000), ITEM)
    assert not holds(condition_of([Check("a", "EQ", (ONE,))] * 5000, any_of=True), ITEM)


TEXTS = {
    "EQ": "#a = :0",
    "NE": "#a <> :0",
    "LT": "#a < :0",
    "LE": "#a <= :0",
    "GT": "#a > :0",
    "GE": "#a >= :0",
    "CONTAINS": "contains(#a, :0)",
    "NOT_CONTAINS": "NOT contains(#a, :0)",
}


@given(st.sampled_from(sorted(TEXTS)), ordered, st.dictionaries(st.just("a"), values, max_size=1))
def test_operators_are_those_of_expressions(operator: str, native: Any, natives: dict[str, Any]) -> None:
    operand, item = attribute_value(native), item_of(natives)
    expression = expressions.condition(TEXTS[operator], Placeholders({"#a": "a"}, {":0": operand}))
    assert holds(condition_of([Check("a", operator, (operand,))]), item) == holds(expression, item)


@pytest.mark.parametrize(
    ("change", "becomes"),
    [
        (Change("a", "PUT", ONE), {"a": ONE}),
        (Change("new", "PUT", {"NULL": True}), {"new": {"NULL": True}}),
        (Change("a", "ADD", ONE), {"a": {"N": "6"}}),
        (Change("new", "ADD", ONE), {"new": ONE}),
        (Change("set", "ADD", {"NS": ["2", "3"]}), {"set": {"NS": ["1", "2", "3"]}}),
        (Change("l", "ADD", {"L": [ONE]}), {"l": {"L": [{"S": "x"}, ONE]}}),
        (Change("new", "ADD", {"L": [ONE]}), {"new": {"L": [ONE]}}),
        (Change("a", "DELETE"), {"a": None}),
        (Change("new", "DELETE"), {}),
        (Change("set", "DELETE", {"NS": ["2", "3"]}), {"set": {"NS": ["1"]}}),
        (Change("set", "DELETE", {"NS": ["1", "2"]}), {"set": None}),
        (Change("new", "DELETE", {"NS": ["1", "2"]}), {}),
    ],
)
def test_change_makes_of_an_item(change: Change, becomes: dict[str, Any]) -> None:
    after = {name: value for name, value in {**ITEM, **becomes}.items() if value is not None}
    assert updated(update_of([change]), ITEM, bytes_max=1000) == after


def test_changes_are_done_together() -> None:
    update = update_of([Change("a", "DELETE"), Change("s", "PUT", ONE), Change("n", "ADD", ONE)])
    assert updated(update, ITEM, bytes_max=1000) == {"s": ONE, "set": ITEM["set"], "l": ITEM["l"], "n": ONE}


def test_operators_that_no_key_condition_has_keep_their_names() -> None:
    conditions = key_conditions_of([Check("p", "EQ", (ONE,)), Check("s", "NE", (ONE,))])
    assert {name: one.operator for name, one in conditions.items()} == {"p": "=", "s": "NE"}
