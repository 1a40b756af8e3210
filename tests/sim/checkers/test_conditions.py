"""The checker of puts that depend on something: histories that keep every promise, and one for each that is broken."""

from __future__ import annotations

import pytest

from merganser.model.contents import Condition
from merganser.sim.checkers.conditions import conditions_not_kept
from merganser.sim.history import History, Trouble, ValuePut

KEY = b"k"


def put(
    value: str,
    began_s: float,
    acked_s: float | None = None,
    *,
    seen: str = "",
    as_of_s: float = 0.0,
    only_if: Condition | None = None,
    is_delete: bool = False,
    is_unwritten: bool = False,
) -> ValuePut:
    names = frozenset(name.encode() for name in seen.split())
    made = ValuePut(KEY, value.encode(), is_delete, names, began_s, acked_s, only_if=only_if, as_of_s=as_of_s)
    made.ended_s = acked_s or began_s + 1
    made.is_certainly_unwritten = is_unwritten
    return made


def same(value: str, began_s: float, acked_s: float | None = None, *, seen: str = "", as_of_s: float = 0.0) -> ValuePut:
    """Put if it is not modified."""
    return put(value, began_s, acked_s, seen=seen, as_of_s=as_of_s, only_if=Condition.NOT_MODIFIED)


def first(value: str, began_s: float, acked_s: float | None = None) -> ValuePut:
    """Put if there is nothing."""
    return put(value, began_s, acked_s, only_if=Condition.NONE_MATCH)


def delete(
    name: str, began_s: float, acked_s: float | None = None, *, seen: str = "", as_of_s: float = 0.0
) -> ValuePut:
    return put(name, began_s, acked_s, seen=seen, as_of_s=as_of_s, is_delete=True)


def refused(one: ValuePut) -> ValuePut:
    one.is_refused = one.is_certainly_unwritten = True
    return one


def judged(*puts: ValuePut, has_purges: bool = False, last: bool = False, trouble_s: float | None = None) -> list[str]:
    history = History()
    history.value_puts = list(puts)
    history.has_purges, history.last_write_wins = has_purges, last
    history.troubles = [] if trouble_s is None else [Trouble(None, trouble_s)]
    return list(conditions_not_kept(history))


GOOD = {
    "the first": (first("a", 0, 1),),
    "the next": (put("a", 0, 1), same("b", 2, 3, seen="a", as_of_s=1)),
    "its context may have seen it": (put("a", 0, 2), same("b", 3, 4, as_of_s=1)),
    "not acknowledged yet": (put("a", 0, 3), first("b", 2, 4)),
    "of unknown outcome": (put("a", 0), first("b", 2, 3)),
    "after a delete": (put("a", 0, 1), delete("d", 2, 3, seen="a", as_of_s=1), first("b", 4, 5)),
    "perhaps after a delete": (put("a", 0, 1), delete("d", 2, as_of_s=1), first("b", 4, 5)),
    "one after the other": (same("b", 0, 3), same("c", 1, 4, seen="b", as_of_s=0.5)),
    "refused for a value": (put("a", 0, 1), refused(first("b", 2))),
    "refused for what may be": (put("a", 0), refused(same("b", 2))),
    "one of two": (first("a", 0, 2), refused(first("b", 1))),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    assert judged(*GOOD[name]) == judged(*GOOD[name], last=True) == []


BAD = {
    "a change": ("modified", (put("a", 1, 2), same("b", 3, 4, as_of_s=0.5))),
    "a change behind a context": ("modified", (put("a", 0, 1), put("x", 3, 4), same("b", 5, 6, seen="a", as_of_s=2))),
    "a delete": ("modified", (delete("d", 1, 2), same("b", 3, 4, as_of_s=0.5))),
    "a value": ("matched", (put("a", 0, 1), first("b", 2, 3))),
    "a value that none saw deleted": (
        "matched",
        (delete("d", 0, 1), put("a", 2, 3), first("b", 4, 5)),
    ),
    "for nothing": ("refused", (refused(first("b", 2)),)),
    "for what was seen": ("refused", (put("a", 0, 1), refused(same("b", 2, seen="a", as_of_s=1)))),
    "for what was deleted": (
        "refused",
        (put("a", 0, 1), delete("d", 2, 3, seen="a", as_of_s=1), refused(first("b", 4))),
    ),
    "for what came later": ("refused", (refused(first("b", 0)), put("a", 5, 6))),
    "for what was not written": ("refused", (put("a", 0, is_unwritten=True), refused(first("b", 2)))),
    "two first ones": ("both", (first("a", 0, 2), first("b", 1, 3))),
    "two of one state": ("both", (same("a", 1, 3, as_of_s=0.5), same("b", 2, 4, as_of_s=0.5))),
    "a first one and a change": ("both", (first("a", 1, 3), same("b", 2, 4, as_of_s=0.5))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_told(name: str) -> None:
    told, puts = BAD[name]
    for sentences in judged(*puts), judged(*puts, last=True):
        assert [sentence.partition(":")[0] for sentence in sentences] == [told]


def test_of_siblings_a_delete_takes_what_it_can_have_seen_alone() -> None:
    puts = put("a", 2, 3), delete("d", 4, 5, as_of_s=1), first("b", 6, 7)
    assert [sentence.partition(":")[0] for sentence in judged(*puts)] == ["matched"]
    assert judged(*puts, last=True) == []


def test_two_may_be_done_at_once_after_the_first_fault() -> None:
    puts = first("a", 0, 2), first("b", 1, 3)
    assert judged(*puts, trouble_s=1.5) == []
    assert judged(*puts, trouble_s=3.5) != []


def test_what_was_purged_is_no_reason_and_no_obstacle() -> None:
    deleted = put("a", 1, 2), delete("d", 3, 4, seen="a", as_of_s=2), same("b", 5, 6, as_of_s=0.5)
    assert judged(*deleted) != []
    assert judged(*deleted, has_purges=True) == []
    seen = put("a", 0, 1), refused(same("b", 2, seen="a", as_of_s=1))
    assert judged(*seen, has_purges=True) == []
