"""Many deadlines on one timer.

Deadlines are kept in buckets of `TICK_S`; one timer runs while there is any bucket, so a deadline
costs a set insertion and a removal instead of an event loop timer of its own. A deadline is announced
at most two ticks late and never early. The timers of all connections go off at the same ticks of the loop's
clock, so that a node wakes once for all of them.

Source: Varghese and Lauck 1987, "Hashed and Hierarchical Timing Wheels", scheme 4 without the wrap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

TICK_S = 0.05
"""Request deadlines are seconds, and a tenth of a second late is not noticed. With 50 wake-ups a second the eight
connections of one of three nodes took 3 % of its time."""
_SLACK = 0.1
"""Of a tick: a timer that goes off a little early finds its tick begun all the same."""


class Deadlines:
    """Announces ids whose time is up."""

    __slots__ = ("_buckets", "_expired", "_looked_at", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[int], None]) -> None:
        """Call ``expired`` with each id whose time is up."""
        self._loop = loop
        self._expired = expired
        self._buckets: dict[int, set[int]] = {}
        self._looked_at = 0
        """The last tick that was looked at: no bucket is that old."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request_id: int, timeout_s: float) -> set[int]:
        """Start the time of ``request_id``; remove it from the returned bucket to stop it."""
        tick = int((self._loop.time() + timeout_s) / TICK_S) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            if self._timer is None:
                self._looked_at = int(self._loop.time() / TICK_S)
                self._wake_at_next_tick()
        bucket.add(request_id)
        return bucket

    def close(self) -> None:
        """Announce nothing more."""
        self._buckets.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at_next_tick(self) -> None:
        self._timer = self._loop.call_at((int(self._loop.time() / TICK_S) + 1 + _SLACK) * TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = int(self._loop.time() / TICK_S)
        ticks: Iterable[int] = range(self._looked_at + 1, now + 1)
        if now - self._looked_at > len(self._buckets):  # the process was stopped for long
            ticks = sorted(tick for tick in self._buckets if tick <= now)
        self._looked_at = now
        for tick in ticks:
            for request_id in self._buckets.pop(tick, ()):
                self._expired(request_id)
        if self._buckets and self._timer is None:
            self._wake_at_next_tick()
