"""No acknowledged write is lost: a read is at least as new as every write it must have met.

A read with R replicas that began after a write was acknowledged by W returns that write or a newer one
if R + W > N; with fewer replicas nothing is promised. A delete, or an expired value, reads as nothing;
once it is purged nothing is left to carry its timestamp, so nothing is as new as it.

A write must in its turn outrank those acknowledged before it began if their replicas overlap: else
it was acknowledged and never visible.

Source: DeCandia 2007 §4.5; Lamport 1986, "On Interprocess Communication" (regular register).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merganser.model.timestamp import BEGINNING
from merganser.sim.history import History, Read, Write, may_be_purged, told


def lost_writes(history: History) -> Iterator[str]:
    """Yield a sentence for each read that is older than a write it must have met."""
    writes = history.writes_by_key()
    for read in history.reads:
        floor = _newest(w for w in writes.get(read.key, ()) if _precedes(w, read.began_s) and history.meet(w, read))
        if floor is not None and is_behind(read, floor, writes[read.key]):
            yield f"lost: {told(read)}, after {floor.timestamp} was acknowledged"


def invisible_writes(history: History) -> Iterator[str]:
    """Yield a sentence for each acknowledged write that an older one already outranked."""
    for writes in history.writes_by_key().values():
        for write in writes:
            floor = _newest(w for w in writes if _precedes(w, write.began_s) and history.meet(w, write))
            if floor is not None and is_outranked(write, floor):
                yield (
                    f"invisible: a write of {write.key!r} acknowledged with {write.timestamp}, "
                    f"begun after {floor.timestamp} was"
                )


def is_behind(read: Read, floor: Write, writes: Iterable[Write]) -> bool:
    """Tell whether ``read`` shows less than ``floor``, one of the key's ``writes``, which it must have met."""
    if floor.timestamp is None or read.timestamp >= floor.timestamp:
        return False
    return not may_be_purged(read, floor.timestamp, writes)


def is_outranked(write: Write, floor: Write) -> bool:
    """Tell whether ``write`` was acknowledged with a timestamp that ``floor`` hides."""
    if write.timestamp is None or floor.timestamp is None or write.timestamp > floor.timestamp:
        return False
    return write.value is not None or write.timestamp < floor.timestamp  # a tombstone buries what is exactly as old


def _precedes(write: Write, moment_s: float) -> bool:
    return write.acked_s is not None and write.acked_s < moment_s and write.timestamp is not None


def _newest(writes: Iterator[Write]) -> Write | None:
    return max(writes, key=lambda write: write.timestamp or BEGINNING, default=None)
