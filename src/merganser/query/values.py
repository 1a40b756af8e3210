"""Attribute values in normal form: how they compare, and what can be asked of them.

Normal form (`wire.dynamodb.attributes`) makes equality that of the dicts: a number has one text, the members of a set
one order, and no value of one type equals one of another. Order exists within S, N and B only: strings and binaries
byte by byte, numbers by value, exactly.
"""

from __future__ import annotations

import binascii
from decimal import Decimal
from typing import Any, Final

AttributeValue = dict[str, Any]
"""One member: the type, and what it holds."""

ORDERED: Final = frozenset("SNB")
PREFIXED: Final = frozenset("SB")
FLAT: Final = frozenset(("N", "BOOL", "NULL"))
SETS: Final = frozenset(("SS", "NS", "BS"))
_HOLDERS: Final = {"S": "SS", "N": "NS", "B": "BS"}


def kind_of(value: AttributeValue) -> str:
    """Return S, N, B, …"""
    return next(iter(value))


def order_of(value: AttributeValue) -> Any:
    """Return what stands for a value of a type in `ORDERED` when it is compared to others of that type."""
    ((kind, content),) = value.items()
    if kind == "N":
        return Decimal(content)
    return content if kind == "S" else binascii.a2b_base64(content)  # code points order as UTF-8 does


def are_ordered(*values: AttributeValue | None) -> bool:
    """Tell whether the values are all there and of one type that has an order."""
    first = values[0]
    if first is None:
        return False
    kind = kind_of(first)
    return kind in ORDERED and all(value is not None and kind in value for value in values)


def begins_with(value: AttributeValue, prefix: AttributeValue) -> bool:
    """Tell whether a string or binary begins with another."""
    kind = kind_of(value)
    return kind in PREFIXED and kind in prefix and bool(order_of(value).startswith(order_of(prefix)))


def contains(value: AttributeValue, element: AttributeValue) -> bool:
    """Tell whether a string or binary has a part, or a set or list an element."""
    ((kind, content),) = value.items()
    if kind == "L":
        return element in content
    ((element_kind, element_content),) = element.items()
    if kind in PREFIXED and kind == element_kind:
        return order_of(element) in order_of(value)
    return _HOLDERS.get(element_kind) == kind and element_content in content


def bulk_of(value: AttributeValue) -> int:
    """Return how many bytes a value takes at least: each member of a set, list or map one, and text a quarter."""
    ((kind, content),) = value.items()
    if kind in FLAT:
        return 0
    if kind in PREFIXED:
        return len(content) // 4  # base64 takes four for one when it is short
    if kind == "L":
        return len(content) + sum([bulk_of(element) for element in content])
    if kind == "M":
        return len(content) + sum([bulk_of(member) for member in content.values()])
    return len(content)


def size_of(value: AttributeValue) -> int | None:
    """Return the number of bytes of a string or binary, or of elements; None for types that have no size.

    That strings count in UTF-8 is what the Developer Guide says of the sizes of items; of the function it
    says "length".
    """
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "B":
        return len(binascii.a2b_base64(content))
    return None if kind in ("N", "BOOL", "NULL") else len(content)
