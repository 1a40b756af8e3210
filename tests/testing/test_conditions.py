"""When bytes may arrive: order, delay and rate, without a clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from merganser.testing.conditions import CLEAR, Conditions, Departures

pieces = st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 10_000)), max_size=30)


def departures() -> Departures:
    return Departures(random.Random(1))


def test_without_conditions_everything_leaves_at_once() -> None:
    one = departures()
    assert [one.due(now_s, 100, CLEAR) for now_s in (1.0, 1.5, 2.0)] == [1.0, 1.5, 2.0]


@given(pieces)
def test_jitter_never_reorders_a_stream_and_stays_within_its_bounds(steps: list[tuple[float, int]]) -> None:
    one, now_s, before = departures(), 1.0, 0.0
    for wait_s, length in steps:
        now_s += wait_s
        due = one.due(now_s, length, Conditions(delay_s=0.05, jitter_s=0.2))
        assert due >= max(before, now_s + 0.05)
        assert due <= max(before, now_s + 0.25)
        before = due


@given(pieces)
def test_no_more_than_the_rate_passes(steps: list[tuple[float, int]]) -> None:
    one, now_s, total = departures(), 1.0, 0
    for wait_s, length in steps:
        now_s += wait_s
        total += length
        assert one.due(now_s, length, Conditions(bytes_per_s=1000)) >= 1.0 + total / 1000 - 1e-6


def test_a_pause_pays_off_what_was_sent_before() -> None:
    one, slow = departures(), Conditions(bytes_per_s=100)
    assert one.due(0.0, 100, slow) == 1.0
    assert one.due(5.0, 100, slow) == 6.0
