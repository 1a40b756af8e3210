"""Decide what a node that has more to do than it can do leaves undone: background work first, then requests.

Decided from measurements that are handed in.

`BackgroundShare` says which share of its time slices background work may take. It looks at the foreground: reads and
writes of this node's own replicas slower than their target, turns of the loop that begin late, places for requests
taken. A little pressure halves the share, calm raises it by a twentieth; what lies between leaves it as it is::

    1 --pressed--> 1/2 --pressed--> ... --> 1/64
    1 <--calm-- 0.95 <--calm-- ... <--calm-- 1/64

A sixty-fourth always remains, because repair that never runs loses data in the end. While half the places are taken
(`is_busy`) nothing of it is given out, for ten seconds at a time.

What is work for others more than for this node, as copies of a moving partition are, shows here only when it is under
way everywhere. While clients ask (`is_asked`) the background has a tenth of the time at most (`ASKED_SHARE_MAX`), and
such work takes its time besides (`service.copying`).

How many requests are served at once, and who waits, is decided in `core.request_gate`.

Invariant: the background is stopped before the first request has to wait.

Source: DeCandia 2007 §6.5 (background work admitted by the 99th percentile of the foreground).
"""

from __future__ import annotations

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

SLICE_MIN_S = 0.0005
"""What a slice takes at least, with what it costs to ask for it and, mostly, to have others answer."""

SLICE_MAX_S = 0.05
"""What a slice is charged with at most: a process that was stopped in the middle of one has not worked for an hour."""

ASKED_SHARE_MAX = 0.1
"""While clients ask, however calm it is: on cores that several nodes share each may be calm, and all of them not."""

_DECAY = 0.95  # each tick; the counts of late and served are of the last second
_EVIDENCE_MIN = 20.0  # of fewer reads and writes no percentile is told
_SHARE_MIN = 1 / 64
_ASKED_MIN = 20.0  # in a second; of fewer the background holds up next to none


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
    asked: int = 0
    """Reads and writes that ended, for clients of this node, and as a leader for those of others; what the background
    of this or another node wrote through a leader is none of them."""
    is_busy: bool = False
    """See `is_busy`."""


class BackgroundShare:
    """The share of background work; see the module's docstring."""

    __slots__ = ("_asked", "_lag_target_s", "_late", "_served", "value")

    def __init__(self, limits: AdmissionLimits) -> None:
        """Begin with everything allowed."""
        self._lag_target_s = limits.lag_target_s
        self._asked = 0.0
        self._late = 0.0
        self._served = 0.0
        self.value = 1.0
        """1/64 to 1."""

    def update(self, seen: Measured) -> None:
        """Take one tick's measurements into account."""
        self._served = self._served * _DECAY + seen.served
        self._late = self._late * _DECAY + seen.late
        self._asked = self._asked * _DECAY + seen.asked
        if self._is_pressed(seen):
            self.value = max(_SHARE_MIN, self.value / 2)
        elif self._is_calm(seen):
            self.value = min(1.0, self.value + 0.05)

    @property
    def is_asked(self) -> bool:
        """Tell whether anything was `Measured.asked` in the last second, more than now and then."""
        return self._asked >= _ASKED_MIN

    def gap_s(self, slice_s: float) -> float:
        """Return how long after a slice that took ``slice_s`` the next may begin."""
        share = min(self.value, ASKED_SHARE_MAX) if self.is_asked else self.value
        return min(max(slice_s, SLICE_MIN_S), SLICE_MAX_S) * (1 - share) / share

    def _is_pressed(self, seen: Measured) -> bool:
        is_late = self._served >= _EVIDENCE_MIN and self._late > 0.01 * self._served
        return is_late or seen.lag_s > self._lag_target_s / 2 or seen.is_busy

    def _is_calm(self, seen: Measured) -> bool:
        is_fast = self._served < _EVIDENCE_MIN or self._late < 0.005 * self._served
        return is_fast and seen.lag_s < self._lag_target_s / 4


def is_busy(in_flight: int, limit: int) -> bool:
    """Tell whether the foreground takes so many of its places that background work stops at once."""
    return 2 * in_flight > limit
