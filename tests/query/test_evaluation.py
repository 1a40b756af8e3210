"""What conditions say of items: an example of each rule, then everything against a naive model over native values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.evaluation import holds
from merganser.query.syntax import ExpressionError
from query.attribute_values import NAMES, attribute_value, item_of, items, ordered, values

NUMBER = Decimal
BIG = NUMBER("12345678901234567890123456789012345678")


def is_held(text: str, item: dict[str, Any], names: dict[str, str] | None = None, **bound: Any) -> bool:
    placeholders = Placeholders(names or {}, {f":{name}": attribute_value(value) for name, value in bound.items()})
    tree = expressions.condition(text, placeholders)
    placeholders.check_all_used()
    return holds(tree, item_of(item))


@pytest.mark.parametrize(
    ("text", "item", "bound"),
    [
        ("a = :x", {"a": 1}, {"x": NUMBER("1.0")}),
        ("a = :x", {"a": BIG}, {"x": BIG}),
        ("a < :x", {"a": BIG}, {"x": BIG + 1}),
        ("a < :x", {"a": NUMBER("1E-130")}, {"x": NUMBER("1.1E-130")}),
        ("a > :x", {"a": 10}, {"x": 9}),
        ("a < :x", {"a": "10"}, {"x": "9"}),
        ("a < :x", {"a": "Z"}, {"x": "a"}),
        ("a < :x", {"a": "\uffff"}, {"x": "\U0001f986"}),
        ("a < :x", {"a": b"\x7f"}, {"x": b"\x80"}),
        ("a = :x", {"a": frozenset({"x", "y"})}, {"x": frozenset({"y", "x"})}),
        ("a = :x", {"a": frozenset({1, 2})}, {"x": frozenset({NUMBER("2.0"), 1})}),
        ("a = :x", {"a": {"k": 1, "l": [None]}}, {"x": {"l": [None], "k": 1}}),
        ("a <> :x", {"a": [1, 2]}, {"x": [2, 1]}),
        ("a <> :x", {"a": "1"}, {"x": 1}),
        ("a <> :x", {"a": True}, {"x": 1}),
        ("a <> :x", {}, {"x": 1}),
        (":x <> a", {}, {"x": 1}),
        ("a <> b", {}, {}),
        ("NOT a = :x", {}, {"x": 1}),
        ("NOT a < :x", {"a": "s"}, {"x": 1}),
        ("a = b", {"a": [1], "b": [1]}, {}),
        ("a.b[1].c = :x", {"a": {"b": [0, {"c": 1}]}}, {"x": 1}),
        ("a BETWEEN :x AND :y", {"a": 2}, {"x": 1, "y": 2}),
        ("a BETWEEN :x AND :y", {"a": 1}, {"x": 1, "y": 2}),
        (":x BETWEEN a AND b", {"a": 0, "b": 2}, {"x": 1}),
        ("a IN (:x, :y)", {"a": "y"}, {"x": "x", "y": "y"}),
        ("a IN (b, :y)", {"a": 1, "b": 1}, {"y": 2}),
        ("NOT a IN (:x)", {}, {"x": 1}),
        ("attribute_exists(a)", {"a": None}, {}),
        ("attribute_exists(a.b)", {"a": {"b": 1}}, {}),
        ("attribute_not_exists(a)", {}, {}),
        ("attribute_not_exists(a.b)", {"a": 1}, {}),
        ("attribute_not_exists(a[1])", {"a": [1]}, {}),
        ("attribute_type(a, :x)", {"a": None}, {"x": "NULL"}),
        ("attribute_type(a, :x)", {"a": frozenset({1})}, {"x": "NS"}),
        ("NOT attribute_type(a, :x)", {}, {"x": "S"}),
        ("begins_with(a, :x)", {"a": "abc"}, {"x": "ab"}),
        ("begins_with(a, :x)", {"a": "abc"}, {"x": ""}),
        ("begins_with(a, :x)", {"a": b"\x00\xff"}, {"x": b"\x00"}),
        ("begins_with(:x, a)", {"a": "ab"}, {"x": "abc"}),
        ("NOT begins_with(a, :x)", {"a": "abc"}, {"x": b"a"}),
        ("NOT begins_with(a, :x)", {"a": 12}, {"x": "1"}),
        ("contains(a, :x)", {"a": "abc"}, {"x": "bc"}),
        ("contains(a, :x)", {"a": b"abc"}, {"x": b"bc"}),
        ("contains(a, :x)", {"a": frozenset({"ab"})}, {"x": "ab"}),
        ("NOT contains(a, :x)", {"a": frozenset({"ab"})}, {"x": "a"}),
        ("contains(a, :x)", {"a": frozenset({1, 2})}, {"x": NUMBER("2.0")}),
        ("contains(a, :x)", {"a": frozenset({b"a"})}, {"x": b"a"}),
        ("contains(a, :x)", {"a": [{"k": 1}]}, {"x": {"k": 1}}),
        ("NOT contains(a, :x)", {"a": ["abc"]}, {"x": "ab"}),
        ("contains(:x, a)", {"a": 2}, {"x": [1, 2]}),
        ("NOT contains(a, :x)", {"a": 12}, {"x": 1}),
        ("size(a) = :x", {"a": "abc"}, {"x": 3}),
        ("size(a) = :x", {"a": "é"}, {"x": 2}),
        ("size(a) = :x", {"a": b"\x00\xff"}, {"x": 2}),
        ("size(a) = :x", {"a": frozenset({1, 2})}, {"x": 2}),
        ("size(a) = :x", {"a": {"k": 1}}, {"x": 1}),
        ("size(a) > size(b)", {"a": [1], "b": []}, {}),
        ("size(a) IN (:x)", {"a": [1]}, {"x": 1}),
        ("size(a) <> :x", {"a": 1}, {"x": 1}),
        ("NOT size(a) = :x", {"a": None}, {"x": 1}),
        ("NOT size(a) = :x", {}, {"x": 1}),
        ("a = :x OR a = :x AND b = :x", {"a": 1}, {"x": 1}),
        ("NOT a = :x OR a = :x", {"a": 1}, {"x": 1}),
        ("NOT (a = :x AND b = :x)", {"a": 1}, {"x": 1}),
    ],
)
def test_condition_holds(text: str, item: dict[str, Any], bound: dict[str, Any]) -> None:
    assert is_held(text, item, **bound)


@pytest.mark.parametrize(
    ("text", "item", "bound"),
    [
        ("a = :x", {}, {"x": 1}),
        ("a = b", {}, {}),
        ("a = :x", {"a": "1"}, {"x": 1}),
        ("a <> :x", {"a": 1}, {"x": NUMBER("1.00")}),
        ("a < :x", {}, {"x": 1}),
        ("a <= :x", {"a": "1"}, {"x": 1}),
        ("a >= :x", {"a": None}, {"x": 1}),
        ("a >= b", {"a": [1], "b": [1]}, {}),
        ("a BETWEEN :x AND :y", {"a": 3}, {"x": 1, "y": 2}),
        ("a BETWEEN :x AND :y", {"a": "1"}, {"x": 1, "y": 2}),
        ("a BETWEEN b AND c", {"a": 1, "b": 2, "c": 0}, {}),
        ("a BETWEEN b AND :y", {"a": 1}, {"y": 2}),
        ("a IN (:x, b)", {}, {"x": 1}),
        ("a.b = :x", {"a": [1]}, {"x": 1}),
        ("a[0] = :x", {"a": {"0": 1}}, {"x": 1}),
        ("a = :x AND (a = :x OR b = :x) AND NOT a = :x", {"a": 1}, {"x": 1}),
    ],
)
def test_condition_does_not_hold(text: str, item: dict[str, Any], bound: dict[str, Any]) -> None:
    assert not is_held(text, item, **bound)


def test_placeholders_reach_names_that_cannot_be_written() -> None:
    item = {"a.b": {"status": 1}}
    assert is_held("#n.#s = :x", item, {"#n": "a.b", "#s": "status"}, x=1)


Tree = tuple[Any, ...]
"""Operator and operands; an operand is ("path", name, …), ("value", native) or ("size", operand)."""

paths = st.tuples(st.just("path"), st.sampled_from(NAMES)) | st.tuples(
    st.just("path"), st.sampled_from(NAMES), st.sampled_from([*NAMES, 0, 1])
)
sizes = st.tuples(st.just("size"), paths)
operands = paths | sizes | st.tuples(st.just("value"), values)
ordered_operands = paths | sizes | st.tuples(st.just("value"), ordered)
leaves = st.one_of(
    st.tuples(st.sampled_from(["=", "<>"]), operands, operands),
    st.tuples(st.sampled_from(["<", "<=", ">", ">="]), ordered_operands, ordered_operands),
    st.tuples(st.just("BETWEEN"), ordered_operands, ordered_operands, ordered_operands),
    st.tuples(st.just("IN"), operands, operands, operands),
    st.tuples(st.sampled_from(["attribute_exists", "attribute_not_exists"]), paths),
    st.tuples(st.sampled_from(["begins_with", "contains"]), operands, operands),
)
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner) | st.tuples(st.just("NOT"), inner),
    max_leaves=6,
)

MISSING = object()


@settings(max_examples=600)
@given(trees, items)
def test_evaluation_agrees_with_the_model(tree: Tree, item: dict[str, Any]) -> None:
    bound: dict[str, Any] = {}
    text = written(tree, bound)
    try:
        found = is_held(text, item, **bound)
    except ExpressionError:
        assume(False)
    assert found == model(tree, item), text


def written(tree: Tree, bound: dict[str, Any]) -> str:
    operator, *inner = tree
    match operator:
        case "path":
            return str(inner[0]) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inner[1:])
        case "value":
            bound[f"v{len(bound)}"] = inner[0]
            return f":v{len(bound) - 1}"
        case "NOT":
            return f"NOT ({written(inner[0], bound)})"
        case "AND" | "OR":
            return f" {operator} ".join(f"({written(one, bound)})" for one in inner)
        case "BETWEEN":
            value, low, high = (written(one, bound) for one in inner)
            return f"{value} BETWEEN {low} AND {high}"
    shown = [written(one, bound) for one in inner]
    if operator == "IN":
        return f"{shown[0]} IN ({', '.join(shown[1:])})"
    return f"{operator}({', '.join(shown)})" if operator[0].isalpha() else f"{shown[0]} {operator} {shown[1]}"


def model(tree: Tree, item: dict[str, Any]) -> bool:
    operator, *inner = tree
    if operator in ("AND", "OR", "NOT"):
        results = [model(one, item) for one in inner]
        return {"AND": all(results), "OR": any(results), "NOT": not results[0]}[operator]
    found = [native(one, item) for one in inner]
    first, rest = found[0], found[1:]
    match operator:
        case "=":
            return same(first, rest[0])
        case "<>":
            return not same(first, rest[0])
        case "IN":
            return any(same(first, other) for other in rest)
        case "<" | "<=" | ">" | ">=":
            return (
                comparable(*found)
                and {
                    "<": lambda: first < rest[0],
                    "<=": lambda: first <= rest[0],
                    ">": lambda: first > rest[0],
                    ">=": lambda: first >= rest[0],
                }[operator]()
            )
        case "BETWEEN":
            return comparable(*found) and bool(rest[0] <= first <= rest[1])
        case "attribute_exists":
            return first is not MISSING
        case "attribute_not_exists":
            return first is MISSING
        case "begins_with":
            return type(first) is type(rest[0]) and isinstance(first, str | bytes) and first.startswith(rest[0])
        case "contains":
            if isinstance(first, list):
                return any(same(one, rest[0]) for one in first)
            if isinstance(first, frozenset):
                return any(same(one, rest[0]) for one in first)
            return type(first) is type(rest[0]) and isinstance(first, str | bytes) and rest[0] in first
    raise AssertionError(operator)


def native(operand: Tree, item: dict[str, Any]) -> Any:
    kind, *inner = operand
    if kind == "value":
        return inner[0]
    if kind == "size":
        value = native(inner[0], item)
        if isinstance(value, str):
            return Decimal(len(value.encode()))
        return Decimal(len(value)) if isinstance(value, bytes | list | dict | frozenset) else MISSING
    value = item
    for part in inner:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) and part < len(value) else MISSING
        else:
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
    return value


def same(one: Any, two: Any) -> bool:
    if one is MISSING or type(one) is not type(two):
        return False
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    return bool(one == two)


def comparable(*found: Any) -> bool:
    return len({type(one) for one in found}) == 1 and isinstance(found[0], str | bytes | Decimal)


LONG = [*range(50_000)]
HUGE = {
    "l": attribute_value(LONG),
    "k": attribute_value(LONG),
    "e": {"NS": [str(number) for number in LONG]},
    "s": {"S": "s" * 400_000},
    "b": {"B": "YWFh" * 100_000},
    "m": {"M": {"l": attribute_value(LONG)}},
}


@pytest.mark.parametrize(
    "part",
    [
        "contains(l, :n)",
        "contains(e, :n)",
        "contains(s, :s)",
        "contains(b, :c)",
        "l <> k",
        "NOT l = k",
        "b < :b",
        "begins_with(b, :c)",
        "size(s) < :n",
        "m IN (:n, :s, :b, :c)",
        "b BETWEEN :c AND :c",
    ],
)
def test_condition_that_goes_through_large_attributes_again_and_again_is_refused(part: str) -> None:
    bound = {":n": {"N": "-1"}, ":s": {"S": "t"}, ":b": {"B": "YQ=="}, ":c": {"B": "Yg=="}}

    def refused(times: int) -> bool:
        tree = expressions.condition(" OR ".join([part] * times), Placeholders({}, bound))
        try:
            assert not holds(tree, HUGE)
        except ExpressionError as error:
            return "goes through too much of the item" in str(error)
        return False

    assert not refused(5)
    assert refused(99)


def test_condition_on_small_attributes_may_have_as_many_operators_as_there_are() -> None:
    item = {"l": attribute_value([*range(1000)]), "s": {"S": "s" * 6000}}
    for part in ("contains(l, :x)", "contains(s, :x)"):
        tree = expressions.condition(" OR ".join([part] * 150), Placeholders({}, {":x": {"S": "t"}}))
        assert not holds(tree, item)
