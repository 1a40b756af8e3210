"""What paths show of an item."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.documents import projected
from merganser.query.syntax import ExpressionError
from query.attribute_values import NAMES, item_of, items

ITEM = {"a": 1, "b": {"c": [10, {"d": 2, "e": 3}, 30], "f": 4}, "g": [[1, 2], [3]]}


def shown(text: str, item: dict[str, Any], names: dict[str, str] | None = None) -> dict[str, Any]:
    return projected(item_of(item), expressions.projection(text, Placeholders(names or {}, {})))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a", {"a": 1}),
        ("z", {}),
        ("a, z.y, a1[0]", {"a": 1}),
        ("b.f,a", {"a": 1, "b": {"f": 4}}),
        ("b.c[1].d", {"b": {"c": [{"d": 2}]}}),
        ("b.c[2], b.c[0], b.c[9]", {"b": {"c": [10, 30]}}),
        ("b.c[1].z", {}),
        ("a.b, a.c", {}),
        ("a[0]", {}),
        ("g[0][1], g[1][0]", {"g": [[2], [3]]}),
        ("g.x", {}),
    ],
)
def test_paths_show_their_part_of_an_item(text: str, result: dict[str, Any]) -> None:
    assert shown(text, ITEM) == item_of(result)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("a,", 'Syntax error; token: "<EOF>", near: ","'),
        ("a b", 'Syntax error; token: "b", near: "a b"'),
        ("a, :b", 'Syntax error; token: ":b", near: ", :b"'),
        ("size(a)", 'Syntax error; token: "(", near: "size(a"'),
        ("a, name", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("#a", "An expression attribute name used in the document path is not defined; attribute name: #a"),
        (
            "a, a.b",
            "Two document paths overlap with each other; must remove or rewrite one of these paths; "
            "path one: [a], path two: [a, b]",
        ),
    ],
)
def test_wrong_projection_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        shown(text, {})
    assert str(caught.value) == f"Invalid ProjectionExpression: {message}"


@given(items, st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_whole_attributes_are_shown_as_they_are(item: dict[str, Any], names: list[str]) -> None:
    expected = {name: value for name, value in item_of(item).items() if name in names}
    assert shown(", ".join(names), item) == expected
