from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.errors import CorruptionError
from merganser.model.register import EMPTY, UNWRITTEN, Content, Intent, Register, Version
from merganser.storage.registers import (
    decode_register,
    encode_register,
    is_later,
    is_tombstone,
    may_have_outbox,
    value_at,
    values_in,
    version_of,
)
from merganser.storage.values import check_row, decode_row, seal

KEY = b"\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x00user\x00\x01"

versions = st.builds(Version, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
values = st.none() | st.binary(max_size=30)
intents = st.builds(Intent, st.binary(min_size=16, max_size=16), st.integers(0, 9), st.booleans(), values)
outboxes = st.lists(st.tuples(st.integers(1, 2**32 - 2), st.binary(max_size=20)), max_size=3).map(tuple)
registers = st.builds(Register, versions, st.builds(Content, values, st.none() | intents, outboxes))


@given(st.binary(max_size=40), registers)
def test_a_register_comes_back_as_it_was_stored(key: bytes, register: Register) -> None:
    stored = encode_register(key, register)
    check_row(key, stored)
    assert decode_register(key, stored) == register
    assert version_of(key, stored) == register.version
    assert is_tombstone(key, stored) == (register.content == EMPTY)
    assert may_have_outbox(stored) == bool(register.content.outbox)
    at = value_at(key, stored)
    assert (None if at is None else stored[at:]) == register.content.value


@given(registers, registers)
def test_the_later_of_two_stored_registers_is_found_in_their_bytes(one: Register, other: Register) -> None:
    assert is_later(KEY, encode_register(KEY, one), encode_register(KEY, other)) == (one.version > other.version)


@pytest.mark.parametrize("stored", [seal(KEY, b""), seal(KEY, b"\x01" * 40)])
def test_what_is_no_register_is_neither_earlier_nor_later(stored: bytes) -> None:
    register = encode_register(KEY, UNWRITTEN)
    for one, other in (stored, register), (register, stored):
        with pytest.raises(CorruptionError):
            is_later(KEY, one, other)


@given(registers, st.data())
def test_a_flipped_bit_is_found(register: Register, data: st.DataObject) -> None:
    stored = bytearray(encode_register(KEY, register))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptionError):
        decode_register(KEY, bytes(stored))


@given(registers, st.data())
def test_a_register_cut_short_is_found(register: Register, data: st.DataObject) -> None:
    stored = encode_register(KEY, register)
    with pytest.raises(CorruptionError):
        decode_register(KEY, stored[: data.draw(st.integers(0, len(stored) - 1))])


@given(st.lists(st.tuples(st.binary(min_size=1), registers), max_size=5))
def test_the_values_of_checked_rows_are_those_that_decoding_finds(rows: list[tuple[bytes, Register]]) -> None:
    stored = [(key, encode_register(key, register)) for key, register in rows]
    decoded = [(key, decode_register(key, row).value) for key, row in stored]
    assert values_in(stored) == [(key, value) for key, value in decoded if value is not None]


def test_a_row_that_is_no_register_has_no_value_among_them() -> None:
    with pytest.raises(CorruptionError, match="no register"):
        values_in([(b"k", seal(b"k", b"\x01" * 40))])


def test_what_is_not_stored_was_never_written() -> None:
    assert decode_register(KEY, None) is UNWRITTEN


def test_a_register_is_no_row() -> None:
    stored = encode_register(KEY, Register(Version(1, 1, 1), Content(b"value")))
    with pytest.raises(CorruptionError, match="unknown shape 2"):
        decode_row(KEY, stored)


def test_a_version_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        encode_register(KEY, Register(Version(2**64, 0, 0), EMPTY))


def test_versions_compare_epoch_first() -> None:
    assert Version(2, 1, 1) > Version(1, 9, 99) > Version(1, 8, 100)
