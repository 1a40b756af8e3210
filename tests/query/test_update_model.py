"""Updates against a naive model over native values, which changes a copy in place and sweeps up afterwards."""

from __future__ import annotations

import copy
from decimal import Decimal, localcontext
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.model.errors import RequestError
from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.syntax import ExpressionError
from merganser.query.update import updated
from merganser.wire.dynamodb.attributes import ITEM_BYTES_MAX, normalise
from query.attribute_values import attribute_value, item_of, numbers, sets, values

Path = tuple[str | int, ...]
Operand = tuple[Any, ...]
"""("value", name), ("path", path), ("if_not_exists", path, operand), ("list_append", …), ("+", …) or ("-", …)."""
Action = tuple[Any, ...]
"""Keyword, path and, except for REMOVE, an operand."""

BOUND: dict[str, Any] = {
    ":n": Decimal(3),
    ":s": "s",
    ":l": [Decimal(7), "x"],
    ":m": {"a": Decimal(1)},
    ":e": frozenset({Decimal(1), Decimal(3)}),
    ":t": frozenset({"a", "z"}),
}
GONE = object()

PATHS: list[Path] = [
    *[("a",), ("a", "a"), ("a", "b"), ("a", "c"), ("a", "b", 0), ("a", "b", 1), ("a", "b", 7), ("a", "b", 5)],
    *[("b",), ("b", 0), ("b", 1), ("b", 2), ("b", 1, "a"), ("b", 1, "c"), ("b", 9), ("b", 8)],
    *[("c",), ("c", "a"), ("d",), ("d", 0)],
]
items = st.fixed_dictionaries(
    {
        "a": st.fixed_dictionaries({"a": numbers, "b": st.lists(numbers, max_size=3), "c": sets}) | values,
        "b": st.tuples(numbers, st.fixed_dictionaries({"a": numbers, "c": values}), sets).map(list) | values,
    },
    optional={"c": numbers | sets},
)
"""Made so that most paths lead somewhere."""

paths = st.sampled_from(PATHS)
leaves = st.tuples(st.just("path"), paths) | st.tuples(st.just("value"), st.sampled_from(list(BOUND)))
terms = st.tuples(st.just("path"), paths) | st.just(("value", ":n"))
lists = st.tuples(st.just("path"), paths) | st.just(("value", ":l"))
operands = st.one_of(
    leaves,
    st.tuples(st.just("if_not_exists"), paths, leaves),
    st.tuples(st.just("list_append"), lists, lists),
    st.tuples(st.sampled_from("+-"), terms, terms),
)
actions = st.one_of(
    st.tuples(st.just("SET"), paths, operands),
    st.tuples(st.just("SET"), paths, operands),
    st.tuples(st.just("REMOVE"), paths),
    st.tuples(st.just("ADD"), paths, st.tuples(st.just("value"), st.sampled_from([":n", ":e", ":t"]))),
    st.tuples(st.just("DELETE"), paths, st.tuples(st.just("value"), st.sampled_from([":e", ":t"]))),
)


class ImpossibleError(Exception):
    """The model's word for an item that is not made for an update."""


@settings(max_examples=600)
@given(st.lists(actions, min_size=1, max_size=4), items)
def test_update_agrees_with_the_model(chosen: list[Action], item: dict[str, Any]) -> None:
    text = written(chosen)
    bound = {name: attribute_value(value) for name, value in BOUND.items()}
    try:
        update = expressions.update(text, Placeholders({}, bound))
    except ExpressionError:
        return  # paths that overlap and the like, which the model knows nothing of
    try:
        with localcontext(prec=400):  # exact
            expected: Any = item_of(model(chosen, item))
    except ImpossibleError:
        expected = ImpossibleError
    try:
        found: Any = updated(update, item_of(item), bytes_max=ITEM_BYTES_MAX)
        normalise(found)
    except RequestError:
        found = ImpossibleError
    assert found == expected, text


