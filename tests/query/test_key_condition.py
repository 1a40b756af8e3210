"""The expression language, seen through key conditions: messages are DynamoDB's, word for word."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.query.binding import Placeholders
from merganser.query.key_condition import AttributeCondition, key_conditions
from merganser.query.syntax import ExpressionError

PREFIX = "Invalid KeyConditionExpression: "
A: dict[str, Any] = {"S": "a"}
ONE: dict[str, Any] = {"N": "1"}
TWO: dict[str, Any] = {"N": "2"}
YES: dict[str, Any] = {"BOOL": True}


def read(text: str, names: dict[str, str] | None = None, **values: dict[str, Any]) -> dict[str, AttributeCondition]:
    return key_conditions(text, Placeholders(names or {}, {f":{name}": value for name, value in values.items()}))


def refusal(text: str, names: dict[str, str] | None = None, **values: dict[str, Any]) -> str:
    with pytest.raises(ExpressionError) as caught:
        read(text, names, **values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "operator", "operands"),
    [
        ("s = :a", "=", (ONE,)),
        ("s<:a", "<", (ONE,)),
        ("s <= :a", "<=", (ONE,)),
        ("s > :a", ">", (ONE,)),
        ("s >= :a", ">=", (ONE,)),
        (":a < s", ">", (ONE,)),
        (":a >= s", "<=", (ONE,)),
        (":a = s", "=", (ONE,)),
        ("(s) = (:a)", "=", (ONE,)),
        ("(s = :a)", "=", (ONE,)),
        ("s Between :a aNd :b", "BETWEEN", (ONE, TWO)),
        ("begins_with(s, :c)", "begins_with", (A,)),
        ("begins_with ( s , :c )", "begins_with", (A,)),
    ],
)
def test_condition_on_an_attribute_is_read(text: str, operator: str, operands: tuple[Any, ...]) -> None:
    values = {name: value for name, value in (("a", ONE), ("b", TWO), ("c", A)) if f":{name}" in text}
    assert read(text, **values) == {"s": AttributeCondition(operator, operands)}


@pytest.mark.parametrize(
    "text",
    ["p = :a AND s = :b", "(p = :a) and (s = :b)", "p=:a\n\tAND s=:b", "(p = :a AND s = :b)", "#p = :a AND s = :b   "],
)
def test_two_conditions_are_joined_by_and(text: str) -> None:
    names = {"#p": "p"} if "#p" in text else {}
    assert read(text, names, a=A, b=ONE) == {"p": AttributeCondition("=", (A,)), "s": AttributeCondition("=", (ONE,))}


@pytest.mark.parametrize(
    ("text", "token", "near"),
    [
        ("p", "<EOF>", "p"),
        ("   ", "<EOF>", "   "),
        ("p = ", "<EOF>", "= "),
        ("p = :a AND", "<EOF>", "AND"),
        ("p = :a AND s", "<EOF>", "s"),
        ("p = :a s", "s", ":a s"),
        ("= :a", "=", "= :a"),
        ("p = = :a", "=", "= = :a"),
        ("p==:a", "=", "==:a"),
        ("p = :a AND AND s = :b", "AND", "AND AND s"),
        ("p = :a $", "$", ":a $"),
        ("p = :a $  ", "$", ":a $  "),
        ("p = :a && s = :b", "&", ":a &&"),
        ('p = "a"', '"', '= "a'),
        ("p = 1", "1", "= 1"),
        ("1p = :a", "1", "1p"),
        ("_p = :a", "_", "_p"),
        ("é = :a", "é", "é ="),
        ("p = :é", ":", "= :é"),
        ("p = : a", ":", "= : a"),
        ("# = :a", "#", "# ="),
        ("p = :a)", ")", ":a)"),
        ("(p = :a", "<EOF>", ":a"),
        ("((p = :a", "<EOF>", ":a"),
        ("p = :a AND s BETWEEN :b", "<EOF>", ":b"),
        ("p = :a AND s BETWEEN :b, :c", ",", ":b, :c"),
        ("p = :a AND s BETWEEN (:b AND :b)", "AND", ":b AND :b"),
        ("p = :a AND s IN ()", ")", "()"),
        ("p = :a AND s = :b + :b", "+", ":b + :b"),
        ("p = :a and not s", "<EOF>", "s"),
        ("f(", "<EOF>", "("),
        ("f()", ")", "()"),
        ("p = :a and f(s) g", "g", ") g"),
        ("p[01] = :a", "1", "01]"),
        ("p[-1] = :a", "-", "[-1"),
        ("p,", ",", "p,"),
        ("SET p = :a", "SET", "SET p"),
        ("p = :a AND set = :a", "set", "AND set ="),
        ("p = (q = :a)", "=", "q = :a"),
        ("(p) AND s = :a", "AND", ") AND s"),
    ],
)
def test_syntax_error_names_the_token_and_its_neighbours(text: str, token: str, near: str) -> None:
    assert refusal(text, a=A, b=ONE, c=TWO) == f'{PREFIX}Syntax error; token: "{token}", near: "{near}"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The expression can not be empty;"),
        ("x" * 4097, "Expression size has exceeded the maximum allowed size; expression size: 4097"),
        ("é" * 2049, "Expression size has exceeded the maximum allowed size; expression size: 4098"),
        ("((p = :a))", "The expression has redundant parentheses;"),
        ("((p)) = :a", "The expression has redundant parentheses;"),
        ("p = ((:a))", "The expression has redundant parentheses;"),
        ("((p = :a)) AND", "The expression has redundant parentheses;"),
        ("((p = :a)) AND name = :z", "The expression has redundant parentheses;"),
        ("NOT " * 300 + "p = :a", "The expression contains too many operators; operator count: 301"),
        (" AND ".join(["p = :a"] * 330), "The expression contains too many operators; operator count: 301"),
        ("name = :z", "Attribute name is a reserved keyword; reserved keyword: name"),
        (":z = name", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("p = :a AND Status = :a", "Attribute name is a reserved keyword; reserved keyword: Status"),
        ("p.name = :a", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("s > :y AND name = :a", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("foo(name)", "Invalid function name; function: foo"),
        ("foo(:z) AND name = :a", "Invalid function name; function: foo"),
        ("BEGINS_WITH(s, :a)", "Invalid function name; function: BEGINS_WITH"),
        ("begins_with(name)", "Attribute name is a reserved keyword; reserved keyword: name"),
        (
            "p = :z",
            "An expression attribute value used in expression is not defined; attribute value: :z",
        ),
        (
            "#z = :z",
            "An expression attribute name used in the document path is not defined; attribute name: #z",
        ),
        (
            "p = :z AND #z = :a",
            "An expression attribute value used in expression is not defined; attribute value: :z",
        ),
        (
            "begins_with(s,:z,:a)",
            "An expression attribute value used in expression is not defined; attribute value: :z",
        ),
        (
            "begins_with(s) AND p = :z",
            "Incorrect number of operands for operator or function; "
            "operator or function: begins_with, number of operands: 1",
        ),
        (
            "s > s",
            "The first operand must be distinct from the remaining operands for this operator or function; "
            "operator: >, first operand: [s]",
        ),
        (
            "s.t[1] = s.t[1]",
            "The first operand must be distinct from the remaining operands for this operator or function; "
            "operator: =, first operand: [s, t, [1]]",
        ),
        (
            "s BETWEEN s AND :a",
            "The first operand must be distinct from the remaining operands for this operator or function; "
            "operator: BETWEEN, first operand: [s]",
        ),
        (
            "begins_with(s, s)",
            "The first operand must be distinct from the remaining operands for this operator or function; "
            "operator: begins_with, first operand: [s]",
        ),
        (
            "s > :y",
            "Incorrect operand type for operator or function; operator or function: >, operand type: BOOL",
        ),
        (
            "s BETWEEN :y AND :y",
            "Incorrect operand type for operator or function; operator or function: BETWEEN, operand type: BOOL",
        ),
        (
            "begins_with(s, :b)",
            "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
        ),
        (
            "attribute_type(s, :b)",
            "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N",
        ),
        (
            "attribute_type(s, :a)",
            "Invalid attribute type name found; type: a, valid types: {N,BS,L,B,NULL,M,S,SS,NS,BOOL}",
        ),
        (
            "s BETWEEN :b AND :a",
            "The BETWEEN operator requires same data type for lower and upper bounds; "
            "lower bound operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:a}",
        ),
        (
            "s BETWEEN :c AND :b",
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            "lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "s = begins_with(s, :a)",
            "The function is not allowed to be used this way in an expression; function: begins_with",
        ),
        ("size(s)", "The function is not allowed to be used this way in an expression; function: size"),
        ("if_not_exists(s, :a)", "The function is not allowed in a condition expression; function: if_not_exists"),
        ("if_not_exists(s, :a) = :a", "The function is not allowed in a condition expression; function: if_not_exists"),
    ],
)
def test_wrong_expression_is_refused(text: str, message: str) -> None:
    assert refusal(text, a=A, b=ONE, c=TWO, y=YES) == PREFIX + message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p = :a OR s = :a", "Invalid operator used in KeyConditionExpression: OR"),
        ("NOT p = :a", "Invalid operator used in KeyConditionExpression: NOT"),
        ("p <> :a", "Invalid operator used in KeyConditionExpression: <>"),
        ("p IN (:a)", "Invalid operator used in KeyConditionExpression: IN"),
        ("contains(p, :a)", "Invalid operator used in KeyConditionExpression: contains"),
        ("p = :a AND attribute_exists(s)", "Invalid operator used in KeyConditionExpression: attribute_exists"),
        ("size(p) = :a", "KeyConditionExpressions cannot contain nested operations"),
        ("p = :a AND p = :a", "KeyConditionExpressions must only contain one condition per key"),
        ("p = :a and (s = :a and s = :a)", "KeyConditionExpressions must only contain one condition per key"),
        ("p.q = :a", "KeyConditionExpressions cannot have conditions on nested attributes"),
        ("p[0] = :a", "KeyConditionExpressions cannot have conditions on nested attributes"),
        (":a = :a", "Invalid condition in KeyConditionExpression: No key attribute specified"),
        (
            "p = s AND s = :a",
            "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition",
        ),
        (
            ":a BETWEEN s AND s",
            "Invalid condition in KeyConditionExpression: "
            "BETWEEN operator must have the key attribute as its first operand",
        ),
        (
            "begins_with(:a, s)",
            "Invalid condition in KeyConditionExpression: "
            "begins_with operator must have the key attribute as its first operand",
        ),
    ],
)
def test_condition_that_no_query_can_use_is_refused(text: str, message: str) -> None:
    assert refusal(text, a=A) == message


@pytest.mark.parametrize("text", ["p = :a", "p = :a OR p = :a", "p = :a AND p = :a"])
def test_what_is_not_used_is_named_before_what_no_query_can_use(text: str) -> None:
    unused = "unused in expressions: keys: "
    names = {"#y": "p", "#z": "q"}
    assert refusal(text, names, a=A, b=A) == f"Value provided in ExpressionAttributeNames {unused}{{#y, #z}}"
    assert refusal(text, a=A, b=A, c=A) == f"Value provided in ExpressionAttributeValues {unused}{{:b, :c}}"


@pytest.mark.parametrize("text", ["(" * 2000, "f(" * 1300, "NOT " * 1000 + "p", "((p = :a) AND " * 280])
def test_deep_nesting_is_an_error_and_not_a_crash(text: str) -> None:
    assert refusal(text, a=A).startswith(PREFIX)


PIECES = "p s #n :a :b = < ( ) , AND OR NOT IN BETWEEN begins_with size . [ ] 0 - é"


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES.split()), max_size=12))
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    with contextlib.suppress(ExpressionError):
        assert read(" ".join(pieces), {"#n": "n"}, a=A, b=ONE)
