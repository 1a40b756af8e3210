"""The checker of siblings: histories that keep every promise, and one for each that is broken."""

from __future__ import annotations

import pytest

from merganser.sim.checkers.siblings import lost_siblings
from merganser.sim.history import History, ValuePut, ValuesRead

KEY = b"k"


def put(value: str, began_s: float, acked_s: float | None = None, *, seen: str = "", **more: object) -> ValuePut:
    return ValuePut(KEY, value.encode(), False, values(seen), began_s, acked_s, **more)  # type: ignore[arg-type]


def delete(name: str, began_s: float, acked_s: float | None = None, *, seen: str = "") -> ValuePut:
    return ValuePut(KEY, name.encode(), True, values(seen), began_s, acked_s)


def read(what: str, began_s: float) -> ValuesRead:
    return ValuesRead(KEY, values(what), began_s, began_s + 0.5)


def values(what: str) -> frozenset[bytes]:
    return frozenset(value.encode() for value in what.split())


def judged(*records: ValuePut | ValuesRead) -> list[str]:
    history = History()
    history.value_puts = [record for record in records if isinstance(record, ValuePut)]
    history.value_reads = [record for record in records if isinstance(record, ValuesRead)]
    return list(lost_siblings(history))


@pytest.mark.parametrize(
    "records",
    [
        pytest.param((put("a", 0, 1), read("a", 2)), id="read"),
        pytest.param((put("a", 0, 1), put("b", 0, 1), read("a b", 2)), id="siblings"),
        pytest.param((put("a", 0, 1), put("b", 2, 3, seen="a"), read("b", 4)), id="replaced"),
        pytest.param((put("a", 0, 1), put("b", 2, seen="a"), read("b", 4)), id="replaced by an unknown put"),
        pytest.param((put("a", 0, 1), put("b", 2, seen="a"), read("a", 4)), id="not replaced by an unknown put"),
        pytest.param((put("a", 0, 1), delete("d", 2, 3, seen="a"), read("", 4)), id="deleted"),
        pytest.param(
            (put("a", 0, 1), put("b", 2, seen="a"), put("c", 3, 4, seen="a b"), read("c", 5)), id="replaced twice"
        ),
        pytest.param((put("a", 0), read("", 1), read("a", 2)), id="seen late"),
        pytest.param((put("a", 0, 3), read("", 1)), id="acknowledged after the read began"),
    ],
)
def test_a_good_history_is_accepted(records: tuple[ValuePut | ValuesRead, ...]) -> None:
    assert judged(*records) == []


@pytest.mark.parametrize(
    ("records", "told"),
    [
        pytest.param((put("a", 0, 1), read("", 2)), "lost", id="acknowledged"),
        pytest.param((put("a", 0), read("a", 1), read("", 2)), "lost", id="read before"),
        pytest.param((put("a", 0, 1), put("b", 0, 1), read("b", 2)), "lost", id="by one that had not seen it"),
        pytest.param((put("a", 0, 1), put("b", 2, seen="a"), read("", 4)), "lost", id="both"),
        pytest.param((put("a", 0, 1), delete("d", 0, 1), read("", 2)), "lost", id="by a blind delete"),
        pytest.param((put("a", 0, 1), put("b", 5, seen="a"), read("", 2)), "lost", id="by one that came later"),
        pytest.param((put("a", 0, 1), put("b", 2, 3, seen="a"), read("a b", 4)), "not replaced", id="beside"),
        pytest.param((put("a", 0, 1), delete("d", 2, 3, seen="a"), read("a", 4)), "not replaced", id="risen"),
        pytest.param((read("a", 2),), "from nowhere", id="unheard of"),
        pytest.param((delete("d", 0, 1), read("d", 2)), "from nowhere", id="a delete"),
        pytest.param((put("a", 3), read("a", 1)), "from nowhere", id="before it was put"),
        pytest.param(
            (put("a", 0, is_certainly_unwritten=True), read("a", 1)), "from nowhere", id="certainly unwritten"
        ),
        pytest.param(
            (
                put("a", 0, 1, items=frozenset({"milk"})),
                put("b", 2, 3, seen="a", items=frozenset({"bread"})),
                read("b", 4),
            ),
            "items lost",
            id="an item",
        ),
    ],
)
def test_a_broken_promise_is_told(records: tuple[ValuePut | ValuesRead, ...], told: str) -> None:
    assert any(sentence.startswith(told) for sentence in judged(*records))
