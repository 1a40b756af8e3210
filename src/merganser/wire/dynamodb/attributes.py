"""Attribute values: validation, normal form and size in one pass over what orjson parsed.

The pass works in place, because the parsed body belongs to the request alone: numbers become
canonical, sets are put in order (a set has none of its own), members that DynamoDB does not know
are dropped. What comes out is what is stored and what is given back.

Sizes are DynamoDB's own counting (Developer Guide, "Item sizes and formats"): names and strings in
UTF-8, binaries raw, a number a byte for two digits and one more, 3 for a list or map and one for
each element.

Errors come in DynamoDB's words. A value of another JSON type than the API's is a
`SerializationError`; DynamoDB finds those in the whole body before it validates anything, so whoever
catches a `ValidationError` from here asks `shapes` to look at the body again (a slow path for wrong
requests only).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any, Final

from merganser.storage.ordered import NumberError, canonical_number
from merganser.wire.dynamodb import shapes
from merganser.wire.dynamodb.errors import ValidationError

ITEM_BYTES_MAX: Final = 400 * 1024
LEVELS_MAX: Final = 32
NAME_BYTES_MAX: Final = 65535

_EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
_MANY = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
_INVALID = "One or more parameter values were invalid: "
_TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
)

AttributeMap = dict[str, Any]
"""Attribute name to attribute value, as JSON gives it."""


class TooLargeError(ValidationError):
    """Larger than any item: what is left of it is not looked into, which for 13 MB would take some seconds."""

    def __init__(self, message: str = "Item size has exceeded the maximum allowed size") -> None:
        """Take DynamoDB's text."""
        super().__init__(message)


def normalise(attributes: AttributeMap, level: int = 1) -> int:
    """Bring ``attributes`` into normal form, in place, and return their size in bytes.

    Args:
        attributes: straight from JSON and owned by the caller; half changed when this raises.
        level: how deep the values lie, 1 for those of an item.

    Raises:
        TooLargeError: too much for an item.
        ValidationError: not what DynamoDB stores.
        SerializationError: not of the API's JSON types.
    """
    size = 0
    for name, value in attributes.items():
        size += _name_size(name) + normalise_value(value, level)
        if size > ITEM_BYTES_MAX:
            raise TooLargeError
    return size


def normalise_value(value: Any, level: int = 1) -> int:
    """Bring one attribute value into normal form, in place, and return its size in bytes.

    Raises:
        ValidationError: not what DynamoDB stores.
        SerializationError: not of the API's JSON types.
    """
    if level > LEVELS_MAX:
        raise ValidationError(_TOO_DEEP)
    if type(value) is not dict or len(value) != 1:
        value = _cleaned(value)
    for kind, content in value.items():
        measure = _MEASURE.get(kind)
        if measure is None or content is None:
            break
        return measure(value, content, level)
    raise ValidationError(_EMPTY)


