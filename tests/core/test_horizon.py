"""Horizons: what a replica takes, what several say together, what a purge drops, who follows whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_rows import some_rows
from merganser.core import rows
from merganser.core.horizon import (
    NEWCOMER,
    Round,
    Standing,
    agreed,
    is_due,
    lacks,
    later,
    met,
    right_after,
)
from merganser.core.horizon import (
    taken as taken_of,
)
from merganser.model.ids import NodeId
from merganser.model.messages import A_CLIENTS
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
H = 10


def value(micros: int, *, name: bytes = b"v", expires_at_s: int | None = None) -> Row:
    return Row((Cell(name, Timestamp(micros, 1), b"x", expires_at_s),))


def tombstone(micros: int) -> Row:
    return Row((Cell(b"v", Timestamp(micros, 1), None),))


horizons = st.integers(1, 4)


def taken(row: Row, *, sealed_us: int, floor_us: int, vouched_us: int) -> Row | None:
    newest_us = rows.newest(row).micros
    return taken_of(row, newest_us=newest_us, sealed_us=sealed_us, floor_us=floor_us, vouched_us=vouched_us)


# What a purge drops


def test_a_purge_drops_tombstones_and_expired_cells_of_the_time_until_the_horizon() -> None:
    late_us = 2_000_000
    assert rows.purged(tombstone(H), H) is None
    assert rows.purged(Row((), Timestamp(H, 5)), H) is None
    assert rows.purged(value(H, expires_at_s=2), late_us) is None
    for kept in (tombstone(H + 1), Row((), Timestamp(H + 1, 0)), value(H), value(H, expires_at_s=3)):
        assert rows.purged(kept, H) is kept
    expiring = value(H, expires_at_s=2)
    assert rows.purged(expiring, late_us - 1) is expiring, "the horizon has not passed the expiry"


@given(row=some_rows, horizon_us=horizons)
def test_a_purge_changes_nothing_that_can_be_read_from_the_horizon_on(row: Row, horizon_us: int) -> None:
    left = rows.purged(row, horizon_us) or Row(())
    now_s = 1  # every expiry that the horizon has passed lies at 0 or before
    assert rows.live_cells(left, now_s) == rows.live_cells(row, now_s)
    assert (rows.purged(left, horizon_us) or Row(())) == left


@given(common=some_rows, one=some_rows, other=some_rows, horizon_us=horizons)
def test_purge_and_merge_commute_for_replicas_that_hold_the_same_until_the_horizon(
    common: Row, one: Row, other: Row, horizon_us: int
) -> None:
    mine = rows.merge(common, later(one, horizon_us) or Row(()))
    theirs = rows.merge(common, later(other, horizon_us) or Row(()))
    expected = rows.purged(rows.merge(mine, theirs), horizon_us)
    purged = rows.merge(rows.purged(mine, horizon_us) or Row(()), later(theirs, horizon_us) or Row(()))
    assert rows.purged(purged, horizon_us) == expected
    assert agreed([(rows.purged(mine, horizon_us), horizon_us), (theirs, 0)]) == expected
    assert agreed([(rows.purged(mine, horizon_us), horizon_us), (theirs, horizon_us)]) == expected


# What is taken


def test_a_clients_write_is_taken_after_the_seal_and_not_before() -> None:
    assert taken(value(H + 1), sealed_us=H, floor_us=0, vouched_us=A_CLIENTS) == value(H + 1)
    assert taken(value(H), sealed_us=H, floor_us=0, vouched_us=A_CLIENTS) is None
    assert right_after(H) >= Timestamp(H, 2**32 - 1)


def test_a_repair_is_taken_behind_the_seal_until_the_round_completes() -> None:
    assert taken(value(H), sealed_us=H, floor_us=0, vouched_us=0) == value(H)
    assert taken(value(H), sealed_us=H, floor_us=H, vouched_us=0) is None
    assert taken(value(H), sealed_us=H, floor_us=H, vouched_us=H - 1) is None
    assert taken(value(H), sealed_us=H, floor_us=H, vouched_us=H) == value(H)


@given(row=some_rows, horizon_us=horizons)
def test_of_a_repair_nobody_vouches_for_only_what_is_later_than_the_horizon_is_taken(row: Row, horizon_us: int) -> None:
    part = taken(row, sealed_us=horizon_us, floor_us=horizon_us, vouched_us=0) or Row(())
    assert all(cell.written_at.micros > horizon_us for cell in part.cells)
    assert [cell for cell in row.cells if cell.written_at.micros > horizon_us] == list(part.cells)


# What several say together


def test_what_the_one_with_the_highest_horizon_lacks_from_before_it_was_deleted() -> None:
    assert agreed([(None, H), (value(3), 0)]) is None
    assert agreed([(None, H), (value(3), H - 1), (tombstone(5), 0)]) is None
    assert agreed([(value(3), H), (tombstone(2), 0)]) == value(3)


def test_what_is_later_than_the_horizon_counts_whoever_holds_it() -> None:
    assert agreed([(None, H), (value(H + 1), 0)]) == value(H + 1)
    assert agreed([(value(3), H), (tombstone(H + 1), 0)]) == tombstone(H + 1)


@given(answers=st.lists(some_rows, min_size=1, max_size=3))
def test_without_horizons_all_is_merged(answers: list[Row]) -> None:
    merged = answers[0]
    for row in answers[1:]:
        merged = rows.merge(merged, row)
    assert agreed([(row, 0) for row in answers]) == merged


def test_a_replica_that_holds_what_is_about_to_be_purged_lacks_nothing() -> None:
    assert not lacks(tombstone(5), agreed([(tombstone(5), H), (None, H)]))
    assert not lacks(None, agreed([(tombstone(5), H), (None, H)]))
    assert lacks(None, value(3))


# What two replicas do to each other


def test_a_stale_value_goes_when_it_meets_the_authority_and_the_tombstone_stays() -> None:
    assert met(value(3), None, horizon_us=0, floor_us=0, other_us=H) is None
    assert met(tombstone(5), None, horizon_us=0, floor_us=0, other_us=H) == tombstone(5)
    assert met(None, value(3), horizon_us=H, floor_us=H, other_us=0) is None
    assert met(None, value(3), horizon_us=0, floor_us=0, other_us=H) == value(3)


@given(mine=some_rows, theirs=some_rows, horizon_us=horizons)
def test_replicas_of_one_horizon_that_meet_hold_the_same_but_for_what_both_may_purge(
    mine: Row, theirs: Row, horizon_us: int
) -> None:
    one = met(mine, theirs, horizon_us=horizon_us, floor_us=horizon_us, other_us=horizon_us) or Row(())
    other = met(theirs, mine, horizon_us=horizon_us, floor_us=horizon_us, other_us=horizon_us) or Row(())
    expected = rows.purged(rows.merge(one, other), horizon_us)
    assert expected == rows.purged(rows.merge(other, one), horizon_us)


@given(mine=some_rows, theirs=some_rows)
def test_replicas_without_horizons_that_meet_hold_the_merge(mine: Row, theirs: Row) -> None:
    assert met(mine, theirs, horizon_us=0, floor_us=0, other_us=0) == rows.merge(mine, theirs)


# Standings and rounds


def test_a_standing_only_rises_but_for_doubt() -> None:
    standing = NEWCOMER.sealed(H).sealed(H - 1)
    assert standing == Standing(sealed_us=H)
    complete = standing.completed(H)
    assert complete.completed(H - 1) == complete
    assert complete.purged(H).doubted() == Standing(sealed_us=H, is_whole=False)
    assert complete.doubted().adopted(H) == complete
    assert standing.doubted() == standing, "one that never purged is only behind"


def test_a_standing_that_did_not_seal_or_is_not_whole_completes_nothing() -> None:
    assert not NEWCOMER.can_complete(1)
    assert not NEWCOMER.sealed(H).completed(H).doubted().can_complete(H)
    with pytest.raises(AssertionError):
        NEWCOMER.completed(1)


def test_a_round_waits_for_all_nodes_and_for_hints() -> None:
    round_ = Round(nodes=(A, B, C), replicas=(A, B), horizon_us=H)
    round_.sealed(A, horizon_us=0, is_whole=True, has_hints=False, vow=1)
    round_.sealed(B, horizon_us=0, is_whole=True, has_hints=True, vow=2)
    assert round_.waiting_for == (B, C)
    round_.sealed(B, horizon_us=0, is_whole=True, has_hints=False, vow=3)
    round_.sealed(C, horizon_us=0, is_whole=True, has_hints=False, vow=4)
    assert not round_.waiting_for
    assert round_.vows == {A: 1, B: 2}, "the first vow counts"


def test_who_lags_learns_from_the_highest_and_who_lost_rows_from_all() -> None:
    round_ = Round(nodes=(A, B, C), replicas=(A, B, C), horizon_us=H)
    round_.sealed(A, horizon_us=5, is_whole=True, has_hints=False, vow=1)
    round_.sealed(B, horizon_us=7, is_whole=True, has_hints=False, vow=1)
    round_.sealed(C, horizon_us=0, is_whole=False, has_hints=False, vow=1)
    assert round_.authority_us == 7
    assert round_.lagging == (A, C)
    assert round_.teachers(A) == [B]
    assert round_.teachers(C) == [B, A]


def test_the_first_replica_leads_and_the_next_ones_when_it_did_not() -> None:
    assert [is_due(age_us=age, interval_us=100, rank=rank) for age, rank in ((75, 0), (74, 0), (150, 1), (175, 1))] == [
        True,
        False,
        False,
        True,
    ]
