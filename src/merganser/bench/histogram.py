"""Latencies in buckets 1 % wide: constant memory, mergeable between processes."""

from __future__ import annotations

import math
from collections import Counter

_WIDTH = math.log(1.01)


class Histogram:
    """Counts of durations by bucket."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        """Start with ``counts`` by bucket index (as `counts` gives them)."""
        self.counts: Counter[int] = Counter(counts or {})

    def record(self, microseconds: float) -> None:
        """Count one duration, at least 1 µs."""
        self.counts[int(math.log(max(microseconds, 1.0)) / _WIDTH)] += 1

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` counted."""
        self.counts.update(other.counts)

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return self.counts.total()

    def percentile(self, share: float) -> float:
        """Return the duration in microseconds that ``share`` (0 to 1) of all stay within; 0 if none."""
        wanted = share * self.total
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return math.exp((bucket + 0.5) * _WIDTH)
        return 0.0
