"""Who repeats a transaction that has happened, under its token and within ten minutes, is not told that it has not.

That it is not done a second time is seen elsewhere: its elements would be there twice (`checkers.serializable`).
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History


def transactions_that_are_denied(history: History) -> Iterator[str]:
    """Yield a sentence for each repeated request that was answered as if it had not happened."""
    for told in history.items.denied:
        yield f"it had happened, and was denied when it was repeated: {told}"
