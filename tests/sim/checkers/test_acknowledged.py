"""Reads of acknowledged writes: known good histories, known bad ones, and a slower judge that agrees."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import event, given, settings
from hypothesis import strategies as st

from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.sim.checkers.acknowledged import invisible_writes, lost_writes
from merganser.sim.checkers.origin import values_from_nowhere
from merganser.sim.history import History, Read, Write

K = b"k"
W = TypeVar("W", Write, Read)


def violations(told: History) -> list[str]:
    return [*lost_writes(told), *invisible_writes(told), *values_from_nowhere(told)]


def at(micros: int) -> Timestamp:
    return Timestamp(micros, 1)


def history(*what: Write | Read) -> History:
    told = History()
    for one in what:
        if isinstance(one, Write):
            told.writes.append(one)
        else:
            told.reads.append(one)
    return told


def acked(value: bytes | None, micros: int, began_s: float, acked_s: float, key: bytes = K) -> Write:
    return Write(key, value, began_s, acked_s, at(micros))


def saw(value: bytes | None, micros: int, began_s: float, ended_s: float) -> Read:
    return Read(K, value, at(micros), began_s, ended_s)


def saw_nothing(began_s: float, ended_s: float) -> Read:
    return Read(K, None, BEGINNING, began_s, ended_s)


def test_good_histories_pass() -> None:
    for good in (
        history(),
        history(saw_nothing(5, 6)),
        history(acked(b"a", 1, 0, 1), saw(b"a", 1, 2, 3)),
        history(acked(b"a", 1, 0, 1), acked(None, 2, 2, 3), saw(None, 2, 4, 5)),
        history(acked(b"a", 1, 0, 4), saw_nothing(2, 3)),  # the write was still under way
        history(acked(b"a", 1, 0, 4), saw(b"a", 1, 2, 3)),
        history(Write(K, b"a", 0), saw_nothing(5, 6), saw(b"a", 7, 8, 9)),  # unknown outcome: seen late
        history(Write(K, b"a", 0), saw(b"a", 7, 1, 2), saw_nothing(5, 6)),  # or seen by one quorum and not by the next
        history(acked(b"a", 1, 0, 1), acked(b"b", 2, 2, 3, key=b"other"), saw(b"a", 1, 4, 5)),
        history(acked(b"a", 9, 0, 3), acked(b"b", 3, 2, 4), saw(b"a", 9, 5, 6)),  # at the same time: either may win
        history(acked(b"a", 3, 0, 1), acked(b"b", 9, 2, 5), saw(b"b", 4, 3, 4)),  # seen before it was sent again, later
    ):
        assert violations(good) == []


def test_a_write_acknowledged_under_an_older_one_is_told() -> None:
    (told,) = violations(history(acked(b"old", 9, 0, 1), acked(b"new", 3, 2, 3)))
    assert told.startswith("invisible: a write of b'k'")


def test_a_read_older_than_what_was_acknowledged_before_it_is_a_lost_write() -> None:
    for bad in (
        history(acked(b"a", 1, 0, 1), saw_nothing(2, 3)),
        history(acked(b"a", 1, 0, 1), acked(b"b", 2, 2, 3), saw(b"a", 1, 4, 5)),
        history(acked(b"a", 1, 0, 1), acked(None, 2, 2, 3), saw(b"a", 1, 4, 5)),
    ):
        (told,) = violations(bad)
        assert told.startswith("lost: a read of b'k'")


def test_a_value_that_nobody_wrote_is_told() -> None:
    for bad in (
        history(saw(b"a", 1, 0, 1)),
        history(saw(None, 1, 0, 1)),
        history(acked(b"a", 1, 0, 1), saw(b"a", 2, 2, 3)),  # with another timestamp
        history(acked(b"a", 1, 0, 1, key=b"other"), saw(b"a", 1, 2, 3)),
        history(acked(b"a", 1, 4, 5), saw(b"a", 1, 2, 3)),  # before it was written
    ):
        (told,) = violations(bad)
        assert told.startswith("from nowhere")


def test_a_write_that_was_refused_must_not_be_seen() -> None:
    refused = Write(K, b"a", 0, is_certainly_unwritten=True)
    (told,) = violations(history(refused, saw(b"a", 1, 2, 3)))
    assert told.startswith("refused, yet written")


# Against a judge that goes through every state the replicas can have been in.

times = st.integers(0, 6).map(float)


@st.composite
def writes(draw: st.DrawFn) -> list[Write]:
    made = []
    for number in range(draw(st.integers(0, 4))):
        began_s, takes_s = draw(times), draw(st.integers(0, 3))
        value = draw(st.sampled_from([b"v%d" % number, None]))
        outcome = draw(st.sampled_from(["acked", "acked", "unknown", "refused"]))
        write = Write(K, value, began_s, is_certainly_unwritten=outcome == "refused")
        if outcome == "acked":
            write.timestamp, write.acked_s = at(draw(st.integers(1, 3)) * 10 + number), began_s + takes_s
        made.append(write)
    return made


@st.composite
def reads(draw: st.DrawFn) -> Read:
    value = draw(st.sampled_from([b"v0", b"v1", b"v2", b"v3", None, None]))
    micros = draw(st.integers(1, 3)) * 10 + draw(st.integers(0, 3))
    timestamp = BEGINNING if value is None and draw(st.booleans()) else at(micros)
    began_s = draw(times)
    return Read(K, value, timestamp, began_s, began_s + draw(st.integers(0, 2)))


def is_explained(read: Read, made: list[Write]) -> bool:
    """Try every state the read can have met: the newest write in it is one that was begun and not refused.

    What was acknowledged before the read is in it for certain, unless a delete that is as new has been purged with it.
    A write of unknown outcome has any timestamp, an acknowledged one may have been sent with earlier ones first.
    """
    certain = [w for w in made if w.acked_s is not None and w.acked_s < read.began_s]
    possible = [w for w in made if w.began_s <= read.ended_s and not w.is_certainly_unwritten]
    moments = [at(micros) for micros in range(10, 40)]
    states = [(None, BEGINNING)] + [
        (write.value, moment) for write in possible for moment in moments if moment <= (write.timestamp or moment)
    ]
    floor = max((w.timestamp for w in certain if w.timestamp), default=BEGINNING)
    if (read.value, read.timestamp) == (None, BEGINNING) and any(
        value is None and since >= floor for value, since in states
    ):
        return True  # a tombstone that was purged
    return any(state == (read.value, read.timestamp) and state[1] >= floor for state in states)


@settings(max_examples=500)
@given(writes(), reads())
def test_the_checker_agrees_with_a_judge_that_tries_every_state(made: list[Write], read: Read) -> None:
    verdict = [told for told in violations(history(*made, read)) if not told.startswith("invisible")] == []
    event(f"good: {verdict}")
    assert verdict == is_explained(read, made)


# Levels: a read answers for the writes whose replicas it must have met, and for no others.


def test_a_read_that_need_not_have_met_a_write_may_miss_it() -> None:
    for w, r in (1, 1), (1, 2), (2, 1):
        assert violations(history(_at(w, acked(b"a", 1, 0, 1)), _at(r, saw_nothing(2, 3)))) == []


def test_a_read_that_must_have_met_a_write_may_not() -> None:
    for w, r in (1, 3), (2, 2), (3, 1):
        (told,) = violations(history(_at(w, acked(b"a", 1, 0, 1)), _at(r, saw_nothing(2, 3))))
        assert told.startswith("lost")


def test_of_a_delete_and_of_an_expired_value_nothing_may_be_left() -> None:
    assert violations(history(acked(None, 1, 0, 1), saw_nothing(2, 3))) == []
    mortal = acked(b"a", 1, 0, 1)
    mortal.expires_at_s = 10
    late, early = saw_nothing(2, 3), saw_nothing(2, 3)
    late.wall_s, early.wall_s = 10.0, 9.9
    assert violations(history(mortal, late)) == []
    assert len(violations(history(mortal, early))) == 1


def _at(replicas: int, record: W) -> W:
    record.replicas = replicas
    return record
