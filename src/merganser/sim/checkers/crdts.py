"""Values that merge themselves hold what was added, each addition once, and not what a removal took that had seen it.

Of each addition (an update of a counter, an element of a set) a read tells whether it is there. That may be certain::

    there    it was acknowledged before the read began, and no removal can have seen it
    gone     it was refused, began after the read had ended, or was acknowledged before a removal began to look, which
             was acknowledged before the read began
    else     it may be there or not: a set may show it, a counter counts it once or not at all

A removal has seen what was acknowledged before it began to look, and cannot have seen what began after it had looked.
All at QUORUM, so that reads meet writes, and one another.

Source: Shapiro 2011; the promise is that of `core.crdt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.sim.history import CrdtRead, CrdtWrite, History

HITS = "hits"
SUMS_MAX = 50_000
"""Of what may be counted or not; more are only checked against the least and the greatest."""


def values_that_do_not_add_up(history: History) -> Iterator[str]:
    """Yield a sentence for each read that breaks a promise above."""
    for key in sorted({read.key for read in history.crdt_reads}):
        writes = [write for write in history.crdt_writes if write.key == key and not write.is_certainly_unwritten]
        for read in history.crdt_reads:
            if read.key == key:
                yield from _wrong_count(read, writes)
                yield from _wrong_elements(read, writes)


def _wrong_count(read: CrdtRead, writes: Sequence[CrdtWrite]) -> Iterator[str]:
    there, maybe = _sorted(read, writes, HITS)
    counted = sum(write.amount for write in there)
    open_amounts = [write.amount for write in maybe]
    low = counted + sum(amount for amount in open_amounts if amount < 0)
    high = counted + sum(amount for amount in open_amounts if amount > 0)
    sums = {counted}
    for amount in open_amounts:
        if len(sums) > SUMS_MAX:
            break
        sums |= {one + amount for one in sums}
    is_right = read.hits in sums if len(sums) <= SUMS_MAX else low <= read.hits <= high
    if not is_right:
        yield (
            f"counted wrong: {_told(read)} {read.hits}, where {len(there)} updates that are known make {counted}, and "
            f"{len(maybe)} that are not make it {low} to {high}"
        )


def _wrong_elements(read: CrdtRead, writes: Sequence[CrdtWrite]) -> Iterator[str]:
    for place in sorted({write.place for write in writes} - {HITS, ""}):
        there, maybe = _sorted(read, writes, place)
        if there and place not in read.elements:
            yield f"lost: {_told(read)} no {place}, which client {there[0].client} has added and nobody removed"
        if place in read.elements and not there and not maybe:
            yield f"not removed: {_told(read)} {place}, though all that had added it was removed"
    for place in sorted(read.elements - {write.place for write in writes}):
        yield f"from nowhere: {_told(read)} {place}, which nobody has added"


def _sorted(read: CrdtRead, writes: Sequence[CrdtWrite], place: str) -> tuple[list[CrdtWrite], list[CrdtWrite]]:
    """Return the additions at a place that are there for certain, and those that may be."""
    removals = [one for one in writes if not one.amount and one.place in (place, "") and one.began_s < read.ended_s]
    there: list[CrdtWrite] = []
    maybe: list[CrdtWrite] = []
    for write in writes:
        if write.place != place or not write.amount or write.began_s > read.ended_s:
            continue
        acked_s = _NEVER if write.acked_s is None else write.acked_s
        if any(_or_never(one) < read.began_s and acked_s < one.saw_from_s for one in removals):
            continue
        is_safe = not any(write.began_s <= one.saw_until_s for one in removals)
        (there if acked_s < read.began_s and is_safe else maybe).append(write)
    return there, maybe


_NEVER = float("inf")


def _or_never(write: CrdtWrite) -> float:
    return _NEVER if write.acked_s is None else write.acked_s


def _told(read: CrdtRead) -> str:
    return f"a read of {read.key!r} from {read.began_s:.4f} to {read.ended_s:.4f} s returned"
