"""The second walk over a tree: placeholders become names and values, and operands are checked.

One `Placeholders` serves all the expressions of a request, because only then it is known which of the
names and values nobody used.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from merganser.query.parser import UPDATE_FUNCTIONS
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
    Placeholder,
    Value,
)

_ARITY: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
_ORDERED: Final = frozenset("SNB")
_PREFIXED: Final = frozenset("SB")
_KINDS: Final = ("N", "BS", "L", "B", "NULL", "M", "S", "SS", "NS", "BOOL")  # as DynamoDB prints them


class Placeholders:
    """ExpressionAttributeNames and ExpressionAttributeValues of one request."""

    def __init__(self, names: Mapping[str, str], values: Mapping[str, dict[str, Any]]) -> None:
        """Take both, the values in normal form."""
        self._names = names
        self._values = values
        self._unused_names = dict.fromkeys(names)
        self._unused_values = dict.fromkeys(values)

    def bind(self, tree: Condition) -> Condition:
        """Return ``tree`` with every placeholder filled in.

        Raises:
            ExpressionError: one is not defined, or an operand does not suit its operator.
        """
        match tree:
            case Both(left, right):
                return Both(self.bind(left), self.bind(right))
            case Either(left, right):
                return Either(self.bind(left), self.bind(right))
            case Not(inner):
                return Not(self.bind(inner))
            case Comparison(operator, left, right):
                comparison = Comparison(operator, self._operand(left), self._operand(right))
                _check_comparison(comparison)
                return comparison
            case Between(operand, low, high):
                between = Between(self._operand(operand), self._operand(low), self._operand(high))
                _check_between(between)
                return between
            case In(operand, choices):
                member = In(self._operand(operand), tuple(self._operand(choice) for choice in choices))
                _check_distinct("IN", member.operand, *member.choices)
                return member
            case Call():
                call = self._call(tree)
                if call.function == "size":
                    raise _misused(call)
                return call

    def check_all_used(self) -> None:
        """Check that every name and value was used, after the last expression.

        Raises:
            ExpressionError: one was not; the message is whole.
        """
        for kind, unused in (("Names", self._unused_names), ("Values", self._unused_values)):
            if unused:
                keys = ", ".join(unused)
                raise ExpressionError(
                    f"Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{keys}}}"
                )

    def _operand(self, operand: Operand) -> Operand:
        match operand:
            case Path(parts):
                return Path(tuple(self._name(part) if isinstance(part, str) else part for part in parts))
            case Placeholder(name):
                return self._value(name)
            case Call():
                call = self._call(operand)
                if call.function != "size":
                    raise _misused(call)
                return call
            case Value():
                return operand

    def _name(self, part: str) -> str:
        if not part.startswith("#"):
            return part
        if part not in self._names:
            raise ExpressionError(
                f"An expression attribute name used in the document path is not defined; attribute name: {part}"
            )
        self._unused_names.pop(part, None)
        return self._names[part]

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise ExpressionError(
                f"An expression attribute value used in expression is not defined; attribute value: {name}"
            )
        self._unused_values.pop(name, None)
        return Value(self._values[name])

    def _call(self, call: Call) -> Call:
        if call.function in UPDATE_FUNCTIONS:
            raise ExpressionError(f"The function is not allowed in a condition expression; function: {call.function}")
        bound = Call(call.function, tuple(self._operand(operand) for operand in call.operands))
        _check_call(bound)
        return bound


def _check_comparison(comparison: Comparison) -> None:
    _check_distinct(comparison.operator, comparison.left, comparison.right)
    if comparison.operator not in ("=", "<>"):
        _check_kinds(comparison.operator, _ORDERED, comparison.left, comparison.right)


def _check_between(between: Between) -> None:
    _check_distinct("BETWEEN", between.operand, between.low, between.high)
    _check_kinds("BETWEEN", _ORDERED, between.operand, between.low, between.high)
    low, high = between.low, between.high
    if not isinstance(low, Value) or not isinstance(high, Value):
        return
    if low.kind != high.kind:
        raise ExpressionError(
            "The BETWEEN operator requires same data type for lower and upper bounds; "
            f"lower bound operand: {low}, upper bound operand: {high}"
        )
    if _comparable(low) > _comparable(high):
        raise ExpressionError(
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            f"lower bound operand: {low}, upper bound operand: {high}"
        )


def _check_call(call: Call) -> None:
    if len(call.operands) != _ARITY[call.function]:
        raise ExpressionError(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {call.function}, number of operands: {len(call.operands)}"
        )
    _check_distinct(call.function, *call.operands)
    if call.function in ("attribute_exists", "attribute_not_exists") and not isinstance(call.operands[0], Path):
        raise ExpressionError(f"Operator or function requires a document path; operator or function: {call.function}")
    if call.function == "begins_with":
        _check_kinds(call.function, _PREFIXED, *call.operands)
    if call.function == "attribute_type":
        _check_type_name(call)


def _check_type_name(call: Call) -> None:
    kind = call.operands[1]
    _check_kinds(call.function, frozenset("S"), kind)
    if isinstance(kind, Value) and kind.content["S"] not in _KINDS:
        raise ExpressionError(
            f"Invalid attribute type name found; type: {kind.content['S']}, valid types: {{{','.join(_KINDS)}}}"
        )


def _check_distinct(operator: str, first: Operand, *others: Operand) -> None:
    if isinstance(first, Path) and first in others:
        raise ExpressionError(
            "The first operand must be distinct from the remaining operands for this operator or function; "
            f"operator: {operator}, first operand: {first}"
        )


def _check_kinds(operator: str, kinds: frozenset[str], *operands: Operand) -> None:
    for operand in operands:
        if isinstance(operand, Value) and operand.kind not in kinds:
            raise ExpressionError(
                "Incorrect operand type for operator or function; "
                f"operator or function: {operator}, operand type: {operand.kind}"
            )


def _misused(call: Call) -> ExpressionError:
    return ExpressionError(
        f"The function is not allowed to be used this way in an expression; function: {call.function}"
    )


def _comparable(value: Value) -> Any:
    text: str = value.content[value.kind]
    if value.kind == "N":
        return Decimal(text)
    return text.encode() if value.kind == "S" else base64.b64decode(text)
