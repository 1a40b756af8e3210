"""UpdateExpressions: what is refused, in DynamoDB's words, and what they make of items."""

from __future__ import annotations

import contextlib
import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.model.errors import RequestError
from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.syntax import ExpressionError, Update
from merganser.query.update import removes_only, updated
from merganser.wire.dynamodb.attributes import ITEM_BYTES_MAX, normalise
from query.attribute_values import NAMES, attribute_value, item_of, items

WRONG_TYPE = "Incorrect operand type for operator or function; "
DATA_TYPE = "An operand in the update expression has an incorrect data type"
MISSING = "The provided expression refers to an attribute that does not exist in the item"
WRONG_PATH = "The document path provided in the update expression is invalid for update"
CLASH = "with each other; must remove or rewrite one of these paths; path one: "


def read(text: str, names: dict[str, str] | None = None, **bound: Any) -> Update:
    placeholders = Placeholders(names or {}, {f":{name}": attribute_value(value) for name, value in bound.items()})
    update = expressions.update(text, placeholders)
    placeholders.check_all_used()
    return update


def after(text: str, item: dict[str, Any], names: dict[str, str] | None = None, **bound: Any) -> dict[str, Any]:
    """Return the item after an update, in normal form; the item before must stay as it is."""
    before = item_of(item)
    kept = copy.deepcopy(before)
    result = updated(read(text, names, **bound), before, bytes_max=ITEM_BYTES_MAX)
    assert before == kept
    normalise(result)
    assert before == kept
    return result


@pytest.mark.parametrize(
    ("text", "item", "bound", "result"),
    [
        ("SET a = :x", {}, {"x": 1}, {"a": 1}),
        ("set a = :x, b = :y", {"a": 9, "c": 3}, {"x": 1, "y": 2}, {"a": 1, "b": 2, "c": 3}),
        ("SET a = b, b = a", {"a": 1, "b": 2}, {}, {"a": 2, "b": 1}),
        ("SET a = (b)", {"b": 2}, {}, {"a": 2, "b": 2}),
        ("SET a = a + :x", {"a": 1}, {"x": 2}, {"a": 3}),
        ("SET a = (a - :x)", {"a": 1}, {"x": 2}, {"a": -1}),
        ("SET a = (a) + (:x)", {"a": 1}, {"x": 2}, {"a": 3}),
        ("SET a = :x + b", {"b": Decimal("0.1")}, {"x": Decimal("0.2")}, {"a": Decimal("0.3"), "b": Decimal("0.1")}),
        ("SET a = a - :x", {"a": Decimal("1E+125")}, {"x": Decimal("1E+125")}, {"a": 0}),
        ("SET a = :x + :y", {}, {"x": Decimal("9E+37"), "y": 1}, {"a": 9 * 10**37 + 1}),
        ("SET a = if_not_exists(a, :x)", {"a": 1}, {"x": 2}, {"a": 1}),
        ("SET a = if_not_exists(a, :x) + :y", {}, {"x": 2, "y": 1}, {"a": 3}),
        ("SET a = if_not_exists(a, if_not_exists(b, :x))", {"b": 1}, {"x": 2}, {"a": 1, "b": 1}),
        ("SET a = list_append(a, :x)", {"a": [1]}, {"x": [2]}, {"a": [1, 2]}),
        ("SET a = list_append(:x, a)", {"a": [1]}, {"x": [2]}, {"a": [2, 1]}),
        ("SET a = list_append(if_not_exists(a, :e), :x)", {}, {"e": [], "x": [2]}, {"a": [2]}),
        ("SET a.b = :x", {"a": {"c": 1}}, {"x": 2}, {"a": {"b": 2, "c": 1}}),
        ("SET a[0].b[1] = :x", {"a": [{"b": [0, 0]}]}, {"x": 2}, {"a": [{"b": [0, 2]}]}),
        ("SET a[1] = :x", {"a": [0, 0, 0]}, {"x": 2}, {"a": [0, 2, 0]}),
        ("SET a[9] = :x, a[5] = :y", {"a": [0]}, {"x": 9, "y": 5}, {"a": [0, 5, 9]}),
        ("SET a[0] = a[1], a[1] = a[0]", {"a": [1, 2]}, {}, {"a": [2, 1]}),
        ("REMOVE a", {"a": 1, "b": 2}, {}, {"b": 2}),
        ("REMOVE a, b.c, d", {"a": 1, "b": {"c": 1}}, {}, {"b": {}}),
        ("REMOVE a[0], a[2], a[7]", {"a": [0, 1, 2, 3]}, {}, {"a": [1, 3]}),
        ("REMOVE a[0] SET a[1] = :x, a[9] = :y", {"a": [0, 1]}, {"x": 5, "y": 6}, {"a": [5, 6]}),
        ("ADD a :x", {}, {"x": 2}, {"a": 2}),
        ("ADD a :x", {"a": 1}, {"x": -2}, {"a": -1}),
        ("ADD a :x", {}, {"x": frozenset({1})}, {"a": frozenset({1})}),
        ("ADD a :x", {"a": frozenset({"b", "c"})}, {"x": frozenset({"a", "b"})}, {"a": frozenset({"a", "b", "c"})}),
        ("ADD a.b :x", {"a": {"b": 1}}, {"x": 2}, {"a": {"b": 3}}),
        ("DELETE a :x", {"a": frozenset({"b", "c"})}, {"x": frozenset({"b", "z"})}, {"a": frozenset({"c"})}),
        ("DELETE a :x", {"a": frozenset({1})}, {"x": frozenset({1, 2})}, {}),
        ("DELETE a :x", {}, {"x": frozenset({1})}, {}),
        ("REMOVE a ADD b :x DELETE c :y SET d = a", {"a": 1}, {"x": 2, "y": frozenset({1})}, {"b": 2, "d": 1}),
    ],
)
def test_update_makes_of_an_item(
    text: str, item: dict[str, Any], bound: dict[str, Any], result: dict[str, Any]
) -> None:
    assert after(text, item, **bound) == item_of(result)


