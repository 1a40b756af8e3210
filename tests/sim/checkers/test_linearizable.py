"""The linearizability checker: what it must tell, what it must not, and that it agrees with trying every order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from math import inf

import pytest

from merganser.sim.checkers.linearizable import (
    Action,
    Add,
    CompareAndSet,
    Operation,
    Put,
    Read,
    TooManyConfigurationsError,
    culprit_in,
    flaws,
    number_in,
)


def op(action: Action, began_s: float, ended_s: float = inf, key: bytes = b"k") -> Operation:
    return Operation(key, action, began_s, ended_s)


GOOD = {
    "one after the other": [op(Put(b"a"), 0, 1), op(Read(b"a"), 2, 3), op(Put(None), 4, 5), op(Read(None), 6, 7)],
    "nothing at first": [op(Read(None), 0, 1)],
    "writes that overlap, in either order": [op(Put(b"a"), 0, 5), op(Put(b"b"), 1, 4), op(Read(b"a"), 6, 7)],
    "a read that overlaps a write sees what was before": [op(Put(b"a"), 0, 9), op(Read(None), 1, 2)],
    "a read that overlaps a write sees what comes": [op(Put(b"a"), 0, 9), op(Read(b"a"), 1, 2)],
    "an unknown write appears late": [op(Put(b"a"), 0), op(Read(None), 5, 6), op(Read(b"a"), 7, 8)],
    "an unknown write never appears": [op(Put(b"a"), 0), op(Read(None), 5, 6)],
    "a swap that won": [op(Put(b"a"), 0, 1), op(CompareAndSet(b"a", b"b"), 2, 3), op(Read(b"b"), 4, 5)],
    "of two swaps the unknown one won": [
        op(Put(b"a"), 0, 1),
        op(CompareAndSet(b"a", b"b"), 2),
        op(Read(b"b"), 3, 4),  # the other was refused, and told what it saw
        op(Read(b"b"), 5, 6),
    ],
    "adds in the order of their totals": [op(Add(1, 3), 0, 9), op(Add(2, 2), 1, 8), op(Read(b"3"), 10, 11)],
    "an unknown add between two": [op(Add(1, 1), 0, 1), op(Add(5), 2), op(Add(1, 7), 3, 4)],
    "a swap that was waiting for an unknown put": [
        op(CompareAndSet(b"a", b"b"), 0, 9),
        op(Put(b"a"), 1),
        op(Read(b"b"), 10, 11),
    ],
    "ends and begins at one moment overlap": [op(Put(b"a"), 0, 1), op(Read(None), 1, 2)],
}

BAD = {
    "from nowhere": [op(Read(b"x"), 0, 1)],
    "stale": [op(Put(b"a"), 0, 1), op(Put(b"b"), 2, 3), op(Read(b"a"), 4, 5)],
    "lost": [op(Put(b"a"), 0, 1), op(Read(None), 2, 3)],
    "back": [op(Put(b"a"), 0, 9), op(Read(b"a"), 1, 2), op(Read(None), 3, 4)],
    "from the future": [op(Read(b"a"), 0, 1), op(Put(b"a"), 2, 3)],
    "an unknown write comes and goes": [op(Put(b"a"), 0), op(Read(b"a"), 1, 2), op(Read(None), 3, 4)],
    "an unknown write done twice": [
        op(Put(b"a"), 0),
        op(Read(b"a"), 1, 2),
        op(Put(b"b"), 3, 4),
        op(Read(b"a"), 5, 6),
    ],
    "two swaps from one value": [
        op(Put(b"a"), 0, 1),
        op(CompareAndSet(b"a", b"b"), 2, 5),
        op(CompareAndSet(b"a", b"c"), 3, 6),
    ],
    "a lost update": [op(Add(1, 1), 0, 1), op(Add(1, 1), 2, 3)],
    "an add done twice": [op(Add(1, 1), 0, 1), op(Read(b"2"), 2, 3)],
    "an unknown add done twice": [op(Add(1), 0), op(Read(b"2"), 2, 3)],
    "two reads disagree about the order of two writes": [
        op(Put(b"a"), 0, 9),
        op(Put(b"b"), 0, 9),
        op(Read(b"a"), 1, 2),
        op(Read(b"b"), 3, 4),
        op(Read(b"a"), 5, 6),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_is_accepted(name: str) -> None:
    assert list(flaws(GOOD[name])) == []


@pytest.mark.parametrize("name", BAD)
def test_bad_history_is_told(name: str) -> None:
    (sentence,) = flaws(BAD[name])
    assert sentence.startswith("b'k': nothing explains ")


def test_each_key_is_judged_by_itself() -> None:
    good, bad = GOOD["one after the other"], BAD["stale"]
    history = [*good, *(Operation(b"other", one.action, one.began_s, one.ended_s) for one in bad)]
    assert [sentence.split(":")[0] for sentence in flaws(history)] == ["b'other'"]


def test_the_culprit_is_the_first_operation_that_nothing_explains() -> None:
    history = [*BAD["stale"], op(Put(b"c"), 6, 7), op(Read(b"a"), 8, 9)]
    assert culprit_in(history) == history[2]


def test_what_cannot_be_told_is_no_success() -> None:
    history = [op(Add(2**i), 0) for i in range(20)] + [op(Read(b"1048574"), 1, 2)]
    with pytest.raises(TooManyConfigurationsError):
        culprit_in(history, configurations_max=1000)
    (sentence,) = flaws(history, configurations_max=1000)
    assert "too many ways" in sentence


def test_many_unknown_operations_that_do_the_same_cost_little() -> None:
    history = [op(Add(1), i) for i in range(40)] + [op(Read(b"30"), 100, 101), op(Read(b"41"), 102, 103)]
    assert culprit_in(history, configurations_max=1000) == history[-1]


def test_many_unknown_writes_of_different_values_cost_little() -> None:
    history = [op(Put(b"%d" % i), i) for i in range(40)]
    history += [op(Read(b"%d" % i), 100 + i, 100.5 + i) for i in range(40)]
    assert culprit_in(history, configurations_max=5000) is None


def test_the_checker_agrees_with_trying_every_order() -> None:
    rng = random.Random(1)
    verdicts = [0, 0]
    for _ in range(20_000):
        history = random_history(rng)
        is_explained = culprit_in(history) is None
        assert is_explained == is_explained_by_some_order(history), history
        verdicts[is_explained] += 1
    assert min(verdicts) > 3000, f"too few good or too few bad histories: {verdicts}"


def random_history(rng: random.Random) -> list[Operation]:
    """Return a history of a real register with some answers, and some times, made up."""
    is_of_numbers = rng.random() < 0.4
    values = (b"1", b"2", b"3", None) if is_of_numbers else (b"a", b"b", b"c", None)
    state: bytes | None = None
    history = []
    for at in range(rng.randint(2, 6)):
        action: Action
        kind = rng.choice(("read", "read", "put", "swap", "add" if is_of_numbers else "put"))
        if kind == "read":
            action = Read(state if rng.random() < 0.9 else rng.choice(values))
        elif kind == "put":
            action = Put(rng.choice(values))
            state = action.value
        elif kind == "swap":
            action = CompareAndSet(state if rng.random() < 0.9 else rng.choice(values), rng.choice(values))
            state = action.value
        else:
            amount = rng.randint(1, 2)
            total = (number_in(state) or 0) + amount + (rng.random() < 0.1)
            state = b"%d" % total
            action = Add(amount, total if rng.random() < 0.8 else None)
        begin, end = at - rng.choice((0, 0, 1, 2)) * rng.random(), at + rng.choice((0.1, 1, 2)) * rng.random()
        history.append(op(action, begin, inf if rng.random() < 0.15 else end))
    rng.shuffle(history)
    return history


def is_explained_by_some_order(history: Sequence[Operation]) -> bool:
    """Try every order, and every choice of the unknown operations that happened."""
    everyone = frozenset(range(len(history)))

    @cache
    def go(left: frozenset[int], state: bytes | None) -> bool:
        if all(history[i].ended_s == inf for i in left):
            return True
        before_s = min(history[i].ended_s for i in left)
        return any(
            go(left - {i}, after)
            for i in left
            if history[i].began_s <= before_s
            for after in outcomes(state, history[i])
        )

    return go(everyone, None)


def outcomes(state: bytes | None, operation: Operation) -> list[bytes | None]:
    is_known = operation.ended_s < inf
    match operation.action:
        case Read(value):
            return [state] if state == value or not is_known else []
        case Put(value):
            return [value]
        case CompareAndSet(expected, value):
            return [value] if state == expected else []
        case Add(amount, total):
            number = number_in(state)
            fits = number is not None and (total is None or number + amount == total)
            return [b"%d" % (number + amount)] if fits and number is not None else []
