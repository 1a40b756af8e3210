"""Whether a condition holds for an item.

What is not there compares to nothing, so that every comparison with it is false, and ``<>``, which says that two are
not equal, is true. Values of different types are not equal, and neither comes before the other.

What an evaluation goes through is bounded: 300 operators on a list of 80,000 elements would take a second, in which the
node does nothing else.

Source: Amazon DynamoDB Developer Guide, "Condition and filter expressions, operators, and functions". That ``<>`` holds
for two attributes that are both missing follows from the rule; the guide does not mention it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from merganser.query.documents import Item, value_at
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
from merganser.query.values import (
    FLAT,
    PREFIXED,
    AttributeValue,
    are_ordered,
    begins_with,
    bulk_of,
    contains,
    kind_of,
    order_of,
    size_of,
)

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NESTED: Final = frozenset("LM")
_SMALL: Final = 1000  # of text or a set: as often as an expression can, it is nothing
_GOING_THROUGH: Final = frozenset(("begins_with", "contains"))


BULK_MAX: Final = 2_000_000
"""Of all that functions and comparisons go through, by `bulk_of`: 0.1 s at worst. The largest item goes in five times
at least; what has 6,000 bytes goes in as often as there may be operators."""


class _Look:
    """An evaluation: the item, and how much of it may still be gone through."""

    __slots__ = ("bulks", "item", "left")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.left = BULK_MAX
        self.bulks: dict[int, int] = {}
        """Of values met, by identity: they live as long as the item and the condition."""

    def through(self, value: AttributeValue) -> None:
        """Note that a value is gone through."""
        ((kind, content),) = value.items()
        if kind in FLAT or (len(content) < _SMALL and kind not in _NESTED):
            return
        bulk = self.bulks.get(id(value))
        if bulk is None:
            bulk = self.bulks[id(value)] = bulk_of(value)
        self.left -= bulk
        if self.left < 0:
            raise ExpressionError(
                "The expression goes through too much of the item: use fewer functions and comparisons on large "
                "attributes"
            )


def holds(condition: Condition, item: Item) -> bool:
    """Tell whether a condition, its placeholders filled in, holds for an item; {} stands for one that is not there.

    Raises:
        ExpressionError: that takes too long; the message is whole.
    """
    return _holds(condition, _Look(item))


def _holds(condition: Condition, look: _Look) -> bool:
    return _HOLDS[type(condition)](condition, look)


def _both(condition: Both, look: _Look) -> bool:
    return _holds(condition.left, look) and _holds(condition.right, look)


def _either(condition: Either, look: _Look) -> bool:
    return _holds(condition.left, look) or _holds(condition.right, look)


def _not(condition: Not, look: _Look) -> bool:
    return not _holds(condition.condition, look)


def _comparison(condition: Comparison, look: _Look) -> bool:
    left, right = _value(condition.left, look), _value(condition.right, look)
    if left is not None and right is not None and "N" not in left:
        look.through(left)
    if condition.operator == "=":
        return left is not None and left == right
    if condition.operator == "<>":
        return left is None or left != right
    if left is None or right is None or not are_ordered(left, right):
        return False
    return _ORDER[condition.operator](order_of(left), order_of(right))


def _between(condition: Between, look: _Look) -> bool:
    value, low, high = _value(condition.operand, look), _value(condition.low, look), _value(condition.high, look)
    if value is None or low is None or high is None or not are_ordered(value, low, high):
        return False
    for operand in (value, low, high):
        look.through(operand)
    return bool(order_of(low) <= order_of(value) <= order_of(high))


def _in(condition: In, look: _Look) -> bool:
    value = _value(condition.operand, look)
    return value is not None and any(_is_choice(value, choice, look) for choice in condition.choices)


def _is_choice(value: AttributeValue, choice: Operand, look: _Look) -> bool:
    look.through(value)
    return value == _value(choice, look)


def _call(condition: Call, look: _Look) -> bool:
    operands = [_value(operand, look) for operand in condition.operands]
    if condition.function == "attribute_not_exists":
        return operands[0] is None
    if None in operands:
        return False
    if condition.function in _GOING_THROUGH:
        for operand in operands:
            if operand is not None:
                look.through(operand)
    return _FUNCTIONS[condition.function](*operands)


def _value(operand: Operand, look: _Look) -> AttributeValue | None:
    if type(operand) is Value:
        return operand.content
    if type(operand) is Path:
        return value_at(look.item, operand)
    return _size(operand, look)


def _size(operand: Operand, look: _Look) -> AttributeValue | None:
    assert isinstance(operand, Call)  # the only one that binding lets through is size
    value = _value(operand.operands[0], look)
    if value is not None and kind_of(value) in PREFIXED:
        look.through(value)
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
_HOLDS: Final[dict[type, Callable[[Any, _Look], bool]]] = {
    Both: _both,
    Either: _either,
    Not: _not,
    Comparison: _comparison,
    Between: _between,
    In: _in,
    Call: _call,
}
