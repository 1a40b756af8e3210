"""The checker of last writes: histories that keep every promise, and one for each that is broken."""

from __future__ import annotations

import pytest

from merganser.sim.checkers.last_writes import last_writes_that_lost
from merganser.sim.history import History, ValuePut, ValuesRead

KEY = b"k"


def put(value: str, began_s: float, acked_s: float | None = None, *, seen: str = "") -> ValuePut:
    return ValuePut(KEY, value.encode(), False, values(seen), began_s, acked_s)


def delete(name: str, began_s: float, acked_s: float | None = None, *, seen: str = "") -> ValuePut:
    return ValuePut(KEY, name.encode(), True, values(seen), began_s, acked_s)


def unwritten(value: str, began_s: float) -> ValuePut:
    return ValuePut(KEY, value.encode(), False, frozenset(), began_s, is_certainly_unwritten=True)


def read(what: str, began_s: float) -> ValuesRead:
    return ValuesRead(KEY, values(what), began_s, began_s + 0.5)


def values(what: str) -> frozenset[bytes]:
    return frozenset(value.encode() for value in what.split())


def judged(*records: ValuePut | ValuesRead, last: bool = True) -> list[str]:
    history = History()
    history.last_write_wins = last
    history.value_puts = [record for record in records if isinstance(record, ValuePut)]
    history.value_reads = [record for record in records if isinstance(record, ValuesRead)]
    return list(last_writes_that_lost(history))


@pytest.mark.parametrize(
    "records",
    [
        pytest.param((put("a", 0, 1), read("a", 2)), id="read"),
        pytest.param((put("a", 0, 1), put("b", 2, 3), read("b", 4)), id="replaced by who had not seen it"),
        pytest.param((put("a", 0, 3), put("b", 1, 2), read("a", 4)), id="the one at the same time"),
        pytest.param((put("a", 0, 3), put("b", 1, 2), read("b", 4)), id="or the other"),
        pytest.param((put("a", 0, 1), put("b", 2), read("a", 4), read("b", 5)), id="of unknown outcome, late"),
        pytest.param((put("a", 0, 1), delete("d", 2, 3), read("", 4)), id="deleted"),
        pytest.param((delete("d", 0), put("a", 2, 3), read("", 4)), id="deleted by a clock ahead, late"),
        pytest.param((put("a", 0, 3), read("", 1)), id="acknowledged after the read began"),
    ],
)
def test_a_good_history_is_accepted(records: tuple[ValuePut | ValuesRead, ...]) -> None:
    assert judged(*records) == []


@pytest.mark.parametrize(
    ("records", "told"),
    [
        pytest.param((put("a", 0, 1), put("b", 0, 1), read("a b", 2)), "two at once", id="two"),
        pytest.param((read("a", 2),), "from nowhere", id="unheard of"),
        pytest.param((unwritten("a", 0), read("a", 2)), "from nowhere", id="refused"),
        pytest.param((put("a", 3, 4), read("a", 1)), "from nowhere", id="before it was put"),
        pytest.param((put("a", 0, 1), put("b", 2, 3), read("a", 4)), "stale", id="behind what was acknowledged"),
        pytest.param((put("a", 0, 1), put("b", 2), read("b", 4), read("a", 5)), "stale", id="behind what was read"),
        pytest.param((put("a", 0), put("b", 2, 3, seen="a"), read("a", 4)), "stale", id="behind who had seen it"),
        pytest.param((put("a", 0, 1), delete("d", 2, 3), read("a", 4)), "stale", id="risen"),
        pytest.param((put("a", 0, 1), read("", 2)), "gone", id="gone"),
        pytest.param((delete("d", 0, 1), put("a", 2, 3), read("", 4)), "gone", id="gone by a delete before it"),
        pytest.param((put("a", 0), read("a", 2), read("", 4)), "gone", id="gone though it was read"),
    ],
)
def test_a_broken_promise_is_told(records: tuple[ValuePut | ValuesRead, ...], told: str) -> None:
    assert [sentence.partition(":")[0] for sentence in judged(*records)] == [told]
    assert judged(*records, last=False) == [], "siblings are judged by others"
