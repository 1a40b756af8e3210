"""A paged read of a range tells the keys in order, each once, and every key that was there all along.

A key was there all along if a value of it was acknowledged before the scan began and nothing that could
have removed it was under way before the scan ended. What each row holds is judged as a read of its
own (`acknowledged`, `origin`); a key that nobody wrote is told there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from merganser.sim.history import History, Scan, Write


def broken_scans(history: History) -> Iterator[str]:
    """Yield a sentence for each scan that came out of order, repeated a key or left one out."""
    writes = history.writes_by_key()
    for scan in history.scans:
        where = f"a scan (reverse={scan.is_reverse}) from {scan.began_s:.4f} to {scan.ended_s:.4f} s"
        if not _is_in_order(scan):
            yield f"{where} came out of order, or twice by one key"
        if any(not scan.low <= key < scan.high for key in scan.keys):
            yield f"{where} left its range"
        listed = set(scan.keys)
        for key in sorted(key for key in writes if scan.low <= key < scan.high and key not in listed):
            if _was_there_all_along(writes[key], scan, history):
                yield f"{where} left out {key!r}"


def _is_in_order(scan: Scan) -> bool:
    ascending = scan.keys[::-1] if scan.is_reverse else scan.keys
    return all(one < other for one, other in pairwise(ascending))


def _was_there_all_along(writes: list[Write], scan: Scan, history: History) -> bool:
    stable = [
        write.timestamp
        for write in writes
        if write.timestamp is not None
        and write.acked_s is not None
        and write.acked_s < scan.began_s
        and not _may_vanish(write)
        and history.meet(write, scan)
    ]
    return bool(stable) and not any(_may_remove(write, scan) and _wins(write, max(stable)) for write in writes)


def _may_vanish(write: Write) -> bool:
    return write.value is None or write.expires_at_s is not None


def _may_remove(write: Write, scan: Scan) -> bool:
    return _may_vanish(write) and write.began_s <= scan.ended_s and not write.is_certainly_unwritten


def _wins(write: Write, timestamp: tuple[int, int]) -> bool:
    return write.timestamp is None or write.timestamp >= timestamp
