"""Admission: the background gives way first, requests wait or are refused within bounds, and both come back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from merganser.core.admission import (
    SLICE_MAX_S,
    SLICE_MIN_S,
    TICK_S,
    AdmissionLimits,
    BackgroundShare,
    Measured,
    is_busy,
)
from merganser.core.request_gate import Entry, RequestGate, RequestLimit

SLICE_S = 0.005
LIMITS = AdmissionLimits()
LEAST = 1 / 64
CALM = Measured(0.0, served=100)
LATE = Measured(0.0, served=100, late=5)
BUSY = Measured(0.0, is_busy=True)


def share_after(*seen: Measured) -> float:
    share = BackgroundShare(LIMITS)
    for one in seen:
        share.update(one)
    return share.value


# The background.


def test_background_work_has_everything_while_the_foreground_meets_its_target() -> None:
    assert share_after(*[CALM] * 100) == 1.0
    assert BackgroundShare(LIMITS).gap_s(SLICE_S) == 0.0


@pytest.mark.parametrize(
    "pressure",
    [LATE, Measured(0.015), BUSY],
    ids=["late answers", "late turns", "few places left"],
)
def test_each_sign_of_pressure_halves_the_share_down_to_the_least(pressure: Measured) -> None:
    assert share_after(pressure) == 0.5
    assert share_after(*[pressure] * 10) == LEAST


def test_it_is_known_whether_clients_ask_and_forgotten_a_while_after_they_are_gone() -> None:
    share = BackgroundShare(LIMITS)
    share.update(Measured(0.0, asked=30))
    assert share.is_asked
    for _ in range(20):
        share.update(CALM)
    assert not share.is_asked


def test_while_clients_ask_the_background_has_a_tenth_of_the_time_however_calm_it_is() -> None:
    share = BackgroundShare(LIMITS)
    assert share.gap_s(SLICE_S) == 0.0
    share.update(Measured(0.0, served=100, asked=30))
    assert share.value == 1.0
    assert share.gap_s(SLICE_S) == pytest.approx(9 * SLICE_S)
    for _ in range(4):
        share.update(BUSY)
    assert share.gap_s(SLICE_S) == pytest.approx(15 * SLICE_S), "pressure takes more of it"
    for _ in range(60):
        share.update(CALM)
    assert share.gap_s(SLICE_S) == 0.0


def test_a_client_that_asks_now_and_then_counts_for_none() -> None:
    share = BackgroundShare(LIMITS)
    for seen in [Measured(0.0, asked=1), CALM, CALM, CALM] * 50:
        share.update(seen)
        assert not share.is_asked


def test_one_late_answer_in_a_hundred_is_within_the_target_and_changes_nothing() -> None:
    assert share_after(*[BUSY] * 2, *[Measured(0.0, served=1000, late=9)] * 50) == 0.25


def test_a_single_slow_answer_on_a_quiet_node_is_no_percentile() -> None:
    assert share_after(Measured(0.0, served=3, late=1)) == 1.0


def test_after_pressure_the_share_comes_back_step_by_step() -> None:
    shares = [share_after(*[BUSY] * 10, *[CALM] * calm) for calm in (1, 2, 20)]
    assert shares == pytest.approx([LEAST + 0.05, LEAST + 0.1, 1.0])


def test_the_gap_leaves_the_foreground_its_part_of_the_time() -> None:
    share = BackgroundShare(LIMITS)
    share.update(LATE)
    assert share.gap_s(SLICE_S) == pytest.approx(0.005)
    share.update(LATE)
    assert share.gap_s(SLICE_S) == pytest.approx(0.015)
    for _ in range(10):
        share.update(LATE)
    assert share.gap_s(SLICE_S) == pytest.approx(0.315)


def test_a_short_slice_is_followed_by_a_short_gap_and_none_counts_for_nothing() -> None:
    share = BackgroundShare(LIMITS)
    share.update(LATE)
    assert share.gap_s(0.002) == pytest.approx(0.002)
    assert share.gap_s(0.0) == pytest.approx(SLICE_MIN_S)
    assert share.gap_s(0.02) == pytest.approx(0.02), "one that took too long makes up for it"
    assert share.gap_s(3600.0) == pytest.approx(SLICE_MAX_S), "the process was stopped"


seen = st.builds(
    Measured,
    st.floats(0, 2),
    served=st.integers(0, 1000),
    late=st.integers(0, 1000),
    asked=st.integers(0, 1000),
    is_busy=st.booleans(),
)


@given(st.lists(seen, max_size=60))
def test_the_share_stays_between_the_least_and_everything_and_always_comes_back(measured: list[Measured]) -> None:
    share = BackgroundShare(LIMITS)
    for one in measured:
        share.update(one)
        assert LEAST <= share.value <= 1.0
    for _ in range(1000):
        share.update(CALM)
    assert share.value == 1.0


# The limit on requests.

FAST_S, SLOW_S = 0.012, 0.2


def ticks(limit: RequestLimit, count: int, *, average_s: float, in_flight: int = 200, was_full: bool = True) -> None:
    for _ in range(count):
        limit.update(count=50, seconds=50 * average_s, in_flight=in_flight, was_full=was_full)


def test_a_delay_over_the_target_shrinks_the_limit_window_by_window_down_to_the_least() -> None:
    limit = RequestLimit(LIMITS)
    ticks(limit, 4, average_s=SLOW_S)
    assert limit.value == LIMITS.requests_max * 9 // 10
    ticks(limit, 1000, average_s=SLOW_S)
    assert limit.value == LIMITS.requests_min


def test_the_limit_grows_only_when_it_kept_requests_out() -> None:
    limit = RequestLimit(LIMITS)
    ticks(limit, 1000, average_s=SLOW_S)
    ticks(limit, 1000, average_s=FAST_S, was_full=False)
    assert limit.value == LIMITS.requests_min
    ticks(limit, 1000, average_s=FAST_S)
    assert limit.value == LIMITS.requests_max


def test_one_slow_read_is_no_average() -> None:
    limit = RequestLimit(LIMITS)
    for _ in range(100):
        limit.update(count=1, seconds=5.0, in_flight=1, was_full=False)
    assert limit.value == LIMITS.requests_max


def test_a_quorum_that_is_far_away_is_no_queue() -> None:
    limit = RequestLimit(LIMITS)
    ticks(limit, 1000, average_s=SLOW_S, in_flight=2, was_full=False)
    ticks(limit, 1000, average_s=SLOW_S + 0.02)
    assert limit.value == LIMITS.requests_max
    ticks(limit, 1000, average_s=SLOW_S + 0.1)
    assert limit.value == LIMITS.requests_min


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 5), st.integers(0, 300), st.booleans()), max_size=200))
def test_the_limit_stays_within_its_bounds(measured: list[tuple[int, float, int, bool]]) -> None:
    limit = RequestLimit(LIMITS)
    for count, average_s, in_flight, was_full in measured:
        limit.update(count=count, seconds=count * average_s, in_flight=in_flight, was_full=was_full)
        assert LIMITS.requests_min <= limit.value <= LIMITS.requests_max


@pytest.mark.parametrize("capacity_per_s", [400, 1000, 4000])
def test_in_a_closed_loop_the_limit_settles_where_the_delay_is_that_of_the_target(capacity_per_s: int) -> None:
    """Little's law: with more clients than places, the latency is the places divided by what is served a second."""
    limit = RequestLimit(LIMITS)
    delays = []
    for _ in range(2000):
        latency_s = max(limit.unloaded_s, limit.value / capacity_per_s)
        count = int(capacity_per_s * TICK_S)
        limit.update(count=count, seconds=count * latency_s, in_flight=limit.value, was_full=True)
        delays.append(latency_s - limit.unloaded_s)
    settled = delays[1000:]
    least_s = LIMITS.requests_min / capacity_per_s
    assert sum(settled) / len(settled) < max(LIMITS.delay_target_s * 1.2, least_s)
    assert limit.value >= min(LIMITS.requests_max, 0.05 * capacity_per_s)


