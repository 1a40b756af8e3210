"""The serializability checker: each anomaly by its name, and agreement with trying every order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from math import inf

import pytest

from merganser.sim.checkers.serializable import Appended, Ending, Listed, Transaction, anomalies

ABORTED, UNKNOWN = Ending.ABORTED, Ending.UNKNOWN


def actions(words: str) -> tuple[Listed | Appended, ...]:
    """Return what ``words`` say: ``x+1`` appends 1 to x, ``x=12`` has read 1 and 2."""
    return tuple(
        Appended(word[:1].encode(), word[2:].encode())
        if word[1] == "+"
        else Listed(word[:1].encode(), tuple(element.encode() for element in word[2:]))
        for word in words.split()
    )


def tx(words: str, began_s: float = 0, ended_s: float = 9, ending: Ending = Ending.COMMITTED) -> Transaction:
    return Transaction(actions(words), began_s, ended_s if ending is not UNKNOWN else inf, ending)


GOOD = {
    "one after the other": [tx("x+1", 0, 1), tx("x=1 x+2", 2, 3), tx("x=12", 4, 5)],
    "overlapping, in another order than they began": [tx("x+1", 0, 9), tx("x+2", 1, 8), tx("x=21", 10, 11)],
    "an aborted one leaves nothing": [tx("x+1", 0, 1, ABORTED), tx("x=", 2, 3)],
    "an unknown one is seen": [tx("x+1 y+2", 0, 1, UNKNOWN), tx("x=1 y=2", 2, 3)],
    "an unknown one is not seen": [tx("x+1 y+2", 0, 1, UNKNOWN), tx("x= y=", 2, 3)],
    "an unknown one is seen late": [tx("x+1", 0, 1, UNKNOWN), tx("x=", 2, 3), tx("x=1", 4, 5)],
    "it sees its own appends": [tx("x+1 x=1 x+2 x=12")],
    "a snapshot before two appends": [tx("x= y=", 0, 9), tx("x+1 y+2", 1, 2), tx("x=1 y=2", 3, 4)],
    "appends nobody has seen": [tx("x+1"), tx("x+2"), tx("x=")],
    "two appends to one key by one": [tx("x+1 x+2", 0, 1), tx("x=12", 2, 3)],
}

BAD = {
    "G0": [tx("x+1 y+2"), tx("x+3 y+4"), tx("x=13"), tx("y=42")],
    "G1a, aborted read": [tx("x+1", ending=ABORTED), tx("x=1")],
    "G1b, intermediate read": [tx("x+1 x+2"), tx("x=1")],
    "G1c": [tx("x+1 y=2"), tx("y+2 x=1")],
    "G-single": [tx("x= x+1"), tx("x= x+2"), tx("x=12")],
    "G-single ": [tx("x+1 y+2"), tx("x=1 y=")],
    "G2": [tx("x= y+1"), tx("y= x+2"), tx("x=2 y=1")],
    "G-single against real time": [tx("x+1", 0, 1), tx("x=", 2, 3)],
    "G-single against real time ": [tx("x+1", 0, 1), tx("x=1", 2, 3), tx("x=", 4, 5)],
    "G-single against real time  ": [tx("x+1", 0, 1, UNKNOWN), tx("x=1", 2, 3), tx("x=", 4, 5)],
    "G0 against real time": [tx("x+1", 0, 1), tx("x+2", 2, 3), tx("x=21", 4, 5)],
    "G2 ": [tx("x+1"), tx("y+2"), tx("x=1 y="), tx("x= y=2")],
    "G2 against real time": [tx("z+1", 0, 1), tx("y=", 2, 3), tx("y+1 z=", 0, 9)],
    "from the future": [tx("x=1", 0, 1), tx("x+1", 2, 3)],
    "fork": [tx("x+1"), tx("x+2"), tx("x=1"), tx("x=2")],
    "duplicate": [tx("x+1"), tx("x=11")],
    "from nowhere": [tx("x=1")],
    "[append 1 to b'x', read": [tx("x+1 x=")],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_is_accepted(name: str) -> None:
    assert list(anomalies(GOOD[name])) == []


@pytest.mark.parametrize("name", BAD)
def test_anomaly_is_told_by_its_name(name: str) -> None:
    told = list(anomalies(BAD[name]))
    expected = name.strip()
    assert any(sentence.startswith(expected if expected.startswith("[") else f"{expected}: ") for sentence in told), (
        told
    )


def test_a_lost_append_is_told_as_soon_as_anyone_reads_after_it() -> None:
    told = list(anomalies([tx("x+1 y+2", 0, 1), tx("y=2", 2, 3), tx("x=", 4, 5)]))
    assert len(told) == 1
    assert told[0].startswith("G-single against real time: ")


def test_a_cycle_is_told_from_end_to_end() -> None:
    (told,) = anomalies([tx("x+1 y=2"), tx("y+2 x=1")])
    assert told == (
        "G1c: [append 1 to b'x', read b'y'=(2); 0.0000 to 9.0000 s] -wr-> "
        "[append 2 to b'y', read b'x'=(1); 0.0000 to 9.0000 s] -wr-> the first"
    ) or told.startswith("G1c: [append 2 to b'y'")


def test_the_checker_agrees_with_trying_every_order() -> None:
    rng = random.Random(1)
    verdicts = [0, 0]
    for _ in range(20_000):
        history = random_history(rng)
        told = list(anomalies(history))
        assert (not told) == is_explained_by_some_order(history), (history, told)
        verdicts[not told] += 1
    assert min(verdicts) > 2000, f"too few good or too few bad histories: {verdicts}"


def random_history(rng: random.Random) -> list[Transaction]:
    """Return real transactions with some flaws: reads of the past, lost appends, failures that were none."""
    now: dict[bytes, tuple[bytes, ...]] = {b"x": (), b"y": ()}
    pasts = [dict(now)]
    history = []
    elements = 0
    for at in range(rng.randint(2, 6)):
        view = dict(now if rng.random() < 0.85 else rng.choice(pasts))
        done: list[Listed | Appended] = []
        fate = rng.random()
        for _ in range(rng.randint(1, 3)):
            key = rng.choice((b"x", b"y"))
            if rng.random() < 0.5:
                done.append(Listed(key, view[key]))
            else:
                elements += 1
                element = b"%d" % elements
                done.append(Appended(key, element))
                view[key] = (*view[key], element)
                if fate > 0.1 and rng.random() < 0.97:
                    now[key] = (*now[key], element)
        pasts.append(dict(now))
        began_s = at - rng.choice((0, 0, 1, 2)) * rng.random()
        ended_s = at + rng.choice((0.1, 1, 2)) * rng.random()
        if fate < 0.12:
            history.append(Transaction(tuple(done), began_s, ended_s, ABORTED))
        elif rng.random() < 0.15:
            history.append(Transaction(tuple(done), began_s, inf, UNKNOWN))
        else:
            history.append(Transaction(tuple(done), began_s, ended_s))
    rng.shuffle(history)
    return history


State = tuple[tuple[bytes, ...], tuple[bytes, ...]]


def is_explained_by_some_order(history: Sequence[Transaction]) -> bool:
    """Try every order, and every choice of the unknown transactions that happened."""
    may_happen = frozenset(i for i, one in enumerate(history) if one.ending is not ABORTED)

    @cache
    def go(left: frozenset[int], state: State) -> bool:
        if all(history[i].ending is UNKNOWN for i in left):
            return True
        before_s = min(history[i].ended_s for i in left)
        return any(
            after is not None and go(left - {i}, after)
            for i in left
            if history[i].began_s <= before_s
            for after in (run(history[i], state),)
        )

    def run(transaction: Transaction, state: State) -> State | None:
        values = dict(zip((b"x", b"y"), state, strict=True))
        for action in transaction.actions:
            if isinstance(action, Appended):
                values[action.key] = (*values[action.key], action.element)
            elif values[action.key] != action.elements:
                return None
        return values[b"x"], values[b"y"]

    return go(may_happen, ((), ()))
