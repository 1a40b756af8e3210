"""What was counted is in every copy, whichever replicas have folded it already and whichever have not."""

from __future__ import annotations

import pytest

from merganser.core import causality, horizon, rows
from merganser.core.crdt import reading, updates
from merganser.model import crdt
from merganser.model.crdt import Operation, Session, Shown
from merganser.model.row import Row

ONE, OTHER = Session(ends_us=10, number=1, began_us=1), Session(ends_us=20, number=2, began_us=6)
EARLY_US, BETWEEN_US, LATE_US = 9, 15, 30
"""Before either session has ended, when one has, and when both have."""


def counted() -> Row:
    """Return a counter that two sessions have raised by 17, nothing folded."""
    actors = causality.Actors(7)
    row: Row | None = None
    for session, amount, micros in ((ONE, 9, 5), (OTHER, 8, 8)):
        operation = Operation(crdt.COUNTER, "increment", amount)
        delta = updates.delta(row, [operation], [actors.mint(b"k", micros)], session=session)
        assert delta is not None
        row = delta if row is None else rows.merge(row, delta)
    assert row is not None
    return row


def folded(until_us: int) -> Row:
    row = rows.purged(counted(), until_us)
    assert row is not None
    return row


def read(row: Row | None) -> list[Shown]:
    return reading.values(row)


WHOLE = [Shown(crdt.COUNTER, 17)]


@pytest.mark.parametrize("mine_us", [EARLY_US, BETWEEN_US, LATE_US])
@pytest.mark.parametrize("theirs_us", [EARLY_US, BETWEEN_US, LATE_US])
@pytest.mark.parametrize("horizon_us", [BETWEEN_US, LATE_US])
def test_a_copy_from_behind_the_horizon_takes_nothing_away(mine_us: int, theirs_us: int, horizon_us: int) -> None:
    mine, theirs = folded(mine_us), folded(theirs_us)
    taken = horizon.admissible(theirs, horizon_us=horizon_us, vouched_us=EARLY_US)
    assert read(mine if taken is None else rows.merge(mine, taken)) == WHOLE
    assert read(horizon.agreed([(mine, horizon_us), (theirs, EARLY_US)])) == WHOLE
    met = horizon.met(mine, theirs, horizon_us=horizon_us, floor_us=horizon_us, other_us=EARLY_US)
    assert read(met) == WHOLE


def test_what_was_folded_comes_to_the_same_in_the_end() -> None:
    ahead = horizon.agreed([(folded(BETWEEN_US), BETWEEN_US), (folded(LATE_US), EARLY_US)])
    assert ahead is not None
    assert rows.purged(ahead, LATE_US) == folded(LATE_US)
