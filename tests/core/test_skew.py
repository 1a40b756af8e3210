"""Skew: a clock that is certainly off is told so, one that may be right never is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.skew import SAMPLES_MAX, Clocks, sample
from merganser.model.ids import NodeId

S = 1_000_000
HOUR = 3600 * S
BOUND = 10 * S

# Wall clocks are given as their distance from the true time, round trips by the time each way takes.


def clocks_known(*peers: tuple[int, int, int], skew_max_us: int = BOUND) -> Clocks:
    """Know one peer for each (its wall clock's error, microseconds there, microseconds back)."""
    known = Clocks(skew_max_us=skew_max_us)
    for number, (error, there, back) in enumerate(peers):
        heard = sample(peer_wall_us=there + error, asked_us=0, answered_us=there + back)
        known.add(NodeId(str(number)), heard)
    return known


def test_of_three_clocks_the_one_that_is_wrong_is_told_so_and_the_others_are_not() -> None:
    right, wrong = (0, 500, 500), (HOUR, 500, 500)
    assert clocks_known(right, right).is_beyond(HOUR)
    assert clocks_known(right, right).is_beyond(-HOUR)
    assert not clocks_known(right, wrong).is_beyond(0)


def test_of_two_clocks_neither_is_told_to_be_wrong() -> None:
    assert not clocks_known((HOUR, 500, 500)).is_beyond(0)
    assert not clocks_known((0, 500, 500)).is_beyond(HOUR)


def test_two_against_two_is_no_majority() -> None:
    right, wrong = (0, 500, 500), (HOUR, 500, 500)
    assert not clocks_known(right, wrong, wrong).is_beyond(0)
    assert not clocks_known(right, right, wrong).is_beyond(HOUR)
    assert clocks_known(right, right, right).is_beyond(HOUR)


def test_a_node_that_knows_nobody_is_not_refused() -> None:
    assert not clocks_known().is_beyond(HOUR)
    assert clocks_known().ahead_us(HOUR) == 0


def test_a_round_trip_as_long_as_the_skew_proves_nothing() -> None:
    slow = (0, 15 * S, 15 * S)
    assert not clocks_known(slow, slow).is_beyond(20 * S)
    assert clocks_known(slow, slow).is_beyond(26 * S)  # 15 s there, and 10 s allowed


def test_the_sample_with_the_shortest_round_trip_counts() -> None:
    known = clocks_known((0, 5 * S, 5 * S), (0, 5 * S, 5 * S))
    assert not known.is_beyond(12 * S)
    for peer in "0", "1":
        known.add(NodeId(peer), sample(peer_wall_us=20 * S, asked_us=20 * S, answered_us=20 * S + 100))
        known.add(NodeId(peer), sample(peer_wall_us=35 * S, asked_us=30 * S, answered_us=40 * S))
    assert known.is_beyond(12 * S)


def test_a_peer_whose_clock_was_set_is_believed_at_once() -> None:
    known = clocks_known((HOUR, 100, 100), (HOUR, 100, 100))
    assert known.is_beyond(0)
    for peer in "0", "1":
        known.add(NodeId(peer), sample(peer_wall_us=6 * S, asked_us=5 * S, answered_us=7 * S))
    assert not known.is_beyond(0)


def test_samples_that_are_old_and_peers_that_are_gone_are_forgotten() -> None:
    known = clocks_known((HOUR, 100, 100), (HOUR, 100, 100))
    known.keep_only([NodeId("0")], since_us=0)
    assert known.known == 1
    known.keep_only([NodeId("0")], since_us=201)
    assert known.known == 0


def test_the_guess_is_the_distance_from_the_median() -> None:
    assert clocks_known((0, 50, 50), (2 * S, 50, 50)).ahead_us(5 * S) == 3 * S
    assert clocks_known((0, 50, 50)).ahead_us(4 * S) == 2 * S
    assert clocks_known((0, 50, 50)).offsets_us(4 * S) == {NodeId("0"): (-4 * S - 50, -4 * S + 50)}


errors = st.integers(-30 * S, 30 * S)
ways = st.integers(0, 20 * S)
peers = st.lists(st.tuples(errors, ways, ways), max_size=7)


def true_median(values: list[int]) -> tuple[int, int]:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]


@given(peers, errors)
def test_a_node_within_the_bound_of_the_true_median_is_never_refused(
    heard: list[tuple[int, int, int]], own: int
) -> None:
    low, high = true_median([own, *(error for error, _, _ in heard)])
    if low - BOUND <= own <= high + BOUND:
        assert not clocks_known(*heard).is_beyond(own)


@given(peers, errors)
def test_the_bounds_are_those_of_the_median_of_the_intervals(heard: list[tuple[int, int, int]], own: int) -> None:
    lows, highs = [own], [own]
    for error, there, back in heard:
        lows.append(error - back)
        highs.append(error + there)
    low, high = sorted(lows)[(len(lows) - 1) // 2], sorted(highs)[len(highs) // 2]
    assert clocks_known(*heard).is_beyond(own) == (own > high + BOUND or own < low - BOUND)


@given(peers, errors, st.integers(0, 10 * S))
def test_slower_round_trips_refuse_less(heard: list[tuple[int, int, int]], own: int, slower: int) -> None:
    if not clocks_known(*heard).is_beyond(own):
        slow = [(error, there + slower, back + slower) for error, there, back in heard]
        assert not clocks_known(*slow).is_beyond(own)


@given(st.lists(st.tuples(errors, ways, ways), min_size=1, max_size=3 * SAMPLES_MAX), errors)
def test_what_counts_of_a_peer_never_contradicts_what_it_said_last(heard: list[tuple[int, int, int]], own: int) -> None:
    known = Clocks(skew_max_us=BOUND)
    now = 0
    for number, (error, there, back) in enumerate(heard):
        asked, now = now, now + there + back
        known.add(NodeId(str(number % 2)), sample(peer_wall_us=asked + there + error, asked_us=asked, answered_us=now))
        newest = {index % 2: one for index, one in enumerate(heard[: number + 1])}
        for peer, (low, high) in known.offsets_us(own).items():
            error, there, back = newest[int(peer)]
            assert high - low <= there + back
            assert low <= error + there - own
            assert error - back - own <= high
