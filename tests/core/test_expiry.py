from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.expiry import AGE_S_MAX, MARGIN_S, due_between, is_due

NOW_S = 1_800_000_000


@pytest.mark.parametrize(
    ("expires_at_s", "is_over"),
    [
        (NOW_S + 1, False),
        (NOW_S, False),
        (NOW_S - MARGIN_S + 1, False),
        (NOW_S - MARGIN_S, True),
        (NOW_S - 86_400, True),
        (NOW_S - AGE_S_MAX, True),
        (NOW_S - AGE_S_MAX - 1, False),
        (1, False),
    ],
)
def test_an_item_has_expired_between_the_margin_and_five_years_after_its_time(expires_at_s: int, is_over: bool) -> None:
    assert is_due(expires_at_s, NOW_S) is is_over
    assert is_due(expires_at_s, NOW_S + 0.999) is is_over


@given(now_s=st.floats(0, 2.0**40), expires_at_s=st.integers(0, 2**40))
def test_nothing_is_due_before_its_time_and_the_margin(now_s: float, expires_at_s: int) -> None:
    oldest_s, newest_s = due_between(now_s)
    assert is_due(expires_at_s, now_s) == (oldest_s <= expires_at_s < newest_s)
    if is_due(expires_at_s, now_s):
        assert now_s >= expires_at_s + MARGIN_S
