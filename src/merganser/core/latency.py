"""How long a peer usually takes: a 95th percentile that follows it, in constant time and memory.

Latencies are counted in buckets, four to each power of two of microseconds, so a percentile is told to within
25 % (always rounded up). Every `DECAY_AT` samples all counts are halved: what a peer did some hundreds of
requests ago weighs little.

Source: hedging at the 95th percentile: Dean and Barroso 2013, "The Tail at Scale"; buckets after HdrHistogram.
"""

from __future__ import annotations

from merganser.model.ids import NodeId

SAMPLES_MIN = 20  # below that the largest sample is above the 95th percentile
DECAY_AT = 512
_REFRESH_EVERY = 32  # a percentile is a walk over the buckets (3 µs), which 32 samples share
_BUCKETS = 4 * 32  # up to 2**32 µs, over an hour


class LatencyTracker:
    """The recent latencies of one peer."""

    __slots__ = ("_counts", "_total", "_unseen", "p95_s")

    def __init__(self) -> None:
        """Know nothing."""
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._unseen = SAMPLES_MIN
        self.p95_s: float | None = None
        """What 95 of 100 recent requests took at most; None below `SAMPLES_MIN` samples."""

    def add(self, seconds: float) -> None:
        """Take note of a request that took that long."""
        micros = int(seconds * 1e6)
        self._counts[_bucket_of(micros)] += 1
        self._total += 1
        self._unseen -= 1
        if self._unseen <= 0:
            self._refresh()

    def _refresh(self) -> None:
        self._unseen = _REFRESH_EVERY
        self.p95_s = self._percentile(0.95)
        if self._total >= DECAY_AT:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def _percentile(self, share: float) -> float:
        above = self._total - share * self._total
        for bucket in range(_BUCKETS - 1, -1, -1):
            above -= self._counts[bucket]
            if above < 0:
                return _upper_bound_us(bucket) / 1e6
        return 0.0


class Latencies:
    """A tracker for each peer that was ever measured."""

    __slots__ = ("_trackers",)

    def __init__(self) -> None:
        """Know nobody."""
        self._trackers: dict[NodeId, LatencyTracker] = {}

    def add(self, peer: NodeId, seconds: float) -> None:
        """Take note of an answer of ``peer``."""
        tracker = self._trackers.get(peer)
        if tracker is None:
            tracker = self._trackers[peer] = LatencyTracker()
        tracker.add(seconds)

    def p95_s(self, peer: NodeId) -> float | None:
        """Return the 95th percentile of ``peer``, None if too little is known."""
        tracker = self._trackers.get(peer)
        return None if tracker is None else tracker.p95_s


def _bucket_of(micros: int) -> int:
    if micros < 4:
        return max(0, micros)
    octave = micros.bit_length() - 3
    return min(4 * octave + (micros >> octave), _BUCKETS - 1)


def _upper_bound_us(bucket: int) -> int:
    """Return the least latency, in whole microseconds, that lies above the bucket."""
    if bucket < 8:
        return bucket + 1
    octave = bucket // 4 - 1
    return (bucket % 4 + 5) << octave