@pytest.mark.parametrize(
    ("text", "item", "bound", "message"),
    [
        ("SET a = b", {}, {}, MISSING),
        ("SET a = b.c", {"b": 1}, {}, MISSING),
        ("SET a = a + :x", {}, {"x": 1}, MISSING),
        ("SET a = list_append(b, :x)", {}, {"x": []}, MISSING),
        ("SET a = if_not_exists(b, c)", {}, {}, MISSING),
        ("SET a = a + :x", {"a": "1"}, {"x": 1}, DATA_TYPE),
        ("SET a = list_append(a, :x)", {"a": "1"}, {"x": []}, DATA_TYPE),
        ("SET a.b = :x", {}, {"x": 1}, WRONG_PATH),
        ("SET a.b = :x", {"a": [1]}, {"x": 1}, WRONG_PATH),
        ("SET a[0] = :x", {"a": {"b": 1}}, {"x": 1}, WRONG_PATH),
        ("SET a[1].b = :x", {"a": [{}]}, {"x": 1}, WRONG_PATH),
        ("SET a.b.c = :x", {"a": {}}, {"x": 1}, WRONG_PATH),
        ("REMOVE a.b", {}, {}, WRONG_PATH),
        ("REMOVE a[0]", {"a": 1}, {}, WRONG_PATH),
        ("ADD a.b :x", {}, {"x": 1}, WRONG_PATH),
        ("ADD a :x", {"a": "1"}, {"x": 1}, DATA_TYPE),
        ("ADD a :x", {"a": frozenset({1})}, {"x": 1}, DATA_TYPE),
        ("ADD a :x", {"a": frozenset({1})}, {"x": frozenset({"1"})}, DATA_TYPE),
        ("DELETE a :x", {"a": frozenset({1})}, {"x": frozenset({"1"})}, DATA_TYPE),
        ("DELETE a :x", {"a": 1}, {"x": frozenset({1})}, DATA_TYPE),
        (
            "SET a = a + :x",
            {"a": Decimal("9E+125")},
            {"x": Decimal("1E+125")},
            "Number overflow. Attempting to store a number with magnitude larger than supported range",
        ),
        (
            "ADD a :x",
            {"a": Decimal("1E+40")},
            {"x": 1},
            "Attempting to store more than 38 significant digits in a Number",
        ),
    ],
)
def test_update_that_an_item_is_not_made_for_is_refused(
    text: str, item: dict[str, Any], bound: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        after(text, item, **bound)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("a = :n", 'Syntax error; token: "a", near: "a ="'),
        ("SET", 'Syntax error; token: "<EOF>", near: "SET"'),
        ("SET a", 'Syntax error; token: "<EOF>", near: "a"'),
        ("SET a :n", 'Syntax error; token: ":n", near: "a :n"'),
        ("SET a = :n,", 'Syntax error; token: "<EOF>", near: ","'),
        ("SET a = :n b = :n", 'Syntax error; token: "b", near: ":n b ="'),
        ("SET a = :n + :n + :n", 'Syntax error; token: "+", near: ":n + :n"'),
        ("SET a = :n * :n", 'Syntax error; token: "*", near: ":n * :n"'),
        ("SET a = -:n", 'Syntax error; token: "-", near: "= -:n"'),
        ("SET :n = a", 'Syntax error; token: ":n", near: "SET :n ="'),
        ("SET f(a) = :n", 'Syntax error; token: "(", near: "f(a"'),
        ("SET a = :n AND b = :n", 'Syntax error; token: "AND", near: ":n AND b"'),
        ("ADD a b", 'Syntax error; token: "b", near: "a b"'),
        ("ADD a = :n", 'Syntax error; token: "=", near: "a = :n"'),
        ("DELETE a", 'Syntax error; token: "<EOF>", near: "a"'),
        ("REMOVE a = :n", 'Syntax error; token: "=", near: "a = :n"'),
        ("UPDATE a = :n", 'Syntax error; token: "UPDATE", near: "UPDATE a"'),
        ("SET a = ((:n))", "The expression has redundant parentheses;"),
        ("SET a = ((:n + :n))", "The expression has redundant parentheses;"),
        ("SET a = :z, name = :z", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("SET a = foo(:z)", "Invalid function name; function: foo"),
        ("SET a = :z SET b = :z", 'The "SET" section can only be used once in an update expression;'),
        ("REMOVE a SET b = :n REMOVE c", 'The "REMOVE" section can only be used once in an update expression;'),
        ("SET a = size(b)", "The function is not allowed in an update expression; function: size"),
        (
            "SET a = :z",
            "An expression attribute value used in expression is not defined; attribute value: :z",
        ),
        (
            "REMOVE #z",
            "An expression attribute name used in the document path is not defined; attribute name: #z",
        ),
        ("SET a = :s + :s, a = :n", f"Two document paths overlap {CLASH}[a], path two: [a]"),
        ("SET a.b[3].c = :n REMOVE a.b", f"Two document paths overlap {CLASH}[a, b, [3], c], path two: [a, b]"),
        ("SET a.b = :n REMOVE a.b[3].c", f"Two document paths overlap {CLASH}[a, b], path two: [a, b, [3], c]"),
        ("SET a.b = :n, a[1] = :n, c = :n REMOVE c", f"Two document paths overlap {CLASH}[c], path two: [c]"),
        ("SET a.b = :n, a[1] = :n", f"Two document paths conflict {CLASH}[a, b], path two: [a, [1]]"),
        (
            "SET a = list_append(a)",
            "Incorrect number of operands for operator or function; "
            "operator or function: list_append, number of operands: 1",
        ),
        (
            "SET a = if_not_exists(:n, a)",
            "Operator or function requires a document path; operator or function: if_not_exists",
        ),
        ("SET a = list_append(a, :n)", WRONG_TYPE + "operator or function: list_append, operand type: N"),
        ("SET a = a + :s", WRONG_TYPE + "operator or function: +, operand type: S"),
        ("SET a = :s - a", WRONG_TYPE + "operator or function: -, operand type: S"),
        ("ADD a :s", WRONG_TYPE + "operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND"),
        ("DELETE a :n", WRONG_TYPE + "operator: DELETE, operand type: NUMBER, typeSet: ALLOWED_FOR_DELETE_OPERAND"),
        ("SET a = foo(b), name = :n", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("SET a = size(b) SET b = :n", "The function is not allowed in an update expression; function: size"),
        (
            "SET a = :gone REMOVE #gone",
            "An expression attribute name used in the document path is not defined; attribute name: #gone",
        ),
        (
            "SET a = if_not_exists(:n, :n) ADD b :s",
            WRONG_TYPE + "operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND",
        ),
    ],
)
def test_wrong_update_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read(text, n=1, s="a")
    assert str(caught.value) == f"Invalid UpdateExpression: {message}"


def test_names_are_filled_in_before_paths_are_compared() -> None:
    with pytest.raises(ExpressionError, match="overlap"):
        read("SET #a = :x REMOVE a", {"#a": "a"}, x=1)
    assert after("SET #a.#b = :x", {"a": {}}, {"#a": "a", "#b": "x.y"}, x=1) == item_of({"a": {"x.y": 1}})


def test_as_many_paths_as_fit_into_an_expression_are_taken() -> None:
    update = read(f"REMOVE {','.join([f'x{number}' for number in range(800)])}")
    assert updated(update, {"x7": {}, "y": {}}, bytes_max=ITEM_BYTES_MAX) == {"y": {}}


def appended_to_itself(times: int) -> str:
    return f"list_append({appended_to_itself(times - 1)}, {appended_to_itself(times - 1)})" if times else "a"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"SET b = {appended_to_itself(6)}", id="one attribute"),
        pytest.param("SET " + ", ".join([f"x{number} = a" for number in range(100)]), id="many attributes"),
        pytest.param("SET " + ", ".join([f"l[{number}] = a" for number in range(100)]), id="many elements"),
    ],
)
def test_item_that_a_few_bytes_of_text_make_much_too_large_is_not_even_made(text: str) -> None:
    item: dict[str, Any] = {"a": {"L": [{"NULL": True}] * 50_000}, "l": {"L": []}}
    with pytest.raises(ExpressionError) as caught:
        updated(read(text), item, bytes_max=ITEM_BYTES_MAX)
    assert str(caught.value) == "Item size to update has exceeded the maximum allowed size"


