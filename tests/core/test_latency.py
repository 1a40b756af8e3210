"""The 95th percentile that follows a peer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.latency import DECAY_AT, SAMPLES_MIN, Latencies, LatencyTracker
from merganser.model.ids import NodeId

latencies_s = st.floats(0.0, 3000.0)


def fed(*samples_s: float) -> LatencyTracker:
    tracker = LatencyTracker()
    for sample_s in samples_s:
        tracker.add(sample_s)
    return tracker


def test_a_few_samples_say_nothing() -> None:
    assert fed(*[0.01] * (SAMPLES_MIN - 1)).p95_s is None
    assert fed(*[0.01] * SAMPLES_MIN).p95_s is not None


def test_one_slow_answer_in_forty_does_not_count_and_one_in_ten_does() -> None:
    assert fed(*[*[0.001] * 39, 1.0] * 8).p95_s == pytest.approx(0.001, rel=0.25)
    assert fed(*[*[0.001] * 9, 1.0] * 32).p95_s == pytest.approx(1.0, rel=0.25)


def test_a_peer_that_becomes_slow_is_known_as_slow_and_forgiven_later() -> None:
    tracker = fed(*[0.001] * 10_000)
    for _ in range(DECAY_AT):
        tracker.add(0.1)
    assert tracker.p95_s == pytest.approx(0.1, rel=0.25)
    for _ in range(10 * DECAY_AT):
        tracker.add(0.001)
    assert tracker.p95_s == pytest.approx(0.001, rel=0.25)


@given(samples_s=st.lists(latencies_s, min_size=SAMPLES_MIN, max_size=SAMPLES_MIN))
def test_the_percentile_is_not_below_the_true_one_and_at_most_a_quarter_above(samples_s: list[float]) -> None:
    told_s = fed(*samples_s).p95_s
    true_s = sorted(samples_s)[18]  # 19 of 20 took at most that
    assert told_s is not None
    assert true_s <= told_s <= 1.25 * true_s + 2e-6


@given(samples_s=st.lists(latencies_s, min_size=SAMPLES_MIN, max_size=3 * DECAY_AT))
def test_the_percentile_lies_within_what_was_measured(samples_s: list[float]) -> None:
    told_s = fed(*samples_s).p95_s
    assert told_s is not None
    assert min(samples_s) <= told_s <= 1.25 * max(samples_s) + 2e-6


def test_each_peer_has_its_own() -> None:
    rng = random.Random(1)
    peers = Latencies()
    for _ in range(100):
        peers.add(NodeId("near"), rng.uniform(0.001, 0.002))
        peers.add(NodeId("far"), rng.uniform(0.1, 0.2))
    near_s, far_s = peers.p95_s(NodeId("near")), peers.p95_s(NodeId("far"))
    assert near_s is not None
    assert far_s is not None
    assert near_s < 0.003 < 0.1 < far_s
    assert peers.p95_s(NodeId("stranger")) is None
