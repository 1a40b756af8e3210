"""The steps of simulated clients, evaluated on what an item may be."""

from __future__ import annotations

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content
from merganser.sim.steps import (
    Add,
    Append,
    Check,
    CompareAndSet,
    Put,
    Step,
    elements_in,
    evaluate,
    payload_of,
    value_in,
    value_of,
)

TABLE = Table(TableId(1), "t", "sim", 3, b"", "u", "leader")


@pytest.mark.parametrize(
    ("step", "was", "becomes"),
    [
        (Put(b"a"), None, Content(b"a")),
        (Put(b"a"), b"b", Content(b"a")),
        (Put(None), b"b", EMPTY),
        (CompareAndSet(b"a", b"b"), b"a", Content(b"b")),
        (CompareAndSet(None, b"b"), None, Content(b"b")),
        (CompareAndSet(b"a", None), b"a", EMPTY),
        (Add(2), None, Content(b"2")),
        (Add(-2, start=10), None, Content(b"8")),
        (Add(-2, least=0), b"2", Content(b"0")),
        (Append(b"x"), None, Content(b"x")),
        (Append(b"y"), b"x", Content(b"x,y")),
        (Append(b"y", (b"x",)), b"x", Content(b"x,y")),
    ],
)
def test_a_step_changes_its_item_and_tells_what_it_was(step: Step, was: bytes | None, becomes: Content) -> None:
    decided = evaluate(TABLE, payload_of(step), was)
    assert (decided.content, decided.is_rejected) == (becomes, False)
    assert value_in(decided.answer) == was


@pytest.mark.parametrize(
    ("step", "was"),
    [(Put(None), None), (CompareAndSet(b"a", b"a"), b"a"), (Check(b"a"), b"a"), (Check(None), None)],
)
def test_a_step_that_changes_nothing_writes_nothing(step: Step, was: bytes | None) -> None:
    decided = evaluate(TABLE, payload_of(step), was)
    assert (decided.content, decided.is_rejected, value_in(decided.answer)) == (None, False, was)


@pytest.mark.parametrize(
    ("step", "was"),
    [
        (CompareAndSet(b"a", b"b"), b"c"),
        (CompareAndSet(None, b"b"), b"c"),
        (Add(-3, least=0), b"2"),
        (Add(1), b"not a number"),
        (Append(b"y", ()), b"x"),
        (Check(b"a"), None),
    ],
)
def test_a_rejected_step_tells_what_it_saw(step: Step, was: bytes | None) -> None:
    decided = evaluate(TABLE, payload_of(step), was)
    assert (decided.content, decided.is_rejected, value_in(decided.answer)) == (None, True, was)


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(RequestError, match="not a step"):
        evaluate(TABLE, b"\xc1", None)


def test_lists_are_stored_and_read_back() -> None:
    for elements in (), (b"1",), (b"1", b"2"):
        assert elements_in(value_of(elements)) == elements
