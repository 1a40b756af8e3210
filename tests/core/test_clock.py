"""The hybrid clock and its durable ceiling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.clock import ClockCeiling, HybridClock
from merganser.model.errors import ClockSkewError
from merganser.model.timestamp import BEGINNING, Timestamp

MAX_AHEAD_US = 500

wall_times = st.integers(-2_000, 10_000)
timestamps = st.builds(Timestamp, st.integers(-2_000, 11_000), st.integers(0, 2**32 - 1))
events = st.lists(st.tuples(wall_times, st.none() | timestamps), max_size=40)
"""(wall time, None to mint or the timestamp to observe)"""


def clock_at(floor: Timestamp | int = BEGINNING) -> HybridClock:
    return HybridClock(7, floor=floor, max_ahead_us=MAX_AHEAD_US)


def observed(clock: HybridClock, timestamp: Timestamp, wall_us: int) -> bool:
    """Whether the clock took note."""
    try:
        clock.observe(timestamp, wall_us)
    except ClockSkewError:
        return False
    return True


@given(events=events, floor=st.integers(-3_000, 3_000))
def test_each_mint_exceeds_all_mints_observations_and_the_floor_whatever_the_wall_clock_does(
    events: list[tuple[int, Timestamp | None]], floor: int
) -> None:
    clock, highest = clock_at(floor), floor
    for wall_us, timestamp in events:
        if timestamp is None:
            minted = clock.mint(wall_us)
            assert minted.micros > highest
            highest = minted.micros
        elif observed(clock, timestamp, wall_us):
            highest = max(highest, timestamp.micros)


@given(events=events, floor=st.integers(-3_000, 3_000))
def test_clock_stays_within_the_bound_that_its_module_states(
    events: list[tuple[int, Timestamp | None]], floor: int
) -> None:
    clock, bound, mints = clock_at(floor), floor, 0
    for wall_us, timestamp in events:
        if timestamp is None:
            mints += 1
            clock.mint(wall_us)
            bound = max(bound, wall_us)
        elif observed(clock, timestamp, wall_us):
            bound = max(bound, wall_us + MAX_AHEAD_US)
        assert clock.latest <= bound + mints


@given(timestamp=timestamps, wall_us=wall_times, before=wall_times)
def test_timestamp_too_far_ahead_is_refused_and_teaches_nothing(
    timestamp: Timestamp, wall_us: int, before: int
) -> None:
    clock = clock_at(before)
    noted = observed(clock, timestamp, wall_us)
    assert noted == (timestamp.micros - wall_us <= MAX_AHEAD_US)
    assert clock.latest == (max(before, timestamp.micros) if noted else before)


def test_mint_is_the_wall_clock_while_that_goes_ahead() -> None:
    clock = clock_at()
    assert [clock.mint(wall_us) for wall_us in (10, 20, 30)] == [(10, 7), (20, 7), (30, 7)]


def test_mint_adds_a_microsecond_while_the_wall_clock_stands_still_or_goes_back() -> None:
    clock = clock_at()
    assert [clock.mint(wall_us).micros for wall_us in (10, 10, 4, 12, 13)] == [10, 11, 12, 13, 14]


def test_mint_exceeds_an_observed_timestamp_of_a_higher_writer_in_microseconds() -> None:
    clock = clock_at()
    clock.observe(Timestamp(400, 2**32 - 1), 10)
    assert clock.mint(10) == Timestamp(401, 7)


def test_floor_may_be_a_timestamp() -> None:
    assert clock_at(Timestamp(100, 9)).mint(0) == Timestamp(101, 7)


def test_skew_error_names_the_writer_and_the_distance() -> None:
    with pytest.raises(ClockSkewError, match=r"node number 9 wrote 2\.500 s ahead .* more than the 0\.001 s"):
        HybridClock(7, max_ahead_us=1_000).observe(Timestamp(2_500_000, 9), 0)


# The ceiling


def test_new_node_may_mint_nothing_before_its_first_ceiling_is_durable() -> None:
    ceiling = ClockCeiling(0, window_us=100, step_us=100)
    assert not ceiling.allows(5_000)
    assert ceiling.next_to_persist(5_000, wall_us=5_000) == 5_100
    assert not ceiling.allows(5_000)
    ceiling.persisted(5_100)
    assert ceiling.allows(5_099)
    assert not ceiling.allows(5_100)


def test_new_ceiling_is_asked_for_when_less_than_half_the_window_is_left() -> None:
    ceiling = ClockCeiling(1_000, window_us=100, step_us=10)
    assert ceiling.next_to_persist(950, wall_us=950) is None
    assert ceiling.next_to_persist(951, wall_us=951) == 1_051


def test_a_clock_ahead_of_the_wall_clock_takes_small_steps() -> None:
    ceiling = ClockCeiling(1_000, window_us=100, step_us=10)
    assert ceiling.next_to_persist(994, wall_us=500) is None
    assert ceiling.next_to_persist(996, wall_us=500) == 1_006
    assert ceiling.next_to_persist(996, wall_us=960) == 1_060, "the wall clock's own window, if that is more"


def test_ceiling_never_sinks() -> None:
    ceiling = ClockCeiling(1_000, window_us=100, step_us=10)
    ceiling.persisted(900)
    assert ceiling.allows(999)


@given(
    steps=st.lists(st.tuples(wall_times, st.sampled_from(["mint", "persist", "crash"])), max_size=60),
    window_us=st.integers(2, 300),
)
def test_restarted_node_never_mints_what_it_let_out_before_even_when_the_wall_clock_jumped_back(
    steps: list[tuple[int, str]], window_us: int
) -> None:
    disk_us, highest_out = 0, -1
    clock, ceiling = clock_at(disk_us), ClockCeiling(disk_us, window_us=window_us, step_us=max(2, window_us // 10))
    for wall_us, step in steps:
        if step == "crash":
            clock, ceiling = (
                clock_at(disk_us),
                ClockCeiling(disk_us, window_us=window_us, step_us=max(2, window_us // 10)),
            )
        elif step == "persist":
            wanted = ceiling.next_to_persist(clock.latest, wall_us=wall_us)
            if wanted is not None:
                disk_us = max(disk_us, wanted)
                ceiling.persisted(disk_us)
        else:
            minted = clock.mint(wall_us).micros
            if ceiling.allows(minted):
                assert minted > highest_out
                highest_out = minted


@given(latest_us=st.integers(0, 10_000), durable_us=st.integers(0, 10_000), window_us=st.integers(2, 300))
def test_persisting_what_is_asked_leaves_at_least_half_a_window(
    latest_us: int, durable_us: int, window_us: int
) -> None:
    ceiling = ClockCeiling(durable_us, window_us=window_us, step_us=max(2, window_us // 10))
    wanted = ceiling.next_to_persist(latest_us, wall_us=latest_us)
    if wanted is not None:
        assert wanted > durable_us
        ceiling.persisted(wanted)
    assert ceiling.next_to_persist(latest_us, wall_us=latest_us) is None
    assert ceiling.allows(latest_us)
