"""No value from nowhere: what a read returns was written, and its writer was not told otherwise.

A write whose outcome is unknown may be seen at any time, or never. One that was refused as
"nothing was written" must not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.model.timestamp import BEGINNING
from merganser.sim.history import History, Read, Write, told


def values_from_nowhere(history: History) -> Iterator[str]:
    """Yield a sentence for each read of what nobody wrote, or of what was refused."""
    writes = history.writes_by_key()
    for read in history.reads:
        if read.timestamp == BEGINNING:
            continue
        made = [write for write in writes.get(read.key, ()) if _may_have_made(write, read)]
        if not made:
            yield f"from nowhere: {told(read)}"
        elif all(write.is_certainly_unwritten for write in made):
            yield f"refused, yet written: {told(read)}"


def _may_have_made(write: Write, read: Read) -> bool:
    if write.began_s > read.ended_s:
        return False
    if write.value != read.value and not (read.value is None and write.reads_as_nothing(read.wall_s)):
        return False
    # a coordinator whose clock was behind sent the same value under earlier timestamps first
    return (write.timestamp or read.timestamp) >= read.timestamp
