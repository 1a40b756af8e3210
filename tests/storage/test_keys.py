from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId, Token
from merganser.storage import keys

tables = st.integers(1, 2**32 - 2).map(TableId) | st.integers(1, 3).map(TableId)
tokens = st.integers(-(2**63), 2**63 - 1).map(Token) | st.integers(-2, 2).map(Token)
awkward = st.lists(st.sampled_from([0, 1, 2, 0x61, 0xFE, 0xFF]), max_size=6).map(bytes)
parts = st.tuples(tables, tokens, awkward | st.binary(max_size=20), awkward | st.binary(max_size=20))


@given(parts, parts)
def test_order_of_keys_is_order_of_their_parts(
    left: tuple[TableId, Token, bytes, bytes], right: tuple[TableId, Token, bytes, bytes]
) -> None:
    assert (keys.row_key(*left) < keys.row_key(*right)) == (left < right)


@given(tables, tokens, awkward, awkward, awkward, awkward)
def test_partition_keys_of_one_token_never_interleave(
    table: TableId, token: Token, left: bytes, right: bytes, sort: bytes, other_sort: bytes
) -> None:
    key, other = keys.row_key(table, token, left, sort), keys.row_key(table, token, right, other_sort)
    assert (key < other) == ((left, sort) < (right, other_sort))
    assert other.startswith(keys.partition_prefix(table, token, left)) == (left == right)


@given(parts)
def test_a_key_splits_into_what_it_was_made_of(row: tuple[TableId, Token, bytes, bytes]) -> None:
    key = keys.row_key(*row)
    assert keys.split_row_key(key) == row
    assert (keys.table_in(key), keys.token_in(key)) == row[:2]


@given(st.binary(max_size=30) | awkward.map(lambda tail: bytes(11) + b"\x01" + tail))
def test_a_split_gives_the_same_key_back_or_is_corruption(key: bytes) -> None:
    try:
        row = keys.split_row_key(key)
    except CorruptionError:
        return
    assert keys.row_key(*row) == key


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\x00\x00\x00\x01",
        keys.row_key(TableId(1), Token(5), b"a")[:-1],
        keys.row_key(TableId(1), Token(5), b"").replace(b"\x00\x01", b"\x00\x02"),
        b"\x00\x00\x00\x01" + bytes(8) + b"a\x00b\x00\x01",
        keys.metadata_key("ballot and more \x00\x01"),
    ],
)
def test_garbage_is_corruption(key: bytes) -> None:
    with pytest.raises(CorruptionError, match="not the key of a row"):
        keys.split_row_key(key)


def test_a_short_key_has_no_token_and_no_table() -> None:
    for read in (keys.token_in, keys.table_in):
        with pytest.raises(CorruptionError, match=r"010203 \(3 bytes\)"):
            read(b"\x01\x02\x03")


@given(tables, parts)
def test_a_tables_range_holds_its_keys_and_no_others(table: TableId, row: tuple[TableId, Token, bytes, bytes]) -> None:
    start, end = keys.table_range(table)
    assert (start <= keys.row_key(*row) < end) == (row[0] == table)


@given(tables, tokens, tokens, parts)
def test_a_token_range_holds_both_its_ends(
    table: TableId, one: Token, other: Token, row: tuple[TableId, Token, bytes, bytes]
) -> None:
    first, last = min(one, other), max(one, other)
    start, end = keys.token_range(table, first, last)
    for token in (first, last, row[1]):
        key = keys.row_key(row[0], token, row[2], row[3])
        assert (start <= key < end) == (row[0] == table and first <= token <= last)


@given(st.binary(min_size=1, max_size=6), awkward)
def test_the_end_of_a_prefix_is_the_first_key_beyond_it(prefix: bytes, tail: bytes) -> None:
    if not prefix.strip(b"\xff"):
        with pytest.raises(ValueError, match=f"begins with {prefix.hex()}"):
            keys.prefix_end(prefix)
        return
    end = keys.prefix_end(prefix)
    assert prefix + tail < end
    assert not any(prefix < bigger < end and not bigger.startswith(prefix) for bigger in (prefix + tail, tail))


