"""Rows: the laws of merge, what a mutation becomes, what a reader sees."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import rows
from merganser.model.row import Cell, CellWrite, Mutation, Row
from merganser.model.timestamp import BEGINNING, Timestamp

EMPTY = Row(())
NOW_S = 1_000

# Small ranges, so that timestamps, names and values collide often.
timestamps = st.builds(Timestamp, st.integers(0, 3), st.integers(0, 2))
values = st.none() | st.binary(max_size=1)
expiries = st.none() | st.integers(NOW_S - 1, NOW_S + 1)
names = st.sampled_from([b"", b"a", b"b", b"c"])
cells = st.builds(Cell, names, timestamps, values, expiries)
writes = st.builds(CellWrite, names, values, expiries)


def valid_row(candidates: list[Cell], deleted_at: Timestamp) -> Row:
    """A row as the type promises it."""
    by_name = {cell.name: cell for cell in candidates if cell.written_at > deleted_at}
    return Row(tuple(by_name[name] for name in sorted(by_name)), deleted_at)


some_rows = st.builds(valid_row, st.lists(cells, max_size=4), st.just(BEGINNING) | timestamps)
mutations = st.builds(
    lambda cells, deletes_row: Mutation(tuple(sorted(cells, key=lambda cell: cell.name)), deletes_row),
    st.lists(writes, max_size=3, unique_by=lambda write: write.name),
    st.booleans(),
)


def is_valid(row: Row) -> bool:
    in_order = all(one.name < other.name for one, other in itertools.pairwise(row.cells))
    return in_order and all(cell.written_at > row.deleted_at for cell in row.cells)


def put(value: bytes, micros: int, writer: int, *, name: bytes = b"a") -> Row:
    return Row((Cell(name, Timestamp(micros, writer), value),))


# The laws


@given(a=some_rows, b=some_rows)
def test_merge_is_commutative(a: Row, b: Row) -> None:
    assert rows.merge(a, b) == rows.merge(b, a)


@given(a=some_rows, b=some_rows, c=some_rows)
def test_merge_is_associative(a: Row, b: Row, c: Row) -> None:
    assert rows.merge(rows.merge(a, b), c) == rows.merge(a, rows.merge(b, c))


@given(a=some_rows, b=some_rows)
def test_merge_is_idempotent(a: Row, b: Row) -> None:
    merged = rows.merge(a, b)
    assert rows.merge(a, a) == a
    assert rows.merge(merged, a) == merged
    assert rows.merge(merged, b) == merged


@given(a=some_rows, b=some_rows)
def test_merged_row_keeps_the_promises_of_its_type(a: Row, b: Row) -> None:
    assert is_valid(rows.merge(a, b))


@given(a=some_rows)
def test_row_never_written_adds_nothing(a: Row) -> None:
    assert rows.merge(a, EMPTY) == rows.merge(EMPTY, a) == a


@given(a=some_rows, b=some_rows)
def test_merge_is_what_the_definition_says(a: Row, b: Row) -> None:
    deleted_at = max(a.deleted_at, b.deleted_at)
    best: dict[bytes, Cell] = {}
    for cell in a.cells + b.cells:
        best[cell.name] = max(best.get(cell.name, cell), cell, key=in_order_of_writes)
    assert rows.merge(a, b) == valid_row(list(best.values()), deleted_at)


def in_order_of_writes(cell: Cell) -> tuple[Timestamp, bool, bool, int, bytes]:
    is_forever = cell.expires_at_s is None
    return cell.written_at, cell.value is None, is_forever, cell.expires_at_s or 0, cell.value or b""


@given(a=some_rows, b=some_rows)
def test_row_covers_another_exactly_when_merging_it_in_changes_nothing(a: Row, b: Row) -> None:
    assert rows.covers(a, b) == (rows.merge(a, b) == a)


@given(a=some_rows, b=some_rows)
def test_merge_returns_the_first_row_itself_when_it_covers_the_second(a: Row, b: Row) -> None:
    merged = rows.merge(a, b)
    assert (merged is a) == (merged == a)


# Who wins


def test_later_microsecond_beats_higher_writer() -> None:
    assert rows.merge(put(b"old", 1, 9), put(b"new", 2, 1)) == put(b"new", 2, 1)


def test_higher_writer_wins_the_microsecond() -> None:
    assert rows.merge(put(b"high", 1, 9), put(b"low", 1, 1)) == put(b"high", 1, 9)


def test_later_value_survives_an_older_cell_tombstone() -> None:
    dropped = Row((Cell(b"a", Timestamp(1, 1), None),))
    assert rows.merge(dropped, put(b"v", 2, 1)) == put(b"v", 2, 1)


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (Cell(b"a", Timestamp(1, 1), None), Cell(b"a", Timestamp(1, 1), b"zzz")),
        (Cell(b"a", Timestamp(1, 1), b"a", 20), Cell(b"a", Timestamp(1, 1), b"b", 10)),
        (Cell(b"a", Timestamp(1, 1), b"a", None), Cell(b"a", Timestamp(1, 1), b"b", 10)),
        (Cell(b"a", Timestamp(1, 1), b"b"), Cell(b"a", Timestamp(1, 1), b"a")),
        (Cell(b"a", Timestamp(1, 1), None, None), Cell(b"a", Timestamp(1, 1), None, 10)),
        (Cell(b"a", Timestamp(1, 1), None), Cell(b"a", Timestamp(1, 1), b"")),
    ],
    ids=["tombstone", "later expiry", "never expiring", "greater bytes", "tombstones by expiry", "empty value"],
)
def test_equal_timestamps_are_settled_the_same_way_everywhere(winner: Cell, loser: Cell) -> None:
    assert rows.merge(Row((winner,)), Row((loser,))) == Row((winner,))
    assert rows.merge(Row((loser,)), Row((winner,))) == Row((winner,))


def test_cell_written_at_the_row_tombstone_is_gone_and_the_next_one_stays() -> None:
    tombstone = Row((), Timestamp(1, 2))
    assert rows.merge(put(b"v", 1, 2), tombstone) == tombstone
    assert rows.merge(put(b"v", 1, 3), tombstone) == Row(put(b"v", 1, 3).cells, Timestamp(1, 2))


def test_expired_cell_still_wins_over_an_older_value() -> None:
    expired = Row((Cell(b"a", Timestamp(2, 1), b"v", NOW_S - 1),))
    assert rows.live_value(rows.merge(put(b"old", 1, 1), expired), b"a", NOW_S) is None


# Stamping


@given(mutation=mutations, timestamp=timestamps)
def test_stamped_mutation_is_a_valid_row_with_its_own_cells(mutation: Mutation, timestamp: Timestamp) -> None:
    row = rows.stamp(mutation, timestamp)
    assert is_valid(row)
    assert [(cell.name, cell.value, cell.expires_at_s) for cell in row.cells] == [
        (write.name, write.value, write.expires_at_s) for write in mutation.cells
    ]
    assert all(cell.written_at == timestamp for cell in row.cells)


@given(before=some_rows, mutation=mutations, timestamp=timestamps)
def test_replacing_write_leaves_of_what_is_older_nothing_and_of_what_is_newer_everything(
    before: Row, mutation: Mutation, timestamp: Timestamp
) -> None:
    replaced = rows.merge(before, rows.stamp(Mutation(mutation.cells, deletes_row=True), timestamp))
    assert all(cell.written_at >= timestamp for cell in replaced.cells)
    newer = [cell for cell in before.cells if cell.written_at > timestamp]
    assert [cell for cell in replaced.cells if cell.written_at > timestamp] == newer


def test_two_replacing_writes_in_one_microsecond_do_not_interleave() -> None:
    low = rows.stamp(Mutation((CellWrite(b"a", b"1"), CellWrite(b"b", b"1")), deletes_row=True), Timestamp(5, 1))
    high = rows.stamp(Mutation((CellWrite(b"a", b"2"), CellWrite(b"c", b"2")), deletes_row=True), Timestamp(5, 2))
    assert rows.merge(low, high) == rows.merge(high, low) == high


@given(one=mutations, other=mutations, micros=st.integers(0, 3), writers=st.lists(st.integers(0, 9), min_size=2))
def test_of_two_replacing_writes_the_later_is_all_that_is_left(
    one: Mutation, other: Mutation, micros: int, writers: list[int]
) -> None:
    low, high = min(writers), max(writers) + 1
    earlier = rows.stamp(Mutation(one.cells, deletes_row=True), Timestamp(micros, low))
    later = rows.stamp(Mutation(other.cells, deletes_row=True), Timestamp(micros, high))
    assert rows.merge(earlier, later) == later


def test_row_tombstone_of_writer_zero_lies_in_the_microsecond_before() -> None:
    row = rows.stamp(Mutation(deletes_row=True), Timestamp(5, 0))
    assert row.deleted_at == Timestamp(4, 2**32 - 1)


def test_mutation_with_cells_out_of_order_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        rows.stamp(Mutation((CellWrite(b"b", b""), CellWrite(b"a", b""))), Timestamp(1, 1))


# Reading


def test_cell_reads_as_absent_from_its_expiry_on() -> None:
    row = Row((Cell(b"a", Timestamp(1, 1), b"v", NOW_S),))
    assert rows.live_value(row, b"a", NOW_S - 1) == b"v"
    assert rows.live_value(row, b"a", NOW_S) is None
    assert rows.is_tombstone(row, NOW_S)
    assert not rows.is_tombstone(row, NOW_S - 1)


def test_cell_tombstone_and_unknown_name_read_as_absent_and_an_empty_value_does_not() -> None:
    row = Row((Cell(b"a", Timestamp(1, 1), None), Cell(b"b", Timestamp(1, 1), b"")))
    assert rows.live_value(row, b"a", NOW_S) is None
    assert rows.live_value(row, b"b", NOW_S) == b""
    assert rows.live_value(row, b"z", NOW_S) is None


@given(row=some_rows)
def test_live_cells_are_those_with_a_live_value(row: Row) -> None:
    live = rows.live_cells(row, NOW_S)
    expected = [cell for cell in row.cells if rows.live_value(row, cell.name, NOW_S) is not None]
    assert list(live) == expected
    assert rows.is_tombstone(row, NOW_S) == (not live)


@given(row=some_rows)
def test_newest_is_the_latest_timestamp_of_cells_and_row_tombstone(row: Row) -> None:
    assert rows.newest(row) == max([row.deleted_at, *(cell.written_at for cell in row.cells)])


def test_row_never_written_is_a_tombstone_from_the_beginning() -> None:
    assert rows.is_tombstone(EMPTY, NOW_S)
    assert rows.newest(EMPTY) == BEGINNING


# A row that expires as a whole


def test_a_row_that_expires_as_a_whole_is_absent_from_then_on_and_buries_what_is_older() -> None:
    mutation = Mutation((CellWrite(b"a", b"1"), CellWrite(b"b", b"2", NOW_S - 5)), expires_at_s=NOW_S)
    row = rows.merge(put(b"old", 1, 1, name=b"c"), rows.stamp(mutation, Timestamp(5, 1)))
    assert [(cell.name, cell.expires_at_s) for cell in row.cells] == [(b"a", NOW_S), (b"b", NOW_S - 5)]
    assert not rows.is_tombstone(row, NOW_S - 1)
    assert rows.is_tombstone(row, NOW_S)


def test_a_later_write_to_a_row_that_has_expired_lives_on_alone() -> None:
    expiring = rows.stamp(Mutation((CellWrite(b"a", b"1"),), expires_at_s=NOW_S), Timestamp(5, 1))
    row = rows.merge(expiring, put(b"new", 6, 1, name=b"b"))
    assert [cell.name for cell in rows.live_cells(row, NOW_S)] == [b"b"]
