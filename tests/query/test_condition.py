"""Wrong conditions: what is said of them is DynamoDB's, word for word, and comes before anything is evaluated.

What the language says of any expression is tested in `test_key_condition`. Not seen in an answer of DynamoDB, but
put together after the pattern of others: the two messages about ``contains``.
"""

from __future__ import annotations

from typing import Any

import pytest

from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.parser import TREES_MAX, parse_condition
from merganser.query.syntax import ExpressionError

BOUND: dict[str, dict[str, Any]] = {
    ":s": {"S": "a"},
    ":n": {"N": "1"},
    ":m": {"N": "2"},
    ":y": {"BOOL": True},
    ":l": {"L": []},
    ":e": {"NS": ["1"]},
}
WRONG_TYPE = "Incorrect operand type for operator or function; operator or function: "


def refusal(text: str, names: dict[str, str] | None = None, parameter: str = "ConditionExpression") -> str:
    with pytest.raises(ExpressionError) as caught:
        expressions.condition(text, Placeholders(names or {}, BOUND), parameter=parameter)
    return str(caught.value).removeprefix(f"Invalid {parameter}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("a = :s or", 'Syntax error; token: "<EOF>", near: "or"'),
        ("a", 'Syntax error; token: "<EOF>", near: "a"'),
        ("a = :s, b = :s", 'Syntax error; token: ",", near: ":s, b"'),
        ("a IN (:s", 'Syntax error; token: "<EOF>", near: ":s"'),
        ("a IN :s", 'Syntax error; token: ":s", near: "IN :s"'),
        ("a BETWEEN :n", 'Syntax error; token: "<EOF>", near: ":n"'),
        ("a = :n + :n", 'Syntax error; token: "+", near: ":n + :n"'),
        ("NOT", 'Syntax error; token: "<EOF>", near: "NOT"'),
        ("((a = :s))", "The expression has redundant parentheses;"),
        ("comment = :s", "Attribute name is a reserved keyword; reserved keyword: comment"),
        ("exists(a)", "Invalid function name; function: exists"),
        ("list_append(a, :l)", "The function is not allowed in a condition expression; function: list_append"),
        (
            f"a IN ({', '.join([':s'] * 101)})",
            "The IN operator is provided with too many operands; number of operands: 101",
        ),
        (" OR ".join(["a=:s"] * 301), "The expression contains too many operators; operator count: 301"),
        (
            "#n = :s",
            "An expression attribute name used in the document path is not defined; attribute name: #n",
        ),
        (
            "attribute_exists(a, b)",
            "Incorrect number of operands for operator or function; "
            "operator or function: attribute_exists, number of operands: 2",
        ),
        (
            "size(a, b) = :n",
            "Incorrect number of operands for operator or function; operator or function: size, number of operands: 2",
        ),
        (
            "attribute_exists(:s)",
            "Operator or function requires a document path; operator or function: attribute_exists",
        ),
        (
            "attribute_not_exists(size(a))",
            "Operator or function requires a document path; operator or function: attribute_not_exists",
        ),
        ("begins_with(a, :n)", WRONG_TYPE + "begins_with, operand type: N"),
        ("begins_with(a, size(b))", WRONG_TYPE + "begins_with, operand type: N"),
        ("attribute_type(a, b)", WRONG_TYPE + "attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}"),
        ("contains(:n, a)", WRONG_TYPE + "contains, operand type: N"),
        ("contains(:y, a)", WRONG_TYPE + "contains, operand type: BOOL"),
        ("size(:n) = :n", WRONG_TYPE + "size, operand type: N"),
        ("size(size(a)) = :n", WRONG_TYPE + "size, operand type: N"),
        ("a < :e", WRONG_TYPE + "<, operand type: NS"),
        ("a BETWEEN :l AND :l", WRONG_TYPE + "BETWEEN, operand type: L"),
        (
            "a BETWEEN :m AND :n",
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            "lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "a IN (:s, a)",
            "The first operand must be distinct from the remaining operands for this operator or function; "
            "operator: IN, first operand: [a]",
        ),
        ("a = contains(a, :s)", "The function is not allowed to be used this way in an expression; function: contains"),
        ("a = :s AND size(a)", "The function is not allowed to be used this way in an expression; function: size"),
    ],
)
def test_wrong_condition_is_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_parameter_is_named() -> None:
    with pytest.raises(ExpressionError, match=r"^Invalid FilterExpression: The expression can not be empty;$"):
        expressions.condition("", Placeholders({}, {}), parameter="FilterExpression")


def test_100_choices_are_taken() -> None:
    expressions.condition(f"a IN ({', '.join([':s'] * 100)})", Placeholders({}, BOUND))


def test_a_text_is_read_once_and_few_trees_are_kept() -> None:
    tree = parse_condition("a = :s AND b = :n")
    assert parse_condition("a = :s AND b = :n") is tree
    for number in range(2 * TREES_MAX):
        parse_condition(f"a{number} = :s")
    assert parse_condition.cache_info().currsize == TREES_MAX
    assert parse_condition("a = :s AND b = :n") is not tree


def test_tree_that_is_kept_knows_nothing_of_the_values_it_was_bound_to() -> None:
    for content in ({"S": "a"}, {"S": "b"}):
        bound = expressions.condition("a = :s", Placeholders({}, {":s": content}))
        assert content in (bound.right.content,)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = foo(a) AND #gone = contains(a, :s)", "Invalid function name; function: foo"),
        (
            "name = :s AND contains(a, begins_with(a, :s))",
            "The function is not allowed to be used this way in an expression; function: begins_with",
        ),
        (
            "begins_with(a, :gone) = contains(a) AND name = :s",
            "The function is not allowed to be used this way in an expression; function: begins_with",
        ),
        ("attribute_exists(:s) AND name = :s", "Attribute name is a reserved keyword; reserved keyword: name"),
        (
            "size(a, b) < :gone",
            "An expression attribute value used in expression is not defined; attribute value: :gone",
        ),
        (
            "attribute_exists(:s) AND a = :gone",
            "Operator or function requires a document path; operator or function: attribute_exists",
        ),
    ],
)
def test_one_thing_is_looked_for_after_the_other(text: str, message: str) -> None:
    assert refusal(text) == message


def test_what_names_no_placeholder_is_bound_once_for_all_requests_without_any() -> None:
    text = "attribute_not_exists(a) OR size(b) > size(c)"
    bound = expressions.condition(text, Placeholders({}, {}))
    assert expressions.condition(text, Placeholders({}, {})) is bound
    assert expressions.condition(text, Placeholders({"#n": "a"}, {})) == bound
    for _ in range(2):
        with pytest.raises(ExpressionError, match="not defined; attribute value: :s"):
            expressions.condition("a = :s", Placeholders({}, {}))
