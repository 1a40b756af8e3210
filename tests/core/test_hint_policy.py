"""Who keeps a hint, which failures deserve one, and what becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import hint_policy
from merganser.core.hint_policy import (
    HINT_BYTES_MAX,
    HINT_WINDOW_OVER,
    HINT_WINDOW_S,
    HINTS_FULL,
    WINDOW_MAX,
    WINDOW_MIN,
    Fate,
    Pace,
    StandIns,
    backoff_s,
    deserves_hint,
    fate,
    objection,
    silence_s,
)
from merganser.model.errors import (
    ClockSkewError,
    CorruptionError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    StorageFailedError,
)
from merganser.model.ids import NodeId
from merganser.net.transport import refusal_code
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA

A, B, D, E, F, ME = map(NodeId, "ABDEFM")

SECOND_US = 1_000_000


def live(*nodes: NodeId) -> set[NodeId]:
    return set(nodes)


# Stand-ins


def test_fallbacks_stand_in_along_the_ring_each_for_one_primary() -> None:
    stand_ins = StandIns((D, E), coordinator=ME)
    assert [stand_ins.next_for(A, live(D, E).__contains__), stand_ins.next_for(B, live(D, E).__contains__)] == [D, E]


def test_dead_fallbacks_are_passed_over() -> None:
    assert StandIns((D, E, F), coordinator=ME).next_for(A, live(F).__contains__) == F


def test_the_coordinator_is_the_last_resort_once_for_each_primary() -> None:
    stand_ins = StandIns((D,), coordinator=ME)
    nobody = live().__contains__
    assert [stand_ins.next_for(primary, nobody) for primary in (A, B, A, B)] == [ME, ME, None, None]


@given(
    fallbacks=st.lists(st.sampled_from("defgh"), unique=True),
    alive=st.sets(st.sampled_from("defgh")),
    asked=st.lists(st.sampled_from("abc"), max_size=12),
)
def test_no_fallback_is_asked_twice_and_none_that_is_dead(
    fallbacks: list[str], alive: set[str], asked: list[str]
) -> None:
    stand_ins = StandIns([NodeId(name) for name in fallbacks], coordinator=ME)
    chosen = [(primary, stand_ins.next_for(NodeId(primary), alive.__contains__)) for primary in asked]
    others = [keeper for _, keeper in chosen if keeper not in (ME, None)]
    assert others == [name for name in fallbacks if name in alive][: len(others)]
    mine = [primary for primary, keeper in chosen if keeper == ME]
    assert len(mine) == len(set(mine))
    assert all(primary in mine for primary, keeper in chosen if keeper is None)


# When


def test_a_primary_is_silent_after_twice_its_usual_latency_within_bounds_and_half_the_deadline() -> None:
    assert silence_s(None, left_s=10.0) == 0.05
    assert silence_s(0.002, left_s=10.0) == 0.05
    assert silence_s(0.2, left_s=10.0) == 0.4
    assert silence_s(7.0, left_s=10.0) == 1.0
    assert silence_s(0.2, left_s=0.1) == 0.05


@pytest.mark.parametrize(
    "error",
    [
        PeerUnreachableError(""),
        PeerLostError(""),
        StorageFailedError(""),
        RefusedError("overloaded", ""),
        RefusedError("storage_failed", ""),
        RefusedError("unavailable", ""),
        RefusedError("not_whole", ""),
        RefusedError("a code of a later release", ""),
        RefusedError(NOT_A_REPLICA, "", map_epoch=9),
        RefusedError(NO_SUCH_TABLE, "not yet", map_epoch=4),
    ],
    ids=str,
)
def test_what_may_be_taken_later_deserves_a_hint(error: Exception) -> None:
    assert deserves_hint(error, map_epoch=5)


@pytest.mark.parametrize(
    "error",
    [
        ClockSkewError(""),
        CorruptionError(""),
        RefusedError(refusal_code(ClockSkewError()), ""),
        RefusedError(refusal_code(CorruptionError()), ""),
        RefusedError(NO_SUCH_TABLE, "dropped", map_epoch=5),
    ],
    ids=str,
)
def test_what_would_be_refused_again_deserves_none(error: Exception) -> None:
    assert not deserves_hint(error, map_epoch=5)


# Bounds of a keeper


def refused(**changed: int | bool | None) -> str | None:
    """Return the code of the objection to a hint that is fine but for what is ``changed``."""
    asked: dict[str, int | bool | None] = {
        "hint_bytes": 100,
        "stored_bytes": 0,
        "is_known_key": False,
        "oldest_us": None,
        "now_us": 10**15,
    }
    found = objection(**{**asked, **changed})  # type: ignore[arg-type]
    return None if found is None else found[0]


def test_hints_are_taken_up_to_the_last_byte() -> None:
    assert refused(stored_bytes=HINT_BYTES_MAX - 100) is None
    assert refused(stored_bytes=HINT_BYTES_MAX - 99) == HINTS_FULL
    assert refused(stored_bytes=HINT_BYTES_MAX - 99, is_known_key=True) == HINTS_FULL


def test_a_target_away_for_longer_than_the_window_gets_no_new_keys_and_news_of_old_ones() -> None:
    window_us = HINT_WINDOW_S * SECOND_US
    assert refused(oldest_us=10**15 - window_us) is None
    assert refused(oldest_us=10**15 - window_us - 1) == HINT_WINDOW_OVER
    assert refused(oldest_us=10**15 - window_us - 1, is_known_key=True) is None


# Delivery


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Fate.DELIVERED),
        (PeerUnreachableError(""), Fate.PAUSED),
        (PeerLostError(""), Fate.PAUSED),
        (RefusedError("overloaded", ""), Fate.PAUSED),
        (RefusedError("storage_failed", ""), Fate.PAUSED),
        (RefusedError("clock_skew", ""), Fate.KEPT),
        (RefusedError("corruption", ""), Fate.KEPT),
        (RefusedError(NO_SUCH_TABLE, "", map_epoch=5), Fate.KEPT),
        (RefusedError(NOT_A_REPLICA, "", map_epoch=4), Fate.KEPT),
        (RefusedError(NOT_A_REPLICA, "", map_epoch=6), Fate.MOVED),
        (RefusedError(NO_SUCH_TABLE, "", map_epoch=6), Fate.MOVED),
    ],
    ids=str,
)
def test_only_an_ack_delivers_and_every_other_answer_keeps_the_hint(error: Exception | None, expected: Fate) -> None:
    assert fate(error, map_epoch=5) is expected


def test_quick_acks_widen_the_window_step_by_step_and_slow_ones_halve_it() -> None:
    pace = Pace()
    assert pace.window == WINDOW_MIN
    for _ in range(1000):
        pace.acked_in(0.001)
    assert pace.window == WINDOW_MAX
    pace.acked_in(hint_policy.SLOW_S * 2)
    assert pace.window == WINDOW_MAX // 2
    for _ in range(1000):
        pace.held_up()
    assert pace.window == WINDOW_MIN


def test_fruitless_passes_come_ever_less_often_and_never_stop() -> None:
    assert [backoff_s(fruitless) for fruitless in (1, 2, 3, 7, 1000)] == [1.0, 2.0, 4.0, 60.0, 60.0]