@given(awkward, awkward)
def test_nothing_lies_between_a_key_and_the_one_after_it(key: bytes, other: bytes) -> None:
    assert key < keys.after(key)
    assert not key < other < keys.after(key)


def test_metadata_lies_before_every_table() -> None:
    assert keys.metadata_key("ÿÿÿÿÿÿÿÿÿÿÿ") < keys.table_range(TableId(1))[0]
    assert keys.table_in(keys.metadata_key("ballot")) == 0


targets = st.integers(1, 2**32 - 1) | st.integers(1, 3)


@given(targets, parts, targets, parts)
def test_hints_lie_by_target_and_then_in_the_order_of_their_rows(
    target: int, row: tuple[TableId, Token, bytes, bytes], other: int, other_row: tuple[TableId, Token, bytes, bytes]
) -> None:
    key, other_key = keys.hint_key(target, keys.row_key(*row)), keys.hint_key(other, keys.row_key(*other_row))
    assert (key < other_key) == ((target, row) < (other, other_row))
    start, end = keys.hint_range(target)
    assert (start <= other_key < end) == (target == other)
    assert keys.all_hints_range()[0] <= key < keys.all_hints_range()[1]
    assert keys.split_hint_key(key) == (target, keys.row_key(*row))


@pytest.mark.parametrize("key", [b"", keys.metadata_key("cluster_map"), keys.metadata_key("hint|") + b"\0\0"])
def test_what_is_no_hint_is_not_split_as_one(key: bytes) -> None:
    with pytest.raises(CorruptionError):
        keys.split_hint_key(key)


@given(parts, st.integers(0, 255), awkward)
def test_an_entry_of_a_local_index_splits_into_what_it_was_made_of(
    row: tuple[TableId, Token, bytes, bytes], index: int, index_key: bytes
) -> None:
    key = keys.row_key(*row)
    entry = keys.entry_of(key, index, index_key)
    assert (keys.row_of(entry), keys.index_in(entry), keys.key_in(entry)) == (key, index, index_key)
    assert (keys.table_in(entry), keys.token_in(entry)) == row[:2]
    assert keys.split_local_key(keys.local_key(entry)) == entry
    start, end = keys.all_local_range()
    assert start <= keys.local_key(entry) < end
    prefix = keys.partition_prefix(*row[:3])
    assert keys.collection_of(key) == keys.collection_of(entry) == prefix
    assert entry.startswith(keys.entry_prefix(prefix, index) + keys.index_key(index_key))


@given(tables, tokens, awkward, st.lists(st.tuples(st.integers(0, 2), awkward, awkward), min_size=2, max_size=2))
def test_entries_of_a_partition_key_are_in_the_order_of_index_then_key_then_sort_key(
    table: TableId, token: Token, partition: bytes, two: list[tuple[int, bytes, bytes]]
) -> None:
    one, other = (keys.entry_of(keys.row_key(table, token, partition, sort), index, key) for index, key, sort in two)
    assert (one < other) == (two[0] < two[1])


@given(parts, parts, st.integers(0, 255), awkward)
def test_the_rows_of_a_range_of_entries_are_those_of_its_partition_keys(
    row: tuple[TableId, Token, bytes, bytes], other: tuple[TableId, Token, bytes, bytes], index: int, index_key: bytes
) -> None:
    start = keys.entry_prefix(keys.partition_prefix(*row[:3]), index)
    low, high = keys.collections_between(start, keys.prefix_end(start))
    assert low <= keys.row_key(*row) < high
    assert (low <= keys.row_key(*other) < high) == (row[:3] == other[:3])
    whole = keys.table_range(row[0])
    assert keys.collections_between(*whole) == whole


@pytest.mark.parametrize("entry", [b"", keys.row_key(TableId(1), Token(5), b"a"), keys.metadata_key("hint|")])
def test_what_is_no_entry_is_corruption(entry: bytes) -> None:
    for read in (keys.row_of, keys.index_in, keys.key_in):
        with pytest.raises(CorruptionError):
            read(entry)
    with pytest.raises(CorruptionError):
        keys.split_local_key(entry)
