"""The register checker: what it must tell, what it must not, and that it means what it says."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.timestamp import BEGINNING
from merganser.sim.checkers.registers import Get, Outcome, Put, broken_registers, violations
from merganser.sim.history import History, Read, Write

ACKNOWLEDGED, REFUSED, UNKNOWN = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN


def put(value: str, began_s: float, ended_s: float, outcome: Outcome = ACKNOWLEDGED) -> Put:
    return Put("k", value, began_s, ended_s, outcome)


def get(value: str | None, began_s: float, ended_s: float) -> Get:
    return Get("k", value, began_s, ended_s)


GOOD = {
    "one after the other": ([put("a", 0, 1), put("b", 2, 3)], [get("a", 1.2, 1.4), get("b", 4, 5)]),
    "nothing before the first write": ([put("a", 2, 3)], [get(None, 0, 1)]),
    "a write in flight is seen or not": ([put("a", 0, 1), put("b", 2, 9)], [get("b", 3, 4), get("b", 5, 6)]),
    "writes that overlap end in any order": ([put("a", 0, 5), put("b", 1, 3)], [get("a", 6, 7)]),
    "an unknown write appears late": (
        [put("a", 0, 1, UNKNOWN), put("b", 2, 3)],
        [get("b", 4, 5), get("a", 6, 7)],
    ),
    "an unknown write never appears": ([put("a", 0, 1, UNKNOWN)], [get(None, 2, 3)]),
    "a read that overlaps the write sees what was before": ([put("a", 0, 1), put("b", 2, 6)], [get("a", 3, 4)]),
    "an outranked write is sent again while it lasts": (
        [put("a", 0, 9), put("b", 1, 2)],
        [get("a", 0.5, 0.8), get("b", 3, 4), get("a", 5, 6)],
    ),
    "reads that overlap disagree": ([put("a", 0, 1), put("b", 2, 9)], [get("b", 3, 6), get("a", 4, 5)]),
}

BAD = {
    "from nowhere": ([put("a", 0, 1)], [get("x", 2, 3)]),
    "from nowhere, the future": ([put("a", 5, 6)], [get("a", 2, 3)]),
    "refused, yet written": ([put("a", 0, 1, REFUSED)], [get("a", 2, 3)]),
    "stale, 'b'": ([put("a", 0, 1), put("b", 2, 3)], [get("a", 4, 5)]),
    "stale, 'a'": ([put("a", 0, 1)], [get(None, 2, 3)]),
    "back, 'b' of unknown outcome": ([put("a", 0, 1), put("b", 2, 3, UNKNOWN)], [get("b", 4, 5), get("a", 6, 7)]),
    "back, 'b' in flight": ([put("a", 0, 1), put("b", 2, 9)], [get("b", 3, 4), get("a", 5, 6)]),
    "back, 'a' before it was acknowledged": ([put("a", 0, 9)], [get("a", 1, 2), get(None, 3, 4)]),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_is_accepted(name: str) -> None:
    assert violations(*GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_bad_history_is_told(name: str) -> None:
    (told,) = violations(*BAD[name])
    words = name.partition("'")
    assert told.startswith(words[0].split(",")[0])
    assert f"'{words[2][:1]}' " in told or not words[1]


def test_going_back_is_no_flaw_where_reads_are_not_repaired_before_they_answer() -> None:
    for name, (puts, gets) in BAD.items():
        assert bool(violations(puts, gets, are_reads_repaired_first=False)) == (not name.startswith("back"))


def test_keys_have_nothing_to_do_with_each_other() -> None:
    other = Put("other", "b", 2, 3, ACKNOWLEDGED)
    assert violations([put("a", 0, 1), other], [get("a", 4, 5)]) == []
    assert violations([put("a", 0, 1), other], [get("b", 4, 5)]) != []


@given(st.integers(0, 2**32))
def test_what_a_register_of_quorums_can_answer_is_accepted(seed: int) -> None:
    """Three replicas, writes and reads as the paper has them, every message at a random time."""
    puts, gets = Replicas(random.Random(seed)).run()
    assert violations(puts, gets) == []


@given(st.integers(0, 2**32))
def test_verdict_is_that_of_the_definition_read_out_loud(seed: int) -> None:
    rng = random.Random(seed)
    puts, gets = random_history(rng)
    assert bool(violations(puts, gets)) == any(is_flawed(one, puts, gets) for one in gets)


def random_history(rng: random.Random) -> tuple[list[Put], list[Get]]:
    def span() -> tuple[float, float]:
        began = rng.randrange(12)
        return began, began + rng.randrange(1, 6) + 0.5

    values = "abcd"[: rng.randint(1, 4)]
    puts = [put(value, *span(), rng.choice([ACKNOWLEDGED, ACKNOWLEDGED, UNKNOWN])) for value in values]
    return puts, [get(rng.choice([None, *values]), *span()) for _ in range(rng.randint(1, 4))]


def is_flawed(one: Get, puts: list[Put], gets: list[Get]) -> bool:
    """The docstring of the checker, quadratic and without cunning."""
    ack = {p.value: p.ended_s if p.outcome is ACKNOWLEDGED else inf for p in puts}
    if one.value is not None and not any(p.value == one.value and p.began_s <= one.ended_s for p in puts):
        return True
    mine = -inf if one.value is None else ack[one.value]
    return any(p.began_s > mine and ack[p.value] < one.began_s for p in puts) or any(
        g.value not in (None, one.value) and g.began_s > mine and g.ended_s < one.began_s for g in gets
    )


class Replicas:
    """N = 3, W = R = 2, last write wins by clocks that differ; one action at a time, drawn at random.

    A write is sent to all; acks tell what outranks it, and then it goes out again. A read asks two, brings the
    newer row to both, and answers.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._rows: list[tuple[int, str | None]] = [(0, None)] * 3
        self._now = 0.0
        self._puts: list[Put] = []
        self._gets: list[Get] = []
        self._used = 0

    def run(self) -> tuple[list[Put], list[Get]]:
        waiting = [self._write(value) for value in "abcde"] + [self._read() for _ in range(6)]
        running: list[Iterator[None]] = []
        while waiting or running:
            self._now += 1.0
            if waiting and (not running or self._rng.random() < 0.3):
                running.append(waiting.pop(self._rng.randrange(len(waiting))))
            one = self._rng.choice(running)
            if next(one, "over") == "over":
                running.remove(one)
        return self._puts, self._gets

    def _write(self, value: str) -> Iterator[None]:
        began_s = self._now
        skew = self._rng.randint(-8, 8) * 10
        is_lost = self._rng.random() < 0.2
        stamp = 0
        while True:
            self._used += 1
            stamp = max(stamp + 1, int(self._now) * 10 + skew) * 100 + self._used  # unique, later than what outranks it
            outranked = 0
            for number, replica in enumerate(self._rng.sample(range(3), 3)):
                if number == 2 or (is_lost and number == 1):
                    break
                yield
                outranked = max(outranked, self._rows[replica][0] // 100 if self._rows[replica][0] > stamp else 0)
                self._rows[replica] = max(self._rows[replica], (stamp, value), key=lambda row: row[0])
            if is_lost or not outranked:
                break
            stamp = outranked
        outcome = UNKNOWN if is_lost else ACKNOWLEDGED
        self._puts.append(put(value, began_s, self._now, outcome))

    def _read(self) -> Iterator[None]:
        began_s = self._now
        asked = self._rng.sample(range(3), 2)
        rows = []
        for replica in asked:
            yield
            rows.append(self._rows[replica])
        newest = max(rows, key=lambda row: row[0])
        for replica in asked:
            yield
            self._rows[replica] = max(self._rows[replica], newest, key=lambda row: row[0])
        self._gets.append(get(newest[1], began_s, self._now))


def test_replicas_that_do_not_repair_before_they_answer_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Replicas) -> Iterator[None]:
        began_s = self._now
        rows = []
        for replica in self._rng.sample(range(3), 2):
            yield
            rows.append(self._rows[replica])
        self._gets.append(get(max(rows, key=lambda row: row[0])[1], began_s, self._now))

    monkeypatch.setattr(Replicas, "_read", read)
    told = [sentence for seed in range(1000) for sentence in violations(*Replicas(random.Random(seed)).run())]
    assert told
    assert all(sentence.startswith("back") for sentence in told)


