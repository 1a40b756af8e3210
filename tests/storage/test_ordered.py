from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from merganser.model.errors import CorruptionError, RequestError
from merganser.storage.ordered import (
    NumberError,
    canonical_number,
    decode_number,
    encode_binary,
    encode_number,
    encode_string,
)

EXACT = Context(prec=60, Emin=-999_999, Emax=999_999)
OVERFLOW = "Number overflow. Attempting to store a number with magnitude larger than supported range"
UNDERFLOW = "Number underflow. Attempting to store a number with magnitude smaller than supported range"
TOO_PRECISE = "Attempting to store more than 38 significant digits in a Number"
LARGEST = "9" * 38 + "E88"
SMALLEST = "1E-130"


def _legal(sign: str, digits: int, exponent: int) -> str:
    """A legal number whose first digit stands at ``exponent``."""
    return f"{sign}{digits}E{exponent - len(str(digits)) + 1}"


numbers = st.one_of(
    st.just("0"),
    st.integers(-1000, 1000).map(str),
    st.decimals(-1000, 1000, places=2, allow_nan=False).map(lambda number: f"{number:f}"),
    st.builds(_legal, st.sampled_from(["", "-"]), st.integers(1, 10**38 - 1), st.integers(-130, 125)),
    st.builds(_legal, st.sampled_from(["", "-"]), st.integers(1, 200), st.integers(-2, 3)),
)


@given(numbers, numbers)
@example(LARGEST, "9" * 37 + "8E88")
@example("-" + LARGEST, "-" + "9" * 37 + "8E88")
@example(SMALLEST, "0")
@example("-" + SMALLEST, "0")
@example("-" + SMALLEST, SMALLEST)
@example("1.2", "1.23")
@example("-1.2", "-1.23")
@example("99", "100")
def test_byte_order_of_numbers_is_numeric_order(left: str, right: str) -> None:
    a, b = Decimal(left), Decimal(right)
    assert (encode_number(left) < encode_number(right)) == (a < b)
    assert (encode_number(left) == encode_number(right)) == (a == b)


@given(numbers, numbers)
def test_no_encoded_number_is_a_prefix_of_another(left: str, right: str) -> None:
    a, b = encode_number(left), encode_number(right)
    assert a == b or not a.startswith(b)


@given(numbers)
@example(LARGEST)
@example("-" + SMALLEST)
def test_a_number_survives_encoding_exactly(text: str) -> None:
    decoded = decode_number(encode_number(text))
    assert Decimal(decoded) == Decimal(text)
    assert decoded == canonical_number(text)


@given(numbers)
def test_the_normal_form_is_plain_and_has_no_needless_zero(text: str) -> None:
    normal = canonical_number(text)
    assert normal == _plain(Decimal(text))
    assert canonical_number(normal) == normal


def _plain(number: Decimal) -> str:
    return "0" if not number else f"{number.normalize(EXACT):f}"


@pytest.mark.parametrize("text", ["1", "1.0", "1e0", "1E+0", "+1", "01", "10e-1", "0.1e1", "1.", "001.000", ".1e1"])
def test_every_way_to_write_one_has_one_encoding(text: str) -> None:
    assert encode_number(text) == encode_number("1")
    assert canonical_number(text) == "1"


@pytest.mark.parametrize("text", ["0", "-0", "0.0", "-0.00", "0e5", ".0", "0e999999999999999999999", "+0"])
def test_every_way_to_write_zero_has_one_encoding(text: str) -> None:
    assert encode_number(text) == encode_number("0")
    assert canonical_number(text) == "0"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1E2", "100"),
        ("1.50", "1.5"),
        ("-1.50", "-1.5"),
        ("1E125", "1" + "0" * 125),
        ("1E-130", "0." + "0" * 129 + "1"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("1234567890123456789.1234567890123456789", "1234567890123456789.1234567890123456789"),
        ("0.10", "0.1"),
        ("1" + "0" * 125, "1" + "0" * 125),
        ("0." + "0" * 50 + "1e51", "1"),
    ],
)
def test_the_normal_form_is_dynamodbs(text: str, normal: str) -> None:
    assert canonical_number(text) == normal


@pytest.mark.parametrize(
    "text", ["a", "1a", "NaN", "Infinity", " 1", "1 ", "1\n", "1_0", "--1", ".", "e5", "1e", "1e+", "٣", "0x10", "1,5"]
)
def test_what_is_no_number_is_refused_in_dynamodbs_words(text: str) -> None:
    for reader in (canonical_number, encode_number):
        with pytest.raises(NumberError) as refusal:
            reader(text)
        assert str(refusal.value) == f"The parameter cannot be converted to a numeric value: {text}"


def test_an_empty_number_is_refused() -> None:
    with pytest.raises(NumberError, match=r"^The parameter cannot be converted to a numeric value$"):
        canonical_number("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1E126", OVERFLOW),
        ("-1E126", OVERFLOW),
        ("1" + "0" * 126, OVERFLOW),
        ("1e9999999999999999999999", OVERFLOW),
        ("9.9E-131", UNDERFLOW),
        ("-1E-131", UNDERFLOW),
        ("1e-9999999999999999999999", UNDERFLOW),
        ("1" * 39, TOO_PRECISE),
        ("0." + "1" * 39, TOO_PRECISE),
        ("1" * 20 + "." + "1" * 19, TOO_PRECISE),
    ],
)
def test_what_does_not_fit_is_refused_in_dynamodbs_words(text: str, message: str) -> None:
    for reader in (canonical_number, encode_number):
        with pytest.raises(RequestError) as refusal:
            reader(text)
        assert str(refusal.value) == message


@given(st.binary(max_size=24))
@example(b"")
@example(b"\x02\x00")
@example(b"\x03\x82\x20\x00")
@example(b"\x03\x82\x02\x00")
@example(b"\x04\x82\x20")
def test_bytes_that_no_number_has_are_corruption(data: bytes) -> None:
    try:
        text = decode_number(data)
    except CorruptionError:
        return
    assert encode_number(text) == data


@given(st.text(), st.text())
def test_byte_order_of_strings_is_code_point_order(left: str, right: str) -> None:
    assert (encode_string(left) < encode_string(right)) == (left < right)


def test_a_binary_is_itself() -> None:
    assert encode_binary(b"\x00\xff") == b"\x00\xff"
