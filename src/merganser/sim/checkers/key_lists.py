"""A list of keys tells each once, in the order of the ring, all that were there all along, and none that never was.

- *Missed*: a key is told if a put of it was acknowledged, or read, before the list began, and nobody has deleted any.
- *Of nothing*: no key is told that nobody has put.
- *Gone*: no key is told of which a read that ended before the list began has found nothing, unless somebody may have
  put it since.

All at QUORUM, so that pages meet puts and reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.sim.history import History, KeyList, ValuePut, ValuesRead


def keys_that_are_told_wrong(history: History) -> Iterator[str]:
    """Yield a sentence for each list that breaks a promise above."""
    puts: dict[bytes, list[ValuePut]] = {}
    for put in history.value_puts:
        if not put.is_certainly_unwritten:
            puts.setdefault(put.key, []).append(put)
    reads: dict[bytes, list[ValuesRead]] = {}
    for read in history.value_reads:
        reads.setdefault(read.key, []).append(read)
    for one in history.key_lists:
        if list(one.keys) != sorted(set(one.keys)):
            yield f"out of order: {_told(one)} told {len(one.keys)} keys, some twice or not in order"
        for key in sorted({*puts, *one.keys}):
            yield from _flaws(one, key, puts.get(key, ()), reads.get(key, ()))


def _flaws(one: KeyList, key: bytes, puts: Sequence[ValuePut], reads: Sequence[ValuesRead]) -> Iterator[str]:
    begun = [put for put in puts if put.began_s <= one.ended_s]
    values = [put for put in begun if not put.is_delete]
    if key not in one.keys:
        was_put = any(put.acked_s is not None and put.acked_s < one.began_s for put in values)
        was_read = any(read.values and read.ended_s < one.began_s for read in reads)
        if (was_put or was_read) and len(values) == len(begun):
            yield f"missed: {_told(one)} did not tell {key!r}, which was put and never deleted"
    elif not values:
        yield f"of nothing: {_told(one)} told {key!r}, which nobody had put"
    else:
        last_s = max((_ended_s(put) for put in values), default=0.0)
        if any(not read.values and last_s < read.began_s and read.ended_s < one.began_s for read in reads):
            yield f"gone: {_told(one)} told {key!r}, of which there was nothing any more"


def _ended_s(put: ValuePut) -> float:
    """Return from when on a put has come to be if it ever does."""
    return _NEVER if put.acked_s is None else put.acked_s


_NEVER = float("inf")


def _told(one: KeyList) -> str:
    return f"a list of keys from {one.began_s:.4f} to {one.ended_s:.4f} s"
