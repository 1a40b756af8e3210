"""Tell a node by how much its wall clock is off, and whether that is certain, from what its peers' clocks showed.

A node asks a peer for its time. The question left at ``t0`` and the answer arrived at ``t1``, both by
this node's monotonic clock, so when it arrived the peer's clock stood between what the answer says
and that plus ``t1 - t0``: an interval, not a point. Intervals are kept as *peer's wall clock minus this
node's monotonic clock*; a step of this node's own wall clock therefore makes none of them wrong, and is
noticed at the very next look.

Of each peer the last few samples are kept and the narrowest, the one with the shortest round trip, counts.
A newer sample that does not overlap an older one says that the peer's clock was set: the older goes.

The node compares itself with the median of all clocks it knows, its own among them. It is *beyond the bound*
only if the whole interval of that median is::

      least                                                    most
        |<-- skew_max --|<-- median of the clocks -->|-- skew_max -->|
    refuse                          mint                             refuse          wall - monotonic of this node

Of three clocks one that is wrong is outvoted by two. Of two neither can be told to be the wrong one, and
with two against two nobody is: then nobody refuses, because a cluster that takes no writes is worse than
one whose concurrent writes are ordered by clocks apart. A row too far in the future is refused by every
replica all the same (`core.clock`).

Invariants:
- if every interval holds the true value, a node that is within the bound of the true median is never refused;
- with fewer than two peers known nothing is refused;
- wider intervals refuse less.

Source: Cristian 1989, "Probabilistic clock synchronization" (round trip); Marzullo and Owicki 1983,
"Maintaining the Time in a Distributed System" (intervals); Mills 1991, "Internet Time Synchronization: the
Network Time Protocol" (of several samples the one with the least delay).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import msgspec

from merganser.model.ids import NodeId

SAMPLES_MAX = 8  # as NTP's clock filter
_FAR_US = 1 << 62


class Sample(msgspec.Struct, frozen=True):
    """Bounds of a peer's wall clock minus this node's monotonic clock, in microseconds."""

    low_us: int
    high_us: int
    taken_us: int
    """By this node's monotonic clock."""

    def overlaps(self, other: Sample) -> bool:
        """Tell whether one value may satisfy both."""
        return self.low_us <= other.high_us and other.low_us <= self.high_us


def sample(*, peer_wall_us: int, asked_us: int, answered_us: int) -> Sample:
    """Return what an answer says; ``asked_us`` and ``answered_us`` are by this node's monotonic clock."""
    assert asked_us <= answered_us
    return Sample(peer_wall_us - answered_us, peer_wall_us - asked_us, answered_us)


class Clocks:
    """The clocks of the peers as this node knows them; see the module's docstring."""

    def __init__(self, *, skew_max_us: int) -> None:
        """Know nobody's clock yet."""
        self._skew_max_us = skew_max_us
        self._samples: dict[NodeId, deque[Sample]] = {}
        self._judge()

    def allow(self, skew_max_us: int) -> None:
        """Go by another bound from now on."""
        self._skew_max_us = skew_max_us
        self._judge()

    @property
    def known(self) -> int:
        """How many peers' clocks are known."""
        return len(self._samples)

    def add(self, peer: NodeId, heard: Sample) -> None:
        """Take note of what ``peer`` said."""
        kept = [older for older in self._samples.get(peer, ()) if older.overlaps(heard)]
        self._samples[peer] = deque([*kept, heard], maxlen=SAMPLES_MAX)
        self._judge()

    def keep_only(self, peers: Collection[NodeId], *, since_us: int) -> None:
        """Forget other peers, and samples taken before ``since_us``."""
        kept = {
            peer: [one for one in samples if one.taken_us >= since_us]
            for peer, samples in self._samples.items()
            if peer in peers
        }
        self._samples = {peer: deque(samples, maxlen=SAMPLES_MAX) for peer, samples in kept.items() if samples}
        self._judge()

    def is_beyond(self, difference_us: int) -> bool:
        """Tell whether a node whose wall minus monotonic clock is ``difference_us`` is certainly beyond the bound."""
        return not self._least_us <= difference_us <= self._most_us

    def ahead_us(self, difference_us: int) -> int:
        """Return how far this node is probably ahead of the median of all clocks, negative if behind."""
        guesses = sorted([difference_us, *((best.low_us + best.high_us) // 2 for best in self._best().values())])
        middle = guesses[(len(guesses) - 1) // 2] + guesses[len(guesses) // 2]
        return difference_us - middle // 2

    def offsets_us(self, difference_us: int) -> dict[NodeId, tuple[int, int]]:
        """Return how far each peer's clock is ahead of this node's, at least and at most."""
        return {
            peer: (best.low_us - difference_us, best.high_us - difference_us) for peer, best in self._best().items()
        }

    def _best(self) -> dict[NodeId, Sample]:
        return {peer: min(samples, key=_width) for peer, samples in self._samples.items()}

    def _judge(self) -> None:
        """Draw the bounds of wall minus monotonic beyond which this node is off.

        With k peers and itself there are n = k + 1 clocks. As long as this node's own is above the
        upper median of all, that median is number n // 2 of the others' upper ends, from below and from zero; and
        likewise below, mirrored. With one peer there is no such number: the upper median is its own clock.
        """
        best = self._best().values()
        place = (len(best) + 1) // 2
        if place >= len(best):
            self._least_us, self._most_us = -_FAR_US, _FAR_US
            return
        lows = sorted((one.low_us for one in best), reverse=True)
        highs = sorted(one.high_us for one in best)
        self._least_us = lows[place] - self._skew_max_us
        self._most_us = highs[place] + self._skew_max_us


def _width(one: Sample) -> int:
    return one.high_us - one.low_us
