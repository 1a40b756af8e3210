from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.causal_rows import cell_of
from merganser.core.rows import merge
from merganser.model.errors import CorruptionError
from merganser.model.row import Cell, Dot, Row, Span
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.storage.values import check_row, decode_row, encode_row, replaces, seal, sole_value, unseal

KEY = b"\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x00user\x00\x01"
NOW = Timestamp(1_700_000_000_000_000, 3)
ONE_CELL = Row((Cell(b"", NOW, b"an item"),))
EMPTY_VALUE = Row((Cell(b"", NOW, b""),))
BURIED = Row((), deleted_at=NOW)
DELETED_CELL = Row((Cell(b"", NOW, None),))
EXPIRING = Row((Cell(b"session", NOW, b"x", expires_at_s=0),))
MANY = Row(
    (Cell(b"a", NOW, b"1"), Cell(b"b", NOW, None), Cell(b"c", NOW, b"", -5)), deleted_at=Timestamp(-1, 2**32 - 1)
)
DOT = Dot(NOW.micros, NOW.writer, NOW.micros - 5)
SEEN = (Span(2, 7, 7, 9), Span(3, DOT.epoch, DOT.epoch, DOT.micros))
SIBLINGS = Row((cell_of(b"", DOT, b"a cart", expires_at_s=9),), BEGINNING, SEEN)
DELETED_KEY = Row((), BEGINNING, SEEN)
EXAMPLES = [ONE_CELL, EMPTY_VALUE, BURIED, DELETED_CELL, EXPIRING, MANY, Row(()), SIBLINGS, DELETED_KEY]

timestamps = st.builds(Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1))
cells = st.builds(
    Cell,
    name=st.binary(max_size=8),
    written_at=timestamps,
    value=st.none() | st.binary(max_size=30),
    expires_at_s=st.none() | st.integers(-(2**63), 2**63 - 1),
)
rows = st.builds(Row, st.lists(cells, max_size=4).map(tuple), st.just(BEGINNING) | timestamps)


@given(st.binary(max_size=40), rows)
def test_a_row_comes_back_as_it_was_stored(key: bytes, row: Row) -> None:
    stored = encode_row(key, row)
    check_row(key, stored)
    assert decode_row(key, stored) == row


@pytest.mark.parametrize("row", EXAMPLES)
def test_an_example_comes_back_as_it_was_stored(row: Row) -> None:
    assert decode_row(KEY, encode_row(KEY, row)) == row


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(SIBLINGS.cells, BEGINNING, SEEN[:1]), "no dot of the context"),
        (Row((Cell(b"a", NOW, b"x"),), BEGINNING, SEEN), "no dot of the context"),
        (Row((Cell(SIBLINGS.cells[0].name, Timestamp(1, 1), b"x"),), BEGINNING, SEEN), "at the time of its dot"),
        (Row((), BEGINNING, SEEN[::-1]), "not in order"),
    ],
)
def test_a_causal_row_that_makes_no_sense_is_refused(row: Row, reason: str) -> None:
    with pytest.raises(CorruptionError, match=reason):
        decode_row(KEY, encode_row(KEY, row))


@pytest.mark.parametrize("row", EXAMPLES)
def test_every_flipped_bit_is_found(row: Row) -> None:
    stored = encode_row(KEY, row)
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError, match=r"format version|checksum"):
            decode_row(KEY, bytes(damaged))
        with pytest.raises(CorruptionError):
            check_row(KEY, bytes(damaged))


@pytest.mark.parametrize("row", EXAMPLES)
def test_every_truncation_is_found(row: Row) -> None:
    stored = encode_row(KEY, row)
    for length in range(len(stored)):
        with pytest.raises(CorruptionError):
            decode_row(KEY, stored[:length])