def written(chosen: list[Action]) -> str:
    sections: dict[str, list[str]] = {}
    for keyword, path, *operand in chosen:
        between = " = " if keyword == "SET" else " "
        sections.setdefault(keyword, []).append(dotted(path) + "".join(between + spelled(one) for one in operand))
    return " ".join(f"{keyword} {', '.join(parts)}" for keyword, parts in sections.items())


def dotted(path: Path) -> str:
    return str(path[0]) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[1:])


def spelled(operand: Operand) -> str:
    match operand:
        case ("value", name):
            return str(name)
        case ("path", path):
            return dotted(path)
        case ("if_not_exists", path, otherwise):
            return f"if_not_exists({dotted(path)}, {spelled(otherwise)})"
        case ("list_append", one, two):
            return f"list_append({spelled(one)}, {spelled(two)})"
        case (operator, one, two):
            return f"{spelled(one)} {operator} {spelled(two)}"
    raise AssertionError(operand)


def model(chosen: list[Action], item: dict[str, Any]) -> dict[str, Any]:
    results = [(path, result(action, item)) for action in chosen for path in [action[1]]]
    after = copy.deepcopy(item)
    appended: list[tuple[int, list[Any], Any]] = []
    for path, value in results:
        holder = found_at(path[:-1], item) if len(path) > 1 else item
        new_holder: Any = found_at(path[:-1], after) if len(path) > 1 else after
        part = path[-1]
        if isinstance(part, int) and isinstance(holder, list):
            if part < len(holder):
                new_holder[part] = value
            elif value is not GONE:
                appended.append((part, new_holder, value))
        elif isinstance(part, str) and isinstance(holder, dict):
            new_holder[part] = value
        else:
            raise ImpossibleError
    for _, new_holder, value in sorted(appended, key=lambda one: one[0]):
        new_holder.append(value)
    return dict(swept(after))


def result(action: Action, item: dict[str, Any]) -> Any:
    match action:
        case ("SET", _, operand):
            return value_of(operand, item)
        case ("REMOVE", _):
            return GONE
    keyword, path, (_, name) = action
    current, value = found_at(path, item), BOUND[name]
    if current is GONE:
        return value if keyword == "ADD" else GONE
    if kind(current) != kind(value):
        raise ImpossibleError
    if keyword == "DELETE":
        return current - value or GONE
    return current | value if isinstance(value, frozenset) else stored(current + value)


def value_of(operand: Operand, item: dict[str, Any]) -> Any:
    match operand:
        case ("value", name):
            return BOUND[name]
        case ("if_not_exists", path, otherwise):
            value = found_at(path, item)
            return value_of(otherwise, item) if value is GONE else value
        case ("path", path):
            value = found_at(path, item)
            if value is GONE:
                raise ImpossibleError
            return value
    operator = operand[0]
    one: Any = value_of(operand[1], item)
    two: Any = value_of(operand[2], item)
    wanted = list if operator == "list_append" else Decimal
    if {type(one), type(two)} != {wanted}:
        raise ImpossibleError
    if operator == "list_append":
        return one + two
    return stored(one - two if operator == "-" else one + two)


def stored(number: Decimal) -> Decimal:
    if len(number.normalize().as_tuple().digits) > 38:
        raise ImpossibleError
    return number


def found_at(path: Path, item: Any) -> Any:
    for part in path:
        if isinstance(part, int):
            item = item[part] if isinstance(item, list) and part < len(item) else GONE
        else:
            item = item.get(part, GONE) if isinstance(item, dict) else GONE
    return item


def kind(value: Any) -> Any:
    return (frozenset, type(next(iter(value)))) if isinstance(value, frozenset) else type(value)


def swept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: swept(inner) for name, inner in value.items() if inner is not GONE}
    return [swept(inner) for inner in value if inner is not GONE] if isinstance(value, list) else value
