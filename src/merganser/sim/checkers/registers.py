"""Whether a table read and written at QUORUM may have answered so, judged by what its clients saw alone.

The one checker of simulated runs (`broken_registers`) and of real processes (`violations`; tests/namespaces).

Real clients see no timestamps, so each write carries a value that no other write carries, and time is that of
the machine all clients run on. A write *precedes* what began after it was acknowledged. A write whose outcome
is unknown precedes nothing: it may take effect at any time, or never. A read of value v, written by w,

- is *from nowhere* if nobody had begun to write v when the read ended;
- is of a *refused* write if the client was told that v was not written;
- is *stale* if w precedes a write that precedes the read;
- goes *back* if w precedes a read of another value that precedes this read.

A read of nothing counts as one of a write that precedes everything. The third holds because W + R > N, and
because a write outranks those acknowledged before it began; the fourth because a read answers only when as many
replicas hold what it returns (read repair before the answer). More does not hold: writes that overlap are
ordered by clocks, and one that was outranked is sent again with a later timestamp, so while it lasts its
value may give way and come again.

Source: Lamport 1986, "On Interprocess Communication" (regular register); Attiya, Bar-Noy, Dolev 1995 (write-back).
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf

import msgspec

from merganser.sim.history import History, Write


class Outcome(enum.Enum):
    """What a client was told of its write."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """Certainly not written."""
    UNKNOWN = "unknown"


class Put(msgspec.Struct, frozen=True):
    """A write of a value that no other write of any key carries; times in seconds of one clock."""

    key: str
    value: str
    began_s: float
    ended_s: float
    outcome: Outcome

    @property
    def precedes_from_s(self) -> float:
        """From when on others come after it."""
        return self.ended_s if self.outcome is Outcome.ACKNOWLEDGED else inf


class Get(msgspec.Struct, frozen=True):
    """A read at QUORUM that was answered."""

    key: str
    value: str | None
    """None: nothing was there."""
    began_s: float
    ended_s: float


def violations(puts: Iterable[Put], gets: Iterable[Get], *, are_reads_repaired_first: bool = True) -> list[str]:
    """Return a sentence for each read that could not have been.

    Args:
        puts: all writes of the run.
        gets: all reads that were answered.
        are_reads_repaired_first: look for reads that go back, too.
    """
    puts_of: dict[str, list[Put]] = {}
    for put in puts:
        puts_of.setdefault(put.key, []).append(put)
    gets_of: dict[str, list[Get]] = {}
    for get in gets:
        gets_of.setdefault(get.key, []).append(get)
    return [
        sentence
        for key, of_key in gets_of.items()
        for sentence in _Register(puts_of.get(key, ()), of_key, are_reads_repaired_first).violations()
    ]


def broken_registers(history: History) -> Iterator[str]:
    """Yield a sentence for each read at QUORUM that could not have been, of keys that were never deleted."""
    reads = history.reads_by_key()
    for key, writes in history.writes_by_key().items():
        if any(write.value is None or write.expires_at_s is not None for write in writes):
            continue  # that a value is gone is nobody's own, and who deleted it cannot be told
        puts = [Put(repr(key), repr(w.value), w.began_s, w.acked_s or inf, _outcome(w, history)) for w in writes]
        gets = [
            Get(repr(key), None if read.value is None else repr(read.value), read.began_s, read.ended_s)
            for read in reads.get(key, ())
            if 2 * read.replicas > history.n
        ]
        yield from violations(puts, gets)


def _outcome(write: Write, history: History) -> Outcome:
    """Return what is known of ``write`` to readers at QUORUM: of one with fewer replicas nothing."""
    if write.is_certainly_unwritten:
        return Outcome.REFUSED
    is_promised = write.acked_s is not None and 2 * write.replicas > history.n
    return Outcome.ACKNOWLEDGED if is_promised else Outcome.UNKNOWN


class _Register:
    """One key."""

    def __init__(self, puts: Sequence[Put], gets: Sequence[Get], are_reads_repaired_first: bool) -> None:
        self._put_of = {put.value: put for put in puts}
        assert len(self._put_of) == len(puts), "values are unique"
        self._gets = gets
        self._puts_by_end = _Newest((put.precedes_from_s, put.began_s, put.value) for put in puts)
        observed = ((get.ended_s, get.began_s, get.value) for get in gets if get.value is not None)
        self._gets_by_end = _Newest(observed if are_reads_repaired_first else ())

    def violations(self) -> Iterator[str]:
        for get in self._gets:
            told = self._flaw(get)
            if told is not None:
                yield f"{told}: a read of {get.key!r} from {get.began_s:.4f} to {get.ended_s:.4f} s gave {get.value!r}"

    def _flaw(self, get: Get) -> str | None:
        precedes_from_s = -inf
        if get.value is not None:
            put = self._put_of.get(get.value)
            if put is None or put.began_s > get.ended_s:
                return "from nowhere"
            if put.outcome is Outcome.REFUSED:
                return "refused, yet written"
            precedes_from_s = put.precedes_from_s
        newer = self._puts_by_end.before(get.began_s, other_than=get.value)
        if newer is not None and newer[0] > precedes_from_s:
            return f"stale, {newer[1]!r} was acknowledged before it began"
        newer = self._gets_by_end.before(get.began_s, other_than=get.value)
        if newer is not None and newer[0] > precedes_from_s:
            return f"back, {newer[1]!r} had been read before it began"
        return None


_Begun = tuple[float, str | None]


class _Newest:
    """Of the operations that ended before a moment, the one that began last, among those of another value.

    Kept are, for each end, the two newest of different values: the second answers for the value of the first.
    """

    def __init__(self, operations: Iterable[tuple[float, float, str | None]]) -> None:
        ordered = sorted(operations, key=lambda operation: operation[0])
        self._ends_s = [ended_s for ended_s, _, _ in ordered]
        nothing: tuple[_Begun, ...] = ()
        self._newest = list(accumulate(((began_s, value) for _, began_s, value in ordered), _two, initial=nothing))

    def before(self, moment_s: float, *, other_than: str | None) -> _Begun | None:
        for begun in self._newest[bisect_left(self._ends_s, moment_s)]:
            if begun[1] != other_than:
                return begun
        return None


def _two(newest: tuple[_Begun, ...], begun: _Begun) -> tuple[_Begun, ...]:
    """Return the two of different values that began last."""
    best: list[_Begun] = []
    for one in sorted((*newest, begun), key=lambda one: one[0], reverse=True):
        if all(one[1] != other[1] for other in best):
            best.append(one)
    return tuple(best[:2])