@given(rows, st.binary(min_size=1, max_size=5))
def test_trailing_garbage_is_found(row: Row, garbage: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_row(KEY, encode_row(KEY, row) + garbage)


@given(rows, st.binary(min_size=1, max_size=5))
def test_trailing_garbage_under_a_good_checksum_is_found(row: Row, garbage: bytes) -> None:
    with pytest.raises(CorruptionError, match="by its own lengths"):
        decode_row(KEY, seal(KEY, unseal(KEY, encode_row(KEY, row)) + garbage))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_row_are_corruption_even_under_a_good_checksum(body: bytes) -> None:
    try:
        row = decode_row(KEY, seal(KEY, body))
    except CorruptionError:
        return
    assert decode_row(KEY, encode_row(KEY, row)) == row


@given(rows, st.binary(max_size=30))
def test_a_row_under_the_wrong_key_is_corruption(row: Row, other: bytes) -> None:
    if other == KEY:
        return
    with pytest.raises(CorruptionError, match=f"under key {other.hex()}: checksum"):
        decode_row(other, encode_row(KEY, row))


def test_the_message_says_what_was_found() -> None:
    stored = encode_row(KEY, ONE_CELL)
    with pytest.raises(CorruptionError, match="format version 9, this node knows 1"):
        decode_row(KEY, b"\x09" + stored[1:])
    with pytest.raises(CorruptionError, match=f"checksum [0-9a-f]{{8}}, stored with {stored[1:5].hex()}"):
        decode_row(KEY, stored[:-1] + b"?")
    with pytest.raises(CorruptionError, match=r"3 bytes .* too short"):
        decode_row(KEY, stored[:3])
    with pytest.raises(CorruptionError, match="unknown shape 7"):
        decode_row(KEY, seal(KEY, b"\x07" + bytes(16)))


def test_a_name_too_long_to_store_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        encode_row(KEY, Row((Cell(bytes(65_536), NOW, b""),)))


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_sealed_metadata_comes_back(key: bytes, payload: bytes) -> None:
    assert unseal(key, seal(key, payload)) == payload


def test_damaged_metadata_is_corruption() -> None:
    sealed = seal(b"ballot", b"12")
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            unseal(b"ballot", bytes(damaged))
    with pytest.raises(CorruptionError):
        unseal(b"accepted", sealed)


single = st.builds(
    lambda name, micros, writer, value: Row((Cell(name, Timestamp(micros, writer), value),)),
    st.sampled_from([b"", b"a", b"b"]),
    st.integers(-2, 2),
    st.integers(0, 1),
    st.sampled_from([b"", b"v", b"w"]),
)


@given(single | rows | st.sampled_from(EXAMPLES), single | rows | st.sampled_from(EXAMPLES))
def test_what_replaces_a_row_is_what_both_come_to(later: Row, held: Row) -> None:
    if replaces(encode_row(KEY, later), encode_row(KEY, held)):
        assert merge(held, later) == later != held


@pytest.mark.parametrize(
    ("name", "at", "is_so"),
    [
        (b"", NOW, False),
        (b"", Timestamp(NOW.micros, NOW.writer + 1), True),
        (b"", Timestamp(NOW.micros + 1, 0), True),
        (b"", Timestamp(NOW.micros - 1, 9), False),
        (b"x", Timestamp(NOW.micros + 1, 0), False),
    ],
)
def test_a_cell_replaces_one_of_its_name_that_is_earlier(name: bytes, at: Timestamp, is_so: bool) -> None:
    later = Row((Cell(name, at, b"another item"),))
    assert replaces(encode_row(KEY, later), encode_row(KEY, ONE_CELL)) == is_so


def test_a_row_that_contradicts_its_own_lengths_is_not_replaced_unseen() -> None:
    later = encode_row(KEY, Row((Cell(b"", Timestamp(NOW.micros + 1, 0), b"v"),)))
    assert not replaces(later, encode_row(KEY, ONE_CELL)[:-1])


@given(row=rows | st.sampled_from(EXAMPLES), name=st.sampled_from([b"", b"session", b"a"]))
def test_the_sole_value_of_a_row_is_what_decoding_finds(row: Row, name: bytes) -> None:
    found = sole_value(encode_row(KEY, row), name)
    if found is not None:
        assert [(cell.name, cell.value, cell.expires_at_s) for cell in row.cells] == [(name, found, None)]
        assert row.deleted_at == BEGINNING


@pytest.mark.parametrize(("row", "value"), [(ONE_CELL, b"an item"), (EMPTY_VALUE, b""), (EXPIRING, None), (MANY, None)])
def test_only_a_row_of_one_cell_that_cannot_end_has_a_sole_value(row: Row, value: bytes | None) -> None:
    assert sole_value(encode_row(KEY, row), b"") == value
    assert sole_value(encode_row(KEY, row), b"other") is None
    assert sole_value(encode_row(KEY, row)[:-1], b"") is None