def simulated(*writes: Write, reads: Iterable[Read]) -> list[str]:
    history = History()
    history.writes += writes
    history.reads += reads
    return list(broken_registers(history))


def write_of(value: bytes | None, acked_s: float | None, **other: Any) -> Write:
    return Write(b"k", value, 0.0, acked_s, **other)


def read_of(value: bytes | None, *, replicas: int = 2) -> Read:
    return Read(b"k", value, BEGINNING, 5.0, 6.0, replicas=replicas)


def test_a_simulated_run_is_judged_in_the_same_way() -> None:
    acked = write_of(b"one", 1.0)
    assert simulated(acked, reads=[read_of(b"one")]) == []
    assert "stale" in simulated(acked, reads=[read_of(None)])[0]
    assert "from nowhere" in simulated(acked, reads=[read_of(b"other")])[0]
    refused = write_of(b"two", None, is_certainly_unwritten=True)
    assert "refused" in simulated(acked, refused, reads=[read_of(b"two")])[0]


def test_requests_below_quorum_and_deleted_keys_promise_nothing_here() -> None:
    assert simulated(write_of(b"one", 1.0), reads=[read_of(None, replicas=1)]) == []
    assert simulated(write_of(b"one", 1.0, replicas=1), reads=[read_of(None)]) == []
    assert simulated(write_of(b"one", 1.0), write_of(None, 2.0), reads=[read_of(b"one")]) == []
