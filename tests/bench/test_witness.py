"""The witness tells of a slow machine, never of what is measured on it."""

from __future__ import annotations

import os
import time

import pytest

from merganser.bench.witness import APART_S, LEAD_S, SETTLE_S, Slow, Witness, found_slow, is_clear, joined

PIECE_S, EVERY_S = 0.00004, 0.004


def pieces(*taken: float, late: dict[int, float] | None = None) -> list[tuple[float, float, float]]:
    """Return pieces of work that took so long, those of ``late`` begun so much later than they were due."""
    dues = [100.0 + EVERY_S * number for number in range(len(taken))]
    begins = [due + (late or {}).get(number, 0.0) for number, due in enumerate(dues)]
    return [(due, begin, begin + took) for due, begin, took in zip(dues, begins, taken, strict=True)]


def test_a_core_is_slow_where_work_on_end_took_longer_than_usual_or_began_late() -> None:
    usual = [PIECE_S] * 20
    assert found_slow(pieces(*usual)) == []
    (slow,) = found_slow(pieces(*usual, *[10 * PIECE_S] * 5, *usual))
    assert slow.begin == pytest.approx(100.0 + 20 * EVERY_S)
    assert slow.end == pytest.approx(slow.begin + 4 * EVERY_S + 10 * PIECE_S)
    (stopped,) = found_slow(pieces(*usual, late={7: 0.03}))
    assert stopped.end == pytest.approx(stopped.begin + 0.03 + PIECE_S)


def test_single_pieces_that_took_longer_are_no_slow_core_however_near_one_another() -> None:
    usual = [PIECE_S] * 5
    assert found_slow(pieces(*usual, 10 * PIECE_S, *usual, 10 * PIECE_S, *usual)) == []


def test_a_core_that_was_not_watched_was_not_slow() -> None:
    assert found_slow([]) == []


def test_slow_moments_of_all_cores_that_lie_close_together_are_one() -> None:
    near = [Slow(2.0, 2.1), Slow(1.0, 1.2), Slow(1.2 + APART_S / 2, 1.3), Slow(1.1, 1.15)]
    assert joined(near, apart_s=APART_S) == (Slow(1.0, 1.3), Slow(2.0, 2.1))


def test_requests_that_began_about_a_slow_moment_are_not_in_clear_time_however_short_they_were() -> None:
    slow = [Slow(10.0, 10.1)]
    assert is_clear(10.0 - LEAD_S - 0.001, slow)
    assert not is_clear(10.0 - LEAD_S, slow)
    assert not is_clear(10.05, slow)
    assert not is_clear(10.1 + SETTLE_S - 0.001, slow)
    assert is_clear(10.1 + SETTLE_S, slow)
    assert is_clear(10.05, [])


def test_it_watches_every_core_while_it_is_entered_and_leaves_no_process() -> None:
    began = time.monotonic()
    with Witness() as watching:
        processes = list(watching._processes)  # what they see is the machine's affair
    assert len(processes) == (len(os.sched_getaffinity(0)) if watching.is_allowed else 0)
    assert all(process.returncode == 0 for process in processes)
    assert all(began <= slow.begin < slow.end <= time.monotonic() for slow in watching.slow)


def test_without_the_right_to_go_first_it_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    with Witness() as watching:
        assert not watching._processes
    assert (watching.is_allowed, watching.slow) == (False, ())
