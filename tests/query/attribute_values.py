"""Native values for attribute values, so that a test's model of the language can lean on Python's own."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from merganser.wire.dynamodb.attributes import normalise_value

NAMES = ("a", "b", "c")


def attribute_value(native: Any) -> dict[str, Any]:
    """Return the attribute value of a native one, in normal form."""
    value = _spelled(native)
    normalise_value(value)
    return value


def item_of(native: dict[str, Any]) -> dict[str, Any]:
    return {name: attribute_value(value) for name, value in native.items()}


def _spelled(native: Any) -> dict[str, Any]:
    match native:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": native}
        case int() | Decimal():
            return {"N": str(native)}
        case str():
            return {"S": native}
        case bytes():
            return {"B": base64.b64encode(native).decode()}
        case list():
            return {"L": [_spelled(element) for element in native]}
        case dict():
            return {"M": {name: _spelled(value) for name, value in native.items()}}
        case frozenset():
            members = [_spelled(member) for member in native]
            kind = next(iter(members[0]))
            return {kind + "S": [member[kind] for member in members]}
        case _:
            raise AssertionError(native)


numbers = st.sampled_from([Decimal(text) for text in ("0", "1", "2", "10", "-1", "1.5", "1E+2", "1E-130")])
strings = st.sampled_from(["", "a", "ab", "b", "é", "\U0001f986"])
binaries = st.sampled_from([b"", b"a", b"ab", b"\xff"])
ordered = numbers | strings | binaries
sets = st.one_of(*(st.frozensets(kind, min_size=1, max_size=3) for kind in (numbers, strings, binaries)))
scalars = ordered | st.none() | st.booleans()
values = st.recursive(
    scalars | sets,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=4,
)
items = st.dictionaries(st.sampled_from(NAMES), values, max_size=3)
