"""The checker of values that merge themselves: histories that add up, and one for each way in which they do not."""

from __future__ import annotations

import math

import pytest

from merganser.sim.checkers.crdts import HITS, SUMS_MAX, values_that_do_not_add_up
from merganser.sim.history import CrdtRead, CrdtWrite, History

KEY = b"k"
Record = CrdtWrite | CrdtRead


def count(amount: int, began_s: float, acked_s: float | None = None) -> CrdtWrite:
    return CrdtWrite(KEY, HITS, amount, began_s, 0, acked_s)


def add(element: str, began_s: float, acked_s: float | None = None) -> CrdtWrite:
    return CrdtWrite(KEY, element, 1, began_s, 0, acked_s)


def removal(
    place: str, began_s: float, acked_s: float | None = None, *, saw_from_s: float, saw_until_s: float = math.inf
) -> CrdtWrite:
    return CrdtWrite(KEY, place, 0, began_s, 0, acked_s, saw_from_s=saw_from_s, saw_until_s=saw_until_s)


def refused(write: CrdtWrite) -> CrdtWrite:
    write.is_certainly_unwritten = True
    return write


def read(hits: int, elements: str, began_s: float) -> CrdtRead:
    return CrdtRead(KEY, hits, frozenset(elements.split()), began_s, began_s + 0.5, 0)


def judged(*records: Record) -> list[str]:
    history = History()
    history.crdt_writes = [record for record in records if isinstance(record, CrdtWrite)]
    history.crdt_reads = [record for record in records if isinstance(record, CrdtRead)]
    return list(values_that_do_not_add_up(history))


GOOD: dict[str, tuple[Record, ...]] = {
    "nothing": (read(0, "", 1),),
    "counted": (count(3, 0, 1), count(-1, 0, 1), read(2, "", 2)),
    "an unknown one that counts": (count(3, 0, 1), count(5, 0), read(8, "", 2)),
    "an unknown one that does not": (count(3, 0, 1), count(5, 0), read(3, "", 2)),
    "one of two unknown ones": (count(3, 0), count(5, 0), read(5, "", 2)),
    "one under way": (count(3, 0, 4), read(0, "", 1), read(3, "", 2)),
    "a reset": (count(3, 0, 1), removal(HITS, 2, 3, saw_from_s=2), read(0, "", 4)),
    "a reset of everything": (count(3, 0, 1), add("x", 0, 1), removal("", 2, 3, saw_from_s=2), read(0, "", 4)),
    "a reset of unknown outcome": (count(3, 0, 1), removal(HITS, 2, saw_from_s=2), read(3, "", 4), read(0, "", 5)),
    "a reset at the same time": (count(3, 2, 4), removal(HITS, 2, 4, saw_from_s=2), read(3, "", 5), read(0, "", 6)),
    "added": (add("x", 0, 1), read(0, "x", 2)),
    "perhaps added": (add("x", 0), read(0, "", 2), read(0, "x", 3)),
    "removed": (add("x", 0, 1), removal("x", 2, 3, saw_from_s=2), read(0, "", 4)),
    "added again": (add("x", 0, 1), removal("x", 2, 3, saw_from_s=2), add("x", 4, 5), read(0, "x", 6)),
    "added behind who removes": (
        add("x", 2.5, 3.5),
        removal("x", 4, 5, saw_from_s=1, saw_until_s=2),
        read(0, "x", 6),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    assert judged(*GOOD[name]) == []


BAD: dict[str, tuple[str, tuple[Record, ...]]] = {
    "an update": ("counted wrong", (count(3, 0, 1), read(0, "", 2))),
    "twice": ("counted wrong", (count(3, 0, 1), read(6, "", 2))),
    "an unknown one twice": ("counted wrong", (count(3, 0), read(6, "", 2))),
    "a part of one": ("counted wrong", (count(5, 0), read(3, "", 2))),
    "what was refused": ("counted wrong", (refused(count(3, 0)), read(3, "", 2))),
    "before it began": ("counted wrong", (count(3, 5, 6), read(3, "", 2))),
    "in spite of a reset": ("counted wrong", (count(3, 0, 1), removal(HITS, 2, 3, saw_from_s=2), read(3, "", 4))),
    "taken by a reset that had not seen it": (
        "counted wrong",
        (count(3, 2, 3), removal(HITS, 3, 4, saw_from_s=0, saw_until_s=1), read(0, "", 5)),
    ),
    "an element": ("lost", (add("x", 0, 1), read(0, "", 2))),
    "an element that was added again": (
        "lost",
        (add("x", 0, 1), removal("x", 2, 3, saw_from_s=2, saw_until_s=3), add("x", 4, 5), read(0, "", 6)),
    ),
    "taken by a removal of another": (
        "lost",
        (add("x", 0, 1), add("y", 0, 1), removal("y", 2, 3, saw_from_s=2), read(0, "", 4)),
    ),
    "risen": ("not removed", (add("x", 0, 1), removal("x", 2, 3, saw_from_s=2), read(0, "x", 4))),
    "risen after a reset": ("not removed", (add("x", 0, 1), removal("", 2, 3, saw_from_s=2), read(0, "x", 4))),
    "of another world": ("from nowhere", (read(0, "x", 2),)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_add_up_is_told(name: str) -> None:
    told, records = BAD[name]
    assert [sentence.partition(":")[0] for sentence in judged(*records)] == [told]


def test_more_sums_than_can_be_looked_through_are_judged_by_their_bounds() -> None:
    many = [count(2**power, 0) for power in range(20)]
    assert 2 ** len(many) > SUMS_MAX
    assert judged(*many, read(2**20 - 1, "", 2)) == []
    assert len(judged(*many, read(2**20, "", 2), read(-1, "", 2))) == 2
