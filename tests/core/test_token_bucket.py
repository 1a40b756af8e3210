from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.token_bucket import BURST_S, TokenBucket


def test_a_bucket_lets_in_what_its_tokens_are_for_and_then_waits() -> None:
    bucket = TokenBucket(2.0, now_s=10.0)
    for _ in range(2):
        assert bucket.is_open(10.0)
        bucket.take(1.0, 10.0)
    assert not bucket.is_open(10.0)
    assert bucket.is_open(10.1)


def test_what_took_more_than_there_was_is_paid_back() -> None:
    bucket = TokenBucket(2.0, now_s=0.0)
    bucket.take(12.0, 0.0)
    assert not bucket.is_open(5.0)
    assert bucket.is_open(5.1)


def test_unused_tokens_are_saved_for_five_minutes() -> None:
    bucket = TokenBucket(1.0, now_s=0.0)
    bucket.take(BURST_S - 1, 1e6)
    assert bucket.is_open(1e6)
    bucket.take(1.0, 1e6)
    assert not bucket.is_open(1e6)


def test_another_rate_holds_from_then_on() -> None:
    bucket = TokenBucket(100.0, now_s=0.0)
    bucket.become(1.0, 1000.0)  # what was saved up by the old one is cut to what the new one allows
    bucket.take(BURST_S, 1000.0)
    assert not bucket.is_open(1000.0)
    assert bucket.is_open(1000.5)


@given(
    per_s=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=100),
)
def test_no_more_is_let_in_over_time_than_the_rate_and_one_thing_more(
    per_s: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now_s, taken, most = TokenBucket(per_s, 0.0), 0.0, 0, 0
    for pause_s, units in steps:
        now_s += pause_s
        most = max(most, units)
        if bucket.is_open(now_s):
            bucket.take(units, now_s)
            taken += units
        assert taken <= per_s * (now_s + 1) + most + 1e-6
