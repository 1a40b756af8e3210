"""Open loop: requests come when they come, whether the server keeps up or not.

Each arrival has an intended time. If every connection is busy then, it waits in line, and its latency counts from the
intended time, so that a stall is felt by all who would have come meanwhile, not by one request per connection
(coordinated omission; Tene, "How NOT to Measure Latency").

`Line` decides and knows no clock; `Alarm` wakes the loop to within microseconds, where its own timers round to a
millisecond.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import os
import random
from collections.abc import Callable, Iterator
from typing import Literal, get_args

Arrivals = Literal["poisson", "even"]
ARRIVALS: tuple[str, ...] = get_args(Arrivals)

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


def arrivals(kind: str, rate: float, *, start: float, rng: random.Random) -> Iterator[float]:
    """Yield the intended times of ``rate`` requests a second from ``start`` (seconds) on, without end.

    ``poisson``: independent of one another, as those of many clients are. ``even``: always as far apart.
    """
    if kind not in ARRIVALS:
        raise ValueError(f"requests arrive {' or '.join(ARRIVALS)}, not {kind!r}")
    now = start
    while True:
        now += rng.expovariate(rate) if kind == "poisson" else 1.0 / rate
        yield now


class Line:
    """Arrivals that wait for a connection."""

    def __init__(self, times: Iterator[float]) -> None:
        """Take arrivals from ``times``, which ascend."""
        self._times = times
        self._waiting: collections.deque[float] = collections.deque()
        self.next_at = next(times)
        """When the next one will be here."""

    def arrive(self, now: float) -> None:
        """Let all join whose time has come."""
        while self.next_at <= now:
            self._waiting.append(self.next_at)
            self.next_at = next(self._times)

    def take(self) -> float | None:
        """Return the intended time of the one who has waited longest, and let it go; None if nobody waits."""
        return self._waiting.popleft() if self._waiting else None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Calls back once, at a time of the monotonic clock: a timer of the Linux kernel that the loop watches."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        """Prepare; nothing is set yet.

        Raises:
            OSError: the kernel has no such timer left.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._ring = ring
        self._spec = _Spec()
        loop.add_reader(self._timer, self._rang)

    def set(self, when: float) -> None:
        """Ring at ``when``, or at once if that has passed; whatever was set before is forgotten."""
        seconds, rest = divmod(max(when, 1e-9), 1.0)  # all zeros would disarm it
        self._spec.value_s, self._spec.value_ns = int(seconds), int(rest * 1e9)
        self._libc.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(self._spec), None)

    def close(self) -> None:
        """Never ring again."""
        self._loop.remove_reader(self._timer)
        os.close(self._timer)

    def _rang(self) -> None:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:  # set anew meanwhile
            return
        self._ring()
