from __future__ import annotations

from merganser.core import rows
from merganser.core.healing import Healed, healed
from merganser.core.horizon import Standing
from merganser.model.row import Cell, CellWrite, Mutation, Row
from merganser.model.timestamp import Timestamp

WHOLE_AT_100 = Standing(sealed_us=100, horizon_us=100)


def written(micros: int, value: bytes = b"v") -> Row:
    return Row((Cell(b"value", Timestamp(micros, 1), value),))


def deleted(micros: int) -> Row:
    return rows.stamp(Mutation(deletes_row=True), Timestamp(micros, 1))


def test_the_newest_of_all_others_takes_the_place() -> None:
    decided = healed([(written(5), 0), (written(9, b"new"), 0)], Standing(), floor_us=0)
    assert decided == Healed(written(9, b"new"), is_distrusted=False)


def test_what_nobody_holds_is_removed() -> None:
    assert healed([(None, 0), (None, 0)], Standing(), floor_us=0) == Healed(None, is_distrusted=False)


def test_up_to_the_horizon_only_those_speak_who_have_it() -> None:
    decided = healed([(written(50), 0), (None, 100)], WHOLE_AT_100, floor_us=100)
    assert decided == Healed(None, is_distrusted=False)


def test_after_the_horizon_all_speak() -> None:
    decided = healed([(written(150), 0), (written(50), 100)], WHOLE_AT_100, floor_us=100)
    assert decided == Healed(written(150), is_distrusted=False)


def test_tombstones_after_the_horizon_stay() -> None:
    decided = healed([(deleted(150), 100), (written(120), 100)], WHOLE_AT_100, floor_us=100)
    assert decided == Healed(deleted(150), is_distrusted=False)


def test_one_that_is_behind_an_authority_answers_no_reads_until_it_has_compared() -> None:
    decided = healed([(None, 200), (written(50), 100)], WHOLE_AT_100, floor_us=100)
    assert decided == Healed(None, is_distrusted=True)
    decided = healed([(None, 200), (None, 0)], Standing(), floor_us=0)
    assert decided == Healed(None, is_distrusted=True)


def test_one_that_is_ahead_of_all_others_does_not_vouch_for_what_they_say() -> None:
    decided = healed([(written(50), 0), (deleted(60), 0)], WHOLE_AT_100, floor_us=100)
    assert decided is not None
    assert decided.is_distrusted
    assert decided.row == rows.merge(written(50), deleted(60))


def test_one_that_is_not_whole_is_compared_anyway() -> None:
    decided = healed([(written(250), 200), (None, 0)], Standing(is_whole=False), floor_us=0)
    assert decided == Healed(written(250), is_distrusted=False)


def test_nothing_is_decided_while_a_horizon_is_adopted_for_which_nobody_vouches() -> None:
    assert healed([(written(50), 100), (None, 0)], WHOLE_AT_100, floor_us=200) is None


def test_while_a_horizon_is_adopted_those_who_have_it_speak() -> None:
    decided = healed([(written(250), 200), (written(50), 0)], Standing(is_whole=False), floor_us=200)
    assert decided == Healed(written(250), is_distrusted=False)


def test_a_distrusted_standing_vouches_for_nothing_though_it_never_did() -> None:
    for standing in (Standing(sealed_us=7), WHOLE_AT_100):
        distrusted = standing.distrusted()
        assert (distrusted.horizon_us, distrusted.purged_us, distrusted.is_whole) == (0, 0, False)
        assert distrusted.sealed_us == standing.sealed_us


def test_a_row_keeps_all_its_cells() -> None:
    one, other = (
        rows.stamp(Mutation((CellWrite(name, b"v"),)), Timestamp(micros, 1)) for name, micros in ((b"a", 3), (b"b", 4))
    )
    assert healed([(one, 0), (other, 0)], Standing(), floor_us=0) == Healed(rows.merge(one, other), is_distrusted=False)
