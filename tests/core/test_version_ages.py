from __future__ import annotations

from merganser.core.version_ages import VersionAges
from merganser.model.register import Version


def v(sequence: int, number: int = 2) -> Version:
    return Version(number, 1, sequence)


def test_what_was_written_before_a_mark_is_as_old_as_the_mark() -> None:
    ages = VersionAges(most_s=600.0)
    ages.mark(v(3), 0.0)
    ages.mark(v(17), 60.0)
    ages.mark(v(17), 120.0)
    assert [ages.age_s(version, 130.0) for version in (v(2), v(3), v(5), v(17), v(18))] == [
        130.0,
        130.0,
        70.0,
        70.0,
        0.0,
    ]


def test_what_an_earlier_leader_wrote_is_as_old_as_the_first_mark() -> None:
    ages = VersionAges(most_s=600.0)
    ages.mark(v(0), 1_000.0)
    assert ages.age_s(v(99, number=1), 1_010.0) == 10.0
    assert ages.age_s(v(1), 1_010.0) == 0.0


def test_marks_that_tell_nothing_more_are_forgotten_and_nothing_becomes_younger() -> None:
    ages = VersionAges(most_s=600.0)
    for minute in range(1_000):
        ages.mark(v(minute), 60.0 * minute)
    assert len(ages._marks) == 11
    now_s = 60.0 * 999
    assert ages.age_s(v(0), now_s) == 600.0
    assert ages.age_s(v(990), now_s) == 540.0
