"""Key attributes as bytes whose order is the order of the values.

A string is its UTF-8 bytes, a binary is itself. A number has its own encoding, because DynamoDB's
numbers are exact decimals of up to 38 significant digits::

    sign     1 byte   01 negative, 02 zero (which ends here), 03 positive
    exponent 1 byte   of the first digit: 1E-130 is 00, 9E+125 is FF; complemented if negative
    digits   packed   two to a byte, digit + 1 in each half byte, then 0 as the end; complemented if negative

The end is lower than every digit, so 1.2 comes before 1.23, and nothing has to say how long the number
is. One value has one encoding: '1', '1.0', '1e0' and '+01' are the same bytes.

Source: ranges and messages as Amazon DynamoDB gives them (Developer Guide, "Data types: Number").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from merganser.model.errors import CorruptionError, RequestError

DIGITS_MAX = 38
EXPONENT_MIN = -130
EXPONENT_MAX = 125

# What already is the normal form, and surely has at most 38 digits: nearly every number clients send.
_NORMAL = re.compile(r"0|-?(?:[1-9][0-9]{0,37}|[1-9][0-9]{0,18}\.[0-9]{0,18}[1-9]|0\.[0-9]{0,36}[1-9])").fullmatch
_INTEGER = re.compile(r"-?[1-9][0-9]{0,37}").fullmatch
_ANY = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?)([0-9]+))?").fullmatch

_EXPONENT_FAR = 10**18  # beyond this an exponent outweighs any mantissa that fits into memory

_NEGATIVE, _ZERO, _POSITIVE = b"\x01", b"\x02", b"\x03"
_UP = str.maketrans("0123456789", "123456789a")
_DOWN = str.maketrans("0123456789", "edcba98765")
_FROM_UP = str.maketrans("123456789a", "0123456789")
_FROM_DOWN = str.maketrans("edcba98765", "0123456789")


class NumberError(RequestError, ValueError):
    """Not a number DynamoDB can hold; the message is DynamoDB's."""


class _Number(NamedTuple):
    """0 or ± d.ddd × 10 ** exponent."""

    is_negative: bool
    digits: str
    """Significant digits, neither the first nor the last is 0; empty for zero."""
    exponent: int


def encode_string(text: str) -> bytes:
    """Return the bytes of a string key."""
    return text.encode()


def encode_binary(data: bytes) -> bytes:
    """Return the bytes of a binary key."""
    return data


def encode_number(text: str) -> bytes:
    """Return the bytes of a number key, 1 to 22 of them; no encoding is a prefix of another.

    Raises:
        NumberError: not a number, too large, too small or too precise.
    """
    is_negative, digits, exponent = _parse(text)
    if not digits:
        return _ZERO
    padding = "00" if len(digits) % 2 == 0 else "0"
    if is_negative:
        packed = bytes.fromhex(digits.translate(_DOWN) + padding.replace("0", "f"))
        return _NEGATIVE + (EXPONENT_MAX - exponent).to_bytes(1, "big") + packed
    return _POSITIVE + (exponent - EXPONENT_MIN).to_bytes(1, "big") + bytes.fromhex(digits.translate(_UP) + padding)


def decode_number(data: bytes) -> str:
    """Return the normal form (see `canonical_number`) of an encoded number.

    Raises:
        CorruptionError: `encode_number` never returned these bytes.
    """
    text = _unpack(data)
    try:
        is_intact = encode_number(text) == data
    except NumberError:
        is_intact = False
    if not is_intact:
        raise CorruptionError(f"not an encoded number: {data[:32].hex()}")
    return text


def canonical_number(text: str) -> str:
    """Return the number as DynamoDB returns it: plain digits, no exponent, no needless zero.

    Raises:
        NumberError: not a number, too large, too small or too precise.
    """
    if _NORMAL(text):
        return text
    return _plain(_parse(text))


def _parse(text: str) -> _Number:
    if _INTEGER(text):
        is_negative = text[0] == "-"
        digits = text[1:] if is_negative else text
        return _Number(is_negative, digits.rstrip("0"), len(digits) - 1)
    match = _ANY(text)
    if match is None:
        shown = f": {text}" if text else ""
        raise NumberError(f"The parameter cannot be converted to a numeric value{shown}")
    sign, whole, fraction, bare_fraction, exponent_sign, exponent_digits = match.groups("")
    digits = (whole + fraction + bare_fraction).lstrip("0")
    if not digits:
        return _Number(False, "", 0)
    exponent = _exponent(exponent_sign, exponent_digits) + len(digits) - len(fraction + bare_fraction) - 1
    return _checked(_Number(sign == "-", digits.rstrip("0"), exponent))


def _exponent(sign: str, digits: str) -> int:
    digits = digits.lstrip("0")
    magnitude = int(digits or "0") if len(digits) <= 18 else _EXPONENT_FAR
    return -magnitude if sign == "-" else magnitude


def _checked(number: _Number) -> _Number:
    if number.exponent > EXPONENT_MAX:
        raise NumberError("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if number.exponent < EXPONENT_MIN:
        raise NumberError("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    if len(number.digits) > DIGITS_MAX:
        raise NumberError("Attempting to store more than 38 significant digits in a Number")
    return number


def _plain(number: _Number) -> str:
    is_negative, digits, exponent = number
    if not digits:
        return "0"
    sign = "-" if is_negative else ""
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def _unpack(data: bytes) -> str:
    """Return the number ``data`` stands for if it is intact, and any text if it is not."""
    if len(data) < 3:
        return "0" if data == _ZERO else ""
    packed = data[2:].hex()
    if data[:1] == _NEGATIVE:
        return _plain(_Number(True, packed.rstrip("f").translate(_FROM_DOWN), EXPONENT_MAX - data[1]))
    return _plain(_Number(False, packed.rstrip("0").translate(_FROM_UP), data[1] + EXPONENT_MIN))
