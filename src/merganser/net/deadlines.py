"""Many deadlines on one timer.

Deadlines are kept in buckets of `TICK_S`, so one costs a set insertion and a removal instead of an event loop timer of
its own. The timer goes off for the earliest bucket that had anything in it when it was set; what is empty by then is
forgotten, so that requests which are answered in time cost no wake-ups. A deadline is announced at most two ticks late
and never early. The timers of all connections go off at the same ticks of the loop's clock, so that a node wakes once
for all of them.

Source: Varghese and Lauck 1987, "Hashed and Hierarchical Timing Wheels", scheme 4 without the wrap.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

TICK_S = 0.05
"""Request deadlines are seconds, and a tenth of a second late is not noticed."""
_SLACK = 0.1
"""Of a tick: a timer that goes off a little early finds its tick begun all the same."""
_NEVER = sys.maxsize


class Deadlines:
    """Announces ids whose time is up."""

    __slots__ = ("_buckets", "_expired", "_loop", "_timer", "_wakes_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[int], None]) -> None:
        """Call ``expired`` with each id whose time is up."""
        self._loop = loop
        self._expired = expired
        self._buckets: dict[int, set[int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = _NEVER
        """The tick that the timer is set for: no bucket is earlier."""

    def add(self, request_id: int, timeout_s: float) -> set[int]:
        """Start the time of ``request_id``; remove it from the returned bucket to stop it."""
        tick = int((self._loop.time() + timeout_s) / TICK_S) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            if tick < self._wakes_at:
                self._wake_at(tick)
        bucket.add(request_id)
        return bucket

    def close(self) -> None:
        """Announce nothing more."""
        self._buckets.clear()
        self._wakes_at = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = tick
        self._timer = self._loop.call_at((tick + _SLACK) * TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer, self._wakes_at = None, _NEVER
        now = int(self._loop.time() / TICK_S)
        for tick in sorted(tick for tick in self._buckets if tick <= now):
            for request_id in self._buckets.pop(tick, ()):
                self._expired(request_id)
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        earliest = min(self._buckets, default=_NEVER)
        if earliest < self._wakes_at:
            self._wake_at(earliest)
