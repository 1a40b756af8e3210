"""What a client may expect of its own session, whichever nodes it talks to.

Read your writes: a read returns the client's own last acknowledged write or a newer one. Monotonic writes: each
outranks the one before. Both only between requests whose replicas overlap, and then they follow from
`acknowledged`; here they are judged by themselves, without looking at other clients. Monotonic reads, and
writes that follow reads, hold for all clients together (`monotonic`).

Source: Terry 1994, "Session Guarantees for Weakly Consistent Replicated Data".
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.checkers.acknowledged import is_behind, is_outranked
from merganser.sim.history import History, Write, told


def broken_sessions(history: History) -> Iterator[str]:
    """Yield a sentence for each request that forgot what its own client had written before."""
    own: dict[tuple[int, bytes], list[Write]] = {}
    for write in history.writes:
        own.setdefault((write.client, write.key), []).append(write)
    of_key = history.writes_by_key()
    for read in history.reads:
        for write in own.get((read.client, read.key), ()):
            is_promised = _is_acked_by(write, read.began_s) and history.meet(write, read)
            if is_promised and is_behind(read, write, of_key[read.key]):
                yield f"client {read.client} does not read its write of {write.timestamp}: {told(read)}"
    for (client, key), writes in own.items():
        for earlier, later in ((e, w) for w in writes for e in writes if _is_acked_by(e, w.began_s)):
            if history.meet(earlier, later) and is_outranked(later, earlier):
                yield f"client {client} wrote {key!r} at {later.timestamp} after {earlier.timestamp}"


def _is_acked_by(write: Write, moment_s: float) -> bool:
    return write.acked_s is not None and write.acked_s <= moment_s
