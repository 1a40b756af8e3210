"""Decide what a node that has more to do than it can do leaves undone: background work first, then requests.

Three decisions, each made from measurements that are handed in.

`BackgroundShare` says which share of its time slices background work may take. It looks at the foreground: reads and
writes of this node's own replicas slower than their target, turns of the loop that begin late, places for requests
taken. A little pressure halves the share, calm raises it by a twentieth; what lies between leaves it as it is::

    1 --pressed--> 1/2 --pressed--> ... --> 1/64
    1 <--calm-- 0.95 <--calm-- ... <--calm-- 1/64

A sixty-fourth always remains, because repair that never runs loses data in the end. While half the places are taken
(`is_busy`) nothing of it is given out, for ten seconds at a time.

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
there is room; the background is stopped before the first request has to wait.

Source: DeCandia 2007 §6.5 (background work admitted by the 99th percentile of the foreground); Brakmo 1994, "TCP
Vegas" (latency above that without load is queueing); Chiu and Jain 1989 (additive increase, multiplicative
decrease); Zhou 2018, "Overload Control for Scaling WeChat Microservices" (average queueing time, not CPU, as the
sign of overload); Maurer 2015, "Fail at Scale" (newest first, bounded patience).
"""

from __future__ import annotations

import enum

import msgspec

from merganser.model.leader_messages import Change, Copies, ReadLed, ReadRangeLed, Replicate, Touch, TouchRange
from merganser.model.messages import Apply, Hint, Read, ReadHint, ReadRange
from merganser.model.value_messages import FindTagged, ListRange

FOREGROUND = frozenset(
    (Apply, Read, ReadRange, ListRange, FindTagged, Hint, ReadHint, Replicate, Copies, Touch, TouchRange)
)
"""What a replica refuses when it has too much to do. All else is rare, small, and what the cluster lives on."""

LED = frozenset((Change, ReadLed, ReadRangeLed))
"""What a leader refuses when it has too much to do. Counted apart: each waits for replicas, and leaders that have taken
on as much as they may must not keep the replicas of one another from what they wait for. For the same reason they may
fill only half of the bytes."""

TICK_S = 0.05
"""How often the lag is taken and the controllers run."""

SLICE_S = 0.005
"""What a slice of background work should take: longer, and requests wait for it; shorter, and asking costs more."""

_WINDOW_TICKS = 4  # 0.2 s: some ten times as long as a request takes
_OPERATIONS_MIN = 10  # of fewer no average is told
_LEARNING = 0.1  # share of a new average in what is known of the latency without load
_DECAY = 0.95  # each tick; the counts of late and served are of the last second
_EVIDENCE_MIN = 20.0  # of fewer reads and writes no percentile is told
_SHARE_MIN = 1 / 64


class AdmissionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and targets of one node."""

    requests_max: int = 256
    """Client requests served at once. Throughput is flat from 64 on; the rest is room for slow ones."""
    requests_min: int = 32
    """However slow the node is, it serves so many."""
    waiting_max: int = 4096
    """As many as there are connections, each of which has at most one request waiting."""
    patience_s: float = 1.0
    """How long a request waits for its turn: 4,096 clients that repeat at once make as many refusals a second, which
    take a sixth of a core. Clients wait as long before they repeat a throttled request."""
    operations_max: int = 4096
    """Reads and writes of rows coordinated at once: a batch request is up to 25."""
    served_max: int = 4096
    """Reads and writes served for all peers, and for this node itself, at once."""
    led_max: int = 4096
    """Reads and writes led for all nodes at once."""
    served_bytes_max: int = 64 * 1024 * 1024
    """Of the rows of such writes, and the steps that are led."""
    latency_target_s: float = 0.05
    """99 of 100 reads and writes of a replica shall be faster; an fsync on a busy disk takes 5 to 20 ms."""
    lag_target_s: float = 0.02
    """A turn of the loop; the background is held back from half of it on."""
    delay_target_s: float = 0.05
    """Of reads and writes of rows, on average, beyond what they take without load."""
    slice_wait_max_s: float = 10.0
    """After so long background work gets a slice, however busy the node is."""


class Measured(msgspec.Struct, frozen=True):
    """What a node saw of itself since it last looked."""

    lag_s: float
    """How late the loop came to what was due."""
    served: int = 0
    """Reads and writes of this node's replicas that ended."""
    late: int = 0
    """Those of them over the latency target."""
    is_busy: bool = False
    """See `is_busy`."""


class BackgroundShare:
    """The share of background work; see the module's docstring."""

    __slots__ = ("_lag_target_s", "_late", "_served", "value")

    def __init__(self, limits: AdmissionLimits) -> None:
        """Begin with everything allowed."""
        self._lag_target_s = limits.lag_target_s
        self._late = 0.0
        self._served = 0.0
        self.value = 1.0
        """1/64 to 1."""

    def update(self, seen: Measured) -> None:
        """Take one tick's measurements into account."""
        self._served = self._served * _DECAY + seen.served
        self._late = self._late * _DECAY + seen.late
        if self._is_pressed(seen):
            self.value = max(_SHARE_MIN, self.value / 2)
        elif self._is_calm(seen):
            self.value = min(1.0, self.value + 0.05)

    def gap_s(self) -> float:
        """Return how long after a slice the next may begin."""
        return SLICE_S * (1 - self.value) / self.value

    def _is_pressed(self, seen: Measured) -> bool:
        is_late = self._served >= _EVIDENCE_MIN and self._late > 0.01 * self._served
        return is_late or seen.lag_s > self._lag_target_s / 2 or seen.is_busy

    def _is_calm(self, seen: Measured) -> bool:
        is_fast = self._served < _EVIDENCE_MIN or self._late < 0.005 * self._served
        return is_fast and seen.lag_s < self._lag_target_s / 4


def is_busy(in_flight: int, limit: int) -> bool:
    """Tell whether the foreground takes so many of its places that background work stops at once."""
    return 2 * in_flight > limit


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
