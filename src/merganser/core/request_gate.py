"""Decide which client requests a node serves at once, which wait, and which it refuses.

`RequestLimit` says how many client requests may be served at once. Most of the queue of a node is out of sight:
in the sockets of its peers, behind their fsyncs, in the turns of their loops. It shows in how long reads and writes
of rows take, on average over a window, beyond what they take while next to nothing is under way. If that is
over the target, the limit shrinks by a tenth; if not, and the limit was what kept requests out, it grows.

`RequestGate` lets client requests in::

    asked --room--> served --leave()--> done
      |               ^
      +--> waiting ---+ newest first      when its patience is over, or too many wait: refused
      |
      +--> refused

Newest first, because in an overload the oldest are those whose clients have given up, and serving them in their order
would make every answer as late as the queue is long. Refusals that come after some patience are what keeps clients
that try again at once from spending the node's time on refusals alone.

Invariants: never more than `requests_max` are served, nor `waiting_max` waiting; whoever waits is served when
there is room.

Source: Brakmo 1994, "TCP Vegas" (latency above that without load is queueing); Chiu and Jain 1989 (additive increase,
multiplicative decrease); Zhou 2018, "Overload Control for Scaling WeChat Microservices" (average queueing time, not
CPU, as the sign of overload); Maurer 2015, "Fail at Scale" (newest first, bounded patience).
"""

from __future__ import annotations

import enum
from typing import Final

from merganser.core.admission import AdmissionLimits

_WINDOW_TICKS: Final = 4  # 0.2 s: some ten times as long as a request takes
_OPERATIONS_MIN: Final = 10  # of fewer no average is told
_LEARNING: Final = 0.1  # share of a new average in what is known of the latency without load


class RequestLimit:
    """How many client requests are served at once; see the module's docstring."""

    __slots__ = ("_count", "_limits", "_most_in_flight", "_seconds", "_ticks", "_was_full", "unloaded_s", "value")

    def __init__(self, limits: AdmissionLimits) -> None:
        """Begin with the most."""
        self._limits = limits
        self.value = limits.requests_max
        self.unloaded_s = 0.01
        """What a read or write of a row takes while next to nothing is under way."""
        self._ticks = self._count = self._most_in_flight = 0
        self._seconds = 0.0
        self._was_full = False

    def update(self, *, count: int, seconds: float, in_flight: int, was_full: bool) -> None:
        """Take one tick's measurements into account.

        Args:
            count: reads and writes of rows that ended since the last tick.
            seconds: what they took, together.
            in_flight: client requests being served.
            was_full: a request was kept waiting.
        """
        self._ticks += 1
        self._count += count
        self._seconds += seconds
        self._most_in_flight = max(self._most_in_flight, in_flight)
        self._was_full |= was_full
        if self._ticks == _WINDOW_TICKS:
            self._adapt()
            self._ticks = self._count = self._most_in_flight = 0
            self._seconds = 0.0
            self._was_full = False

    def _adapt(self) -> None:
        if self._count < _OPERATIONS_MIN:
            return
        average_s = self._seconds / self._count
        if self._most_in_flight <= self._limits.requests_min // 4:
            self.unloaded_s += _LEARNING * (average_s - self.unloaded_s)
        if average_s > self.unloaded_s + self._limits.delay_target_s:
            self.value = max(self._limits.requests_min, self.value * 9 // 10)
        elif self._was_full:
            self.value = min(self._limits.requests_max, self.value + self._limits.requests_min // 2)


class Entry(enum.Enum):
    """What becomes of a request that asks to be served."""

    SERVED = "served"
    WAITING = "waiting"
    REFUSED = "refused"


class RequestGate:
    """Counts client requests; see the module's docstring. Who waits is known to the caller."""

    __slots__ = ("_limits", "in_flight", "limit", "most_in_flight", "most_waiting", "refused", "waiting", "was_full")

    def __init__(self, limits: AdmissionLimits) -> None:
        """Open with every place free."""
        self._limits = limits
        self.limit = RequestLimit(limits)
        self.in_flight = 0
        self.waiting = 0
        self.was_full = False
        """Somebody had to wait since this was last set to false."""
        self.refused = 0
        self.most_in_flight = 0
        self.most_waiting = 0

    def enter(self) -> Entry:
        """Take a place if there is one and nobody waits for it, else a place to wait."""
        if self.in_flight < self.limit.value and not self.waiting:
            self._serve()
            return Entry.SERVED
        self.was_full = True
        if self.waiting >= self._limits.waiting_max:
            self.refused += 1
            return Entry.REFUSED
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        return Entry.WAITING

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1

    def calls_next(self) -> bool:
        """Take a place for one who waits, if there is one; the caller lets in the newest."""
        if not self.waiting or self.in_flight >= self.limit.value:
            return False
        self.waiting -= 1
        self._serve()
        return True

    def gives_up(self) -> None:
        """Refuse one who waits: its patience, or its client, is gone."""
        self.waiting -= 1
        self.refused += 1

    def _serve(self) -> None:
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.most_in_flight = self.in_flight
