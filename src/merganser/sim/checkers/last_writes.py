"""Values of which the last write wins: a read returns one, and nothing that was certainly there comes after it.

A put *comes after* another for certain if that was acknowledged before it began, or if its context had seen it. A read
meets each put that was acknowledged, or read, before it began. So

- *one*: it returns one value at most;
- *origin*: that somebody put, and that was not refused;
- *stale*: none that a put which it meets comes after;
- *gone*: nothing only if somebody may have deleted what it meets.

Puts that do not come after one another are ordered by clocks, so either may win. All at QUORUM.

Source: DeCandia 2007 §4.4 (time-stamp based reconciliation); the order is that of `core.last_writes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History, ValuePut, ValuesRead


def last_writes_that_lost(history: History) -> Iterator[str]:
    """Yield a sentence for each read that breaks a promise above."""
    if not history.last_write_wins:
        return
    for key in sorted({read.key for read in history.value_reads}):
        puts = {put.value: put for put in history.value_puts if put.key == key}
        reads = [read for read in history.value_reads if read.key == key]
        first_read: dict[bytes, float] = {}
        for read in reads:
            for value in read.values:
                first_read[value] = min(read.ended_s, first_read.get(value, _NEVER))
        for read in reads:
            met = [
                put
                for put in puts.values()
                if min(_NEVER if put.acked_s is None else put.acked_s, first_read.get(put.value, _NEVER)) < read.began_s
            ]
            yield from _flaws(read, puts, met)


def _flaws(read: ValuesRead, puts: dict[bytes, ValuePut], met: list[ValuePut]) -> Iterator[str]:
    if len(read.values) > 1:
        yield f"two at once: {_told(read)}"
    for value in sorted(read.values):
        found = puts.get(value)
        if found is None or found.is_delete or found.is_certainly_unwritten or found.began_s > read.ended_s:
            yield f"from nowhere: {_told(read)}, and {value!r} was not put"
            continue
        later = [put for put in met if comes_after(put, found)]
        if later:
            yield f"stale: {_told(read)}, though {later[0].value!r} of client {later[0].client} came after it"
    if not read.values:
        for put in met:
            if not put.is_delete and not _may_be_deleted(put, puts, read):
                yield f"gone: {_told(read)}, and nobody can have deleted {put.value!r} of client {put.client}"


def comes_after(put: ValuePut, other: ValuePut) -> bool:
    """Tell whether ``put`` is certainly later than ``other``."""
    return other.value in put.seen or (other.acked_s is not None and other.acked_s < put.began_s)


def _may_be_deleted(put: ValuePut, puts: dict[bytes, ValuePut], read: ValuesRead) -> bool:
    return any(
        one.is_delete and not one.is_certainly_unwritten and one.began_s < read.ended_s and not comes_after(put, one)
        for one in puts.values()
    )


_NEVER = float("inf")


def _told(read: ValuesRead) -> str:
    when = f"from {read.began_s:.4f} to {read.ended_s:.4f} s"
    return f"a read of {read.key!r} {when} returned {sorted(read.values)}"
