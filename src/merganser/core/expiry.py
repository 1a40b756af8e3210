"""When an item has expired: what the leader of an item asks before it removes it, on what the item is by then.

::

    time in the item       five years ago          now - margin
    ----------------------------|------------------------|-------------------------->
      kept: hardly a time       |  expired               |  kept

An item is removed late rather than early: clocks of nodes that serve are apart by less than the margin
(`core.skew`), so what a leader removes has expired by the clock of every client that trusts one of them.

Source: Amazon DynamoDB Developer Guide, "Time to Live": within days of the time, and not where it is more than five
years ago.
"""

from __future__ import annotations

from typing import Final

MARGIN_S: Final = 10
"""As far as a node's clock may be off (`service.member.CLOCK_SKEW_MAX_S`)."""
AGE_S_MAX: Final = 5 * 365 * 86_400
TIME_S_MAX: Final = 2**40
"""Times after it, in 36,000 years, are none."""


def is_due(expires_at_s: int, now_s: float) -> bool:
    """Tell whether an item that expires at a time has expired by now; both in seconds since 1970."""
    oldest_s, newest_s = due_between(now_s)
    return oldest_s <= expires_at_s < newest_s


def due_between(now_s: float) -> tuple[int, int]:
    """Return the times at which what has expired by now expires: from, and before, in seconds since 1970."""
    return max(0, int(now_s) - AGE_S_MAX), max(0, int(now_s) - MARGIN_S + 1)
