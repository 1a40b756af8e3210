"""Local health: doubt makes a member slower to accuse, success makes it quick again, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.local_health import SCORE_MAX, LocalHealth


def test_a_member_begins_healthy_and_waits_as_long_as_usual() -> None:
    assert (LocalHealth().score, LocalHealth().multiplier) == (0, 1)


def test_each_doubt_makes_it_wait_a_period_longer_up_to_nine() -> None:
    health = LocalHealth()
    multipliers = []
    for _ in range(SCORE_MAX + 2):
        health.worsen()
        multipliers.append(health.multiplier)
    assert multipliers == [2, 3, 4, 5, 6, 7, 8, 9, 9, 9]


@given(st.lists(st.booleans()))
def test_the_score_is_what_doubts_outweigh_successes_and_never_out_of_bounds(signs: list[bool]) -> None:
    health, expected = LocalHealth(), 0
    for is_doubt in signs:
        if is_doubt:
            health.worsen()
        else:
            health.improve()
        expected = min(SCORE_MAX, max(0, expected + (1 if is_doubt else -1)))
        assert health.score == expected