def string_size(text: str) -> int:
    """Return the length of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def number_size(canonical: str) -> int:
    """Return the size DynamoDB counts for a number in its normal form: 1 to 21.

    A byte for each two digits (in pairs counted from the decimal point, zeros at the ends left out),
    one more for the exponent, and one for the sign if it is negative.
    """
    if canonical == "0":
        return 1
    unsigned = canonical.lstrip("-")
    whole, _, fraction = unsigned.partition(".")
    significant = (whole + fraction).strip("0")
    exponent = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    pairs = (len(significant) + 1) // 2 if exponent % 2 else len(significant) // 2 + 1
    return 1 + pairs + (len(unsigned) < len(canonical))


def decode_binary(text: str) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        SerializationError: not strict base64.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        raise shapes.base64_error(text) from None
    if text.endswith("=") and binascii.b2a_base64(data, newline=False).decode() != text:
        raise shapes.base64_error(text)
    return data


def _name_size(name: str) -> int:
    size = len(name) if name.isascii() else len(name.encode())
    if not 0 < size <= NAME_BYTES_MAX:
        raise ValidationError(
            "Attribute name is too large, must be less than 65536 bytes" if size else "Empty attribute name"
        )
    return size


def _cleaned(value: Any) -> dict[str, Any]:
    """Drop what DynamoDB would not see: unknown members and nulls."""
    if value is None:
        raise ValidationError(_EMPTY)
    shapes.check_value(value)
    for kind in [kind for kind, content in value.items() if content is None or kind not in _MEASURE]:
        del value[kind]
    if len(value) > 1:
        for kind, content in value.items():  # DynamoDB looks into each before it counts them
            _MEASURE[kind](value, content, 1)
        raise ValidationError(_MANY)
    return value  # type: ignore[no-any-return]


def _string(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not str:
        raise shapes.mismatch(value)
    return len(content) if content.isascii() else len(content.encode())


def _number(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not str:
        raise shapes.mismatch(value)
    canonical = value["N"] = canonical_of(content)
    return number_size(canonical)


def canonical_of(text: str) -> str:
    """Return the normal form of a number.

    Raises:
        ValidationError: not a number DynamoDB can hold.
    """
    try:
        return canonical_number(text)
    except NumberError as error:
        raise ValidationError(str(error)) from None


def _binary(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not str:
        raise shapes.mismatch(value)
    return len(decode_binary(content))


def _boolean(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not bool:
        shapes.check_value(value)  # a text that says so is one
    return 1


def _null(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not bool:
        shapes.check_value(value)
        content = value["NULL"]
    if not content:
        raise ValidationError(_INVALID + "Null attribute value types must have the value of true")
    return 1


def _map(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not dict:
        raise shapes.mismatch(value)
    return 3 + len(content) + normalise(content, level + 1)


def _list(value: AttributeMap, content: Any, level: int) -> int:
    if type(content) is not list:
        raise shapes.mismatch(value)
    size = 3 + len(content)
    for element in content:
        size += normalise_value(element, level + 1)
        if size > ITEM_BYTES_MAX:
            raise TooLargeError
    return size


def _strings(value: AttributeMap, content: Any, level: int) -> int:
    members = _members(value, content, "An string set  may not be empty")
    if len(set(members)) != len(members):
        raise ValidationError(f"{_INVALID}Input collection [{', '.join(members)}] contains duplicates.")
    value["SS"] = sorted(members)  # code points order as UTF-8 does
    return sum(map(string_size, members))


def _numbers(value: AttributeMap, content: Any, level: int) -> int:
    members = [canonical_of(member) for member in _members(value, content, "An number set  may not be empty")]
    if len(set(members)) != len(members):
        raise ValidationError("Input collection contains duplicates")
    value["NS"] = sorted(members, key=shapes.exact)
    return sum(map(number_size, members))


def _binaries(value: AttributeMap, content: Any, level: int) -> int:
    members = _members(value, content, "Binary sets should not be empty")
    by_bytes = {decode_binary(member): member for member in members}
    if len(by_bytes) != len(members):
        raise ValidationError(
            f"{_INVALID}Input collection [{', '.join(members)}]of type BS contains duplicates."  # sic
        )
    value["BS"] = [by_bytes[data] for data in sorted(by_bytes)]
    return sum(map(len, by_bytes))


def _members(value: AttributeMap, content: Any, if_empty: str) -> list[str]:
    if type(content) is not list or any(type(member) is not str for member in content):
        shapes.check_value(value)
        raise ValidationError(_INVALID + "An string set may not have a null string as a member")
    if not content:
        raise ValidationError(_INVALID + if_empty)
    return content


_MEASURE: dict[str, Callable[[AttributeMap, Any, int], int]] = {
    "S": _string,
    "N": _number,
    "B": _binary,
    "BOOL": _boolean,
    "NULL": _null,
    "M": _map,
    "L": _list,
    "SS": _strings,
    "NS": _numbers,
    "BS": _binaries,
}
