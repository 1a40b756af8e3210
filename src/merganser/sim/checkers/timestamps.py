"""A node mints each timestamp once and always later ones, over all its lives and whatever its wall clock shows."""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History, Write


def timestamps_that_fell(history: History) -> Iterator[str]:
    """Yield a sentence for each acknowledged write that its node stamped no later than an earlier one."""
    by_writer: dict[int, list[Write]] = {}
    for write in history.writes:
        if write.minted is not None and write.acked_s is not None:
            by_writer.setdefault(write.minted.writer, []).append(write)
    for writer, writes in by_writer.items():
        for write in writes:
            earlier = [w.minted for w in writes if w.minted and w.acked_s and w.acked_s < write.began_s]
            if write.minted and earlier and write.minted <= max(earlier):
                yield f"node {writer} minted {write.minted} for {write.key!r}, after {max(earlier)}"
        minted = [write.minted for write in writes]
        if len(set(minted)) != len(minted):
            yield f"node {writer} minted a timestamp twice"
