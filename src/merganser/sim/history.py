"""What clients asked and heard, and whether a leaderless table may have answered so.

Rows carry the timestamps that order them, so the check is exact and cheap: with W and R at QUORUM a
read returns a write at least as new as every write that was acknowledged before the read began, and
never one that nobody made. A write whose outcome is unknown may be seen at any time, or never.
"""

from __future__ import annotations

import msgspec

from merganser.model.timestamp import BEGINNING, Timestamp


class Write(msgspec.Struct):
    """One write of a value that no other write carries."""

    key: bytes
    value: bytes | None
    """None: a delete."""
    began_s: float
    acked_s: float | None = None
    """None: refused, failed or unknown."""
    timestamp: Timestamp | None = None
    """Known once acknowledged."""
    is_certainly_unwritten: bool = False


class Read(msgspec.Struct):
    """One read that was answered."""

    key: bytes
    value: bytes | None
    timestamp: Timestamp
    """Of the row; BEGINNING if there was none."""
    began_s: float
    ended_s: float


class History:
    """Writes and reads of one run."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.writes: list[Write] = []
        self.reads: list[Read] = []

    def newest_acked(self, key: bytes, before_s: float) -> Timestamp:
        """Return the newest timestamp acknowledged for ``key`` before ``before_s``."""
        return max(
            (
                w.timestamp
                for w in self._writes_of(key)
                if w.timestamp and w.acked_s is not None and w.acked_s < before_s
            ),
            default=BEGINNING,
        )

    def violations(self) -> list[str]:
        """Return a sentence for each read that no correct table could have given."""
        told = [violation for read in self.reads if (violation := self._violation(read))]
        return told + [violation for write in self.writes if (violation := self._overtaken(write))]

    def _overtaken(self, write: Write) -> str | None:
        """An acknowledged write must outrank those acknowledged before it began, or it was never visible."""
        if write.timestamp is None:
            return None
        floor = self.newest_acked(write.key, write.began_s)
        if write.timestamp > floor or (write.value is None and write.timestamp == floor):
            return None  # a tombstone buries what is exactly as old
        return f"invisible: a write of {write.key!r} acknowledged with {write.timestamp}, begun after {floor} was"

    def _violation(self, read: Read) -> str | None:
        floor = self.newest_acked(read.key, read.began_s)
        if read.timestamp < floor:
            return f"lost: {_told(read)}, after {floor} was acknowledged"
        if read.timestamp == BEGINNING:
            return None
        if read.value is None:
            source = [w for w in self._writes_of(read.key) if w.value is None]
        else:
            source = [w for w in self._writes_of(read.key) if w.value == read.value]
        # a coordinator whose clock was behind sent the same value under earlier timestamps first
        made = [w for w in source if w.began_s <= read.ended_s and (w.timestamp or read.timestamp) >= read.timestamp]
        if not made:
            return f"from nowhere: {_told(read)}"
        if all(w.is_certainly_unwritten for w in made):
            return f"refused, yet written: {_told(read)}"
        return None

    def _writes_of(self, key: bytes) -> list[Write]:
        return [write for write in self.writes if write.key == key]


def _told(read: Read) -> str:
    when = f"from {read.began_s:.4f} to {read.ended_s:.4f} s"
    return f"a read of {read.key!r} {when} returned {read.value!r} of {read.timestamp}"
