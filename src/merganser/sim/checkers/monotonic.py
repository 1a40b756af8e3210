"""Nothing goes back behind what a read has returned, whoever returned it to whom.

Of two reads that met, the later one is at least as new; and a write that began after a read it met outranks
what that read returned. It holds for all clients together, because a read that met a newer row on some
replicas brings it to as many as it counts before it answers (blocking read repair), acknowledged or
not. So a table read and written at QUORUM is one atomic register per key.

Source: Attiya, Bar-Noy, Dolev 1995, "Sharing Memory Robustly in Message-Passing Systems" (write-back).
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.model.timestamp import BEGINNING
from merganser.sim.history import History, Read, Write, may_be_purged, told


def steps_back(history: History) -> Iterator[str]:
    """Yield a sentence for each read and each acknowledged write that an earlier read is newer than."""
    writes = history.writes_by_key()
    for key, reads in history.reads_by_key().items():
        for read in reads:
            floor = _newest([r for r in reads if r.ended_s < read.began_s and history.meet(r, read)])
            if floor is not None and _went_back(read, floor, writes.get(key, [])):
                yield f"went back: {told(read)}, after {told(floor)}"
        for write in writes.get(key, ()):
            floor = _newest([r for r in reads if r.ended_s < write.began_s and history.meet(r, write)])
            if floor is not None and _is_outranked(write, floor):
                yield f"invisible: a write of {key!r} acknowledged with {write.timestamp}, after {told(floor)}"


def _newest(reads: list[Read]) -> Read | None:
    return max(reads, key=lambda read: read.timestamp, default=None)


def _went_back(read: Read, floor: Read, writes: list[Write]) -> bool:
    """Tell whether ``read`` shows less than ``floor`` did; a row that is gone for good may be purged."""
    if read.timestamp >= floor.timestamp:
        return False
    is_gone = floor.value is None and read.timestamp == BEGINNING
    return not is_gone and not may_be_purged(read, floor.timestamp, writes)


def _is_outranked(write: Write, floor: Read) -> bool:
    if write.timestamp is None or write.timestamp > floor.timestamp:
        return False
    return write.value is not None or write.timestamp < floor.timestamp  # a tombstone buries what is exactly as old