def test_item_that_becomes_as_large_as_it_may_is_made() -> None:
    item: dict[str, Any] = {"a": {"S": "a" * 100_000}}
    result = updated(read("SET b = a, c = a, d = a"), item, bytes_max=ITEM_BYTES_MAX)
    assert normalise(result) == 4 * 100_001


def test_update_that_only_takes_away_makes_no_item() -> None:
    assert removes_only(read("REMOVE a DELETE b :x", x=frozenset({1})))
    assert not removes_only(read("REMOVE a ADD b :x", x=1))


places = st.sampled_from(["a", "b", "c", "a.a", "a.b", "b[0]", "b[1]", "a.b.c"])
operands = st.sampled_from([":n", ":s", ":l", ":e", "a", "b[0]", "if_not_exists(a, :n)", "list_append(b, :l)"])
actions = {
    "SET": st.builds("{} = {}".format, places, operands) | st.builds("{} = {} + :n".format, places, operands),
    "REMOVE": places,
    "ADD": st.builds("{} {}".format, places, st.sampled_from([":n", ":e"])),
    "DELETE": st.builds("{} :e".format, places),
}
updates = st.lists(
    st.sampled_from(list(actions)).flatmap(
        lambda keyword: st.lists(actions[keyword], min_size=1, max_size=2).map(
            lambda chosen: f"{keyword} {', '.join(chosen)}"
        )
    ),
    min_size=1,
    max_size=3,
)
BOUND: dict[str, dict[str, Any]] = {
    ":n": {"N": "1"},
    ":s": {"S": "s"},
    ":l": {"L": [{"N": "7"}]},
    ":e": {"NS": ["1", "3"]},
}


@settings(max_examples=500)
@given(updates, items)
def test_update_touches_nothing_but_its_paths_whatever_their_order(sections: list[str], item: dict[str, Any]) -> None:
    before = item_of(item)
    kept = copy.deepcopy(before)
    with contextlib.suppress(ExpressionError):
        update = expressions.update(" ".join(sections), Placeholders({}, BOUND))
        result = updated(update, before, bytes_max=ITEM_BYTES_MAX)
        heads = {action.path.parts[0] for action in update.actions}
        for name in NAMES:
            assert name in heads or result.get(name) == before.get(name)
        backwards = expressions.update(" ".join(reversed(sections)), Placeholders({}, BOUND))
        assert updated(backwards, before, bytes_max=ITEM_BYTES_MAX) == result
    assert before == kept
