"""Whether a condition holds for an item.

What is not there compares to nothing, so that every comparison with it is false, and ``<>``, which says that two are
not equal, is true. Values of different types are not equal, and neither comes before the other.

Source: Amazon DynamoDB Developer Guide, "Condition and filter expressions, operators, and functions". That ``<>`` holds
for two attributes that are both missing follows from the rule; the guide does not mention it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from merganser.query.documents import Item, value_at
from merganser.query.syntax import Between, Both, Call, Comparison, Condition, Either, In, Not, Operand, Path, Value
from merganser.query.values import AttributeValue, are_ordered, begins_with, contains, order_of, size_of

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(condition: Condition, item: Item) -> bool:
    """Tell whether a condition, its placeholders filled in, holds for an item; {} stands for one that is not there."""
    return _HOLDS[type(condition)](condition, item)


def _both(condition: Both, item: Item) -> bool:
    return holds(condition.left, item) and holds(condition.right, item)


def _either(condition: Either, item: Item) -> bool:
    return holds(condition.left, item) or holds(condition.right, item)


def _not(condition: Not, item: Item) -> bool:
    return not holds(condition.condition, item)


def _comparison(condition: Comparison, item: Item) -> bool:
    left, right = _value(condition.left, item), _value(condition.right, item)
    if condition.operator == "=":
        return left is not None and left == right
    if condition.operator == "<>":
        return left is None or left != right
    if left is None or right is None or not are_ordered(left, right):
        return False
    return _ORDER[condition.operator](order_of(left), order_of(right))


def _between(condition: Between, item: Item) -> bool:
    value, low, high = _value(condition.operand, item), _value(condition.low, item), _value(condition.high, item)
    if value is None or low is None or high is None or not are_ordered(value, low, high):
        return False
    return bool(order_of(low) <= order_of(value) <= order_of(high))


def _in(condition: In, item: Item) -> bool:
    value = _value(condition.operand, item)
    return value is not None and any(value == _value(choice, item) for choice in condition.choices)


def _call(condition: Call, item: Item) -> bool:
    operands = [_value(operand, item) for operand in condition.operands]
    if condition.function == "attribute_not_exists":
        return operands[0] is None
    if None in operands:
        return False
    return _FUNCTIONS[condition.function](*operands)


def _value(operand: Operand, item: Item) -> AttributeValue | None:
    if type(operand) is Value:
        return operand.content
    if type(operand) is Path:
        return value_at(item, operand)
    return _size(operand, item)


def _size(operand: Operand, item: Item) -> AttributeValue | None:
    assert isinstance(operand, Call)  # the only one that binding lets through is size
    value = _value(operand.operands[0], item)
    size = None if value is None else size_of(value)
    return None if size is None else {"N": str(size)}


def _exists(value: AttributeValue) -> bool:
    return True


def _is_of_type(value: AttributeValue, kind: AttributeValue) -> bool:
    return kind.get("S") in value


_FUNCTIONS: Final[dict[str, Callable[..., bool]]] = {
    "attribute_exists": _exists,
    "attribute_type": _is_of_type,
    "begins_with": begins_with,
    "contains": contains,
}
_HOLDS: Final[dict[type, Callable[[Any, Item], bool]]] = {
    Both: _both,
    Either: _either,
    Not: _not,
    Comparison: _comparison,
    Between: _between,
    In: _in,
    Call: _call,
}
