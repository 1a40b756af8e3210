"""Nothing deleted comes back, and nothing expired is seen.

Once a delete is acknowledged, no read that met it returns a value older than it. A value with an expiry
is not returned by a coordinator whose own clock shows that moment or a later one; clocks that
differ are the clients' business, and are drawn wrong by the nemesis.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History, Read, Write, told


def risen_from_the_dead(history: History) -> Iterator[str]:
    """Yield a sentence for each read of a deleted value and for each of an expired one."""
    writes = history.writes_by_key()
    for read in history.reads:
        if read.value is None:
            continue
        for write in writes.get(read.key, ()):
            if _buried(write, read, history):
                yield f"risen: {told(read)}, deleted at {write.timestamp}"
            elif write.value == read.value and write.reads_as_nothing(read.wall_s):
                yield f"expired: {told(read)} at {read.wall_s:.3f} s, though it ended at {write.expires_at_s} s"


def _buried(write: Write, read: Read, history: History) -> bool:
    if write.value is not None or write.timestamp is None or write.acked_s is None:
        return False
    return write.acked_s < read.began_s and write.timestamp >= read.timestamp and history.meet(write, read)