# The gate.

SMALL = AdmissionLimits(requests_max=5, requests_min=2, waiting_max=3)


def test_requests_are_served_then_wait_then_are_refused() -> None:
    gate = RequestGate(SMALL)
    assert [gate.enter() for _ in range(9)] == [Entry.SERVED] * 5 + [Entry.WAITING] * 3 + [Entry.REFUSED]
    assert gate.refused == 1
    assert not gate.calls_next()
    gate.leave()
    assert gate.calls_next()
    assert (gate.in_flight, gate.waiting) == (5, 2)


def test_nobody_overtakes_those_who_wait() -> None:
    gate = RequestGate(SMALL)
    for _ in range(6):
        gate.enter()
    gate.leave()
    assert gate.enter() is Entry.WAITING


class AnyGate(RuleBasedStateMachine):
    """Whatever happens at a gate, its bounds hold and no place is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = RequestGate(SMALL)

    @rule()
    def enters(self) -> None:
        before = self.gate.in_flight, self.gate.waiting
        entry = self.gate.enter()
        if entry is not Entry.SERVED:
            assert is_busy(self.gate.in_flight, self.gate.limit.value) or before[1], "the background stopped before"
        assert (entry is Entry.REFUSED) == (before == (self.gate.in_flight, self.gate.waiting))

    @precondition(lambda self: self.gate.in_flight)
    @rule()
    def leaves(self) -> None:
        self.gate.leave()
        self.gate.calls_next()

    @precondition(lambda self: self.gate.waiting)
    @rule()
    def gives_up(self) -> None:
        self.gate.gives_up()

    @rule(latency_s=st.sampled_from([0.0, 1.0]))
    def ticks(self, latency_s: float) -> None:
        gate = self.gate
        gate.limit.update(count=10, seconds=10 * latency_s, in_flight=gate.in_flight, was_full=gate.was_full)
        while self.gate.calls_next():
            pass

    @invariant()
    def is_bounded(self) -> None:
        assert 0 <= self.gate.in_flight <= SMALL.requests_max
        assert 0 <= self.gate.waiting <= SMALL.waiting_max

    @invariant()
    def serves_whoever_it_can(self) -> None:
        assert not self.gate.waiting or self.gate.in_flight >= self.gate.limit.value


TestAnyGate = AnyGate.TestCase


# The loop closed: a server of one queue, that works off requests and slices of background work.


class Server:
    """One queue; each tick brings requests, and as many background slices as the share lets in."""

    REQUEST_S = 0.0002
    SLICE_S = 0.005

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.share = BackgroundShare(LIMITS)
        self.backlog_s = 0.0
        self.slices = 0
        self.lags: list[float] = []

    def run(self, ticks: int, *, load: float, is_controlled: bool = True) -> None:
        """Offer requests of ``load`` times the capacity for some ticks."""
        self.slices, self.lags = 0, []
        for _ in range(ticks):
            count = int(load * TICK_S / self.REQUEST_S * self.rng.uniform(0.8, 1.2))
            gap_s = self.share.gap_s(self.SLICE_S)
            slices = int(TICK_S / (self.SLICE_S + gap_s) + self.rng.random())
            self.slices += slices
            self.backlog_s = max(0.0, self.backlog_s + count * self.REQUEST_S + slices * self.SLICE_S - TICK_S)
            self.lags.append(self.backlog_s)
            late = count if self.backlog_s > LIMITS.latency_target_s else 0
            if is_controlled:
                self.share.update(Measured(self.backlog_s, served=count, late=late))


def late_share(server: Server) -> float:
    return sum(lag_s > LIMITS.latency_target_s for lag_s in server.lags) / len(server.lags)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_closed_loop_the_background_takes_what_the_foreground_leaves(seed: int) -> None:
    idle, half, full = (Server(seed) for _ in range(3))
    idle.run(2000, load=0.05)
    half.run(2000, load=0.5)
    full.run(2000, load=0.97)
    slices_max = 2000 * TICK_S / Server.SLICE_S
    assert idle.slices > 0.8 * slices_max
    assert 0.2 * slices_max < half.slices < 0.5 * slices_max
    assert full.slices < 0.05 * slices_max
    assert late_share(idle) == 0.0
    assert late_share(half) < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_in_a_closed_loop_without_the_controller_the_foreground_is_late(seed: int) -> None:
    server = Server(seed)
    server.run(200, load=0.5, is_controlled=False)
    assert late_share(server) > 0.9


def test_in_a_closed_loop_a_peak_stops_the_background_and_its_end_brings_it_back() -> None:
    server = Server(1)
    server.run(400, load=0.3)
    assert server.slices > 0
    server.run(100, load=1.5)
    server.run(100, load=1.5)
    assert server.slices < 0.03 * 100 * TICK_S / Server.SLICE_S
    server.run(400, load=0.1)
    server.run(100, load=0.1)
    assert server.slices > 0.5 * 100 * TICK_S / Server.SLICE_S
