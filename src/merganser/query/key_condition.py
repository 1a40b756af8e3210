"""What a KeyConditionExpression asks for: at most one condition on each key attribute.

The expression language allows far more than a query can do; the rest is refused here, in DynamoDB's
words. Whether the attributes are the table's keys is for whoever knows the table.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.syntax import (
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Either,
    ExpressionError,
    In,
    Not,
    Operand,
    Path,
    Value,
)

_FLIPPED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class AttributeCondition(msgspec.Struct, frozen=True):
    """What one key attribute must be."""

    operator: str
    """=, <, <=, >, >=, BETWEEN or begins_with, with the attribute on the left."""
    operands: tuple[dict[str, Any], ...]
    """Attribute values in normal form: two for BETWEEN, else one."""


def key_conditions(text: str, placeholders: Placeholders) -> dict[str, AttributeCondition]:
    """Return the conditions of a KeyConditionExpression by attribute.

    Args:
        text: the expression.
        placeholders: the request's; all must be used once this expression is read.

    Raises:
        ExpressionError: with DynamoDB's whole message.
    """
    tree = expressions.condition(text, placeholders, parameter="KeyConditionExpression")
    placeholders.check_all_used()
    conditions: dict[str, AttributeCondition] = {}
    _collect(tree, conditions)
    return conditions


def _collect(tree: Condition, conditions: dict[str, AttributeCondition]) -> None:
    match tree:
        case Both(left, right):
            _collect(left, conditions)
            _collect(right, conditions)
        case Comparison(operator, left, right) if operator != "<>":
            attribute, is_first = _attribute(left, right)
            operand = right if is_first else left
            _add(conditions, attribute, operator if is_first else _FLIPPED[operator], operand)
        case Between(operand, low, high):
            _add(conditions, _first_attribute("BETWEEN", operand, low, high), "BETWEEN", low, high)
        case Call("begins_with", (operand, prefix)):
            _add(conditions, _first_attribute("begins_with", operand, prefix), "begins_with", prefix)
        case _:
            raise ExpressionError(f"Invalid operator used in KeyConditionExpression: {_operator(tree)}")


def _operator(tree: Condition) -> str:
    match tree:
        case Either():
            return "OR"
        case Not():
            return "NOT"
        case In():
            return "IN"
        case Call(function):
            return function
        case _:
            return "<>"


def _first_attribute(operator: str, *operands: Operand) -> str:
    if isinstance(operands[0], Value):
        raise ExpressionError(
            f"Invalid condition in KeyConditionExpression: {operator} operator must have the key attribute "
            "as its first operand"
        )
    return _attribute(*operands)[0]


def _attribute(*operands: Operand) -> tuple[str, bool]:
    """Return the one attribute among the operands, and whether it comes first."""
    found: str | None = None
    for operand in operands:
        if isinstance(operand, Call):
            raise ExpressionError("KeyConditionExpressions cannot contain nested operations")
        if isinstance(operand, Path):
            if found is not None:
                raise ExpressionError(
                    "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
                )
            if len(operand.parts) > 1:
                raise ExpressionError("KeyConditionExpressions cannot have conditions on nested attributes")
            found = str(operand.parts[0])
    if found is None:
        raise ExpressionError("Invalid condition in KeyConditionExpression: No key attribute specified")
    return found, isinstance(operands[0], Path)


def _add(conditions: dict[str, AttributeCondition], attribute: str, operator: str, *operands: Operand) -> None:
    if attribute in conditions:
        raise ExpressionError("KeyConditionExpressions must only contain one condition per key")
    values = tuple(operand.content for operand in operands if isinstance(operand, Value))
    conditions[attribute] = AttributeCondition(operator, values)
