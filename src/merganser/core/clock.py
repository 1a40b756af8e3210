"""Timestamps that only grow, close to the wall clock, before and after a crash.

`HybridClock` mints timestamps: the wall clock's microseconds, or one more than the latest minted or
observed time if the wall clock is not ahead of that. The logical part is thus folded in as +1 µs.

`ClockCeiling` keeps the promise over a restart even when the wall clock was set back meanwhile: the
node mints only below a ceiling that is already durable, and starts its clock at that ceiling::

    floor = last durable ceiling                        (restart)
      |
      v
    ...minted...   latest   ...may be minted...   ceiling (durable)
                   |<------- window left ------->|
                   less than half a window left: make a new ceiling durable, ahead of need

Invariants:
- each mint is greater, in microseconds, than every mint, observed timestamp and floor before it;
- ``latest <= max(floor, W, S + max_ahead_us) + M`` after M mints, where W is the largest wall time given
  to `mint` and S the largest given to `observe`;
- a refused timestamp changes nothing;
- what is minted after a restart is greater than all that `ClockCeiling.allows` let out before.

Source: Kulkarni 2014, "Logical Physical Clocks", §3 (the algorithm, here with l and c in one number) and
§5.2 (refusing what is too far ahead).
"""

from __future__ import annotations

from merganser.model.errors import ClockSkewError
from merganser.model.timestamp import BEGINNING, Timestamp


class HybridClock:
    """The clock of one node; its caller reads the wall clock and passes it in."""

    __slots__ = ("_latest", "_max_ahead_us", "_writer")

    def __init__(self, writer: int, *, floor: Timestamp | int = BEGINNING, max_ahead_us: int) -> None:
        """Start above ``floor``.

        Args:
            writer: this node's number in the cluster map.
            floor: a timestamp, or microseconds, that everything minted shall exceed.
            max_ahead_us: how far ahead of the wall clock an observed timestamp may lie.
        """
        self._writer = writer
        self._latest = floor.micros if isinstance(floor, Timestamp) else floor
        self._max_ahead_us = max_ahead_us

    @property
    def latest(self) -> int:
        """Microseconds of the latest timestamp minted or observed, or of the floor."""
        return self._latest

    def mint(self, wall_us: int) -> Timestamp:
        """Return a timestamp later than every one minted or observed before."""
        latest = self._latest + 1
        self._latest = latest = wall_us if wall_us > latest else latest
        return Timestamp(latest, self._writer)

    def observe(self, timestamp: Timestamp, wall_us: int) -> None:
        """Take note of another node's ``timestamp``, so that later mints exceed it.

        Raises:
            ClockSkewError: it lies more than ``max_ahead_us`` ahead of ``wall_us``; nothing is noted.
        """
        ahead_us = timestamp.micros - wall_us
        if ahead_us > self._max_ahead_us:
            raise ClockSkewError(
                f"node number {timestamp.writer} wrote {ahead_us / 1e6:.3f} s ahead of this node's clock, more than "
                f"the {self._max_ahead_us / 1e6:.3f} s allowed: set the clocks of both nodes right"
            )
        if timestamp.micros > self._latest:
            self._latest = timestamp.micros


class ClockCeiling:
    """The durable bound below which a node may mint; its caller does the writing.

    ``window_us`` is how far a fresh ceiling lies ahead of the wall clock. A node that restarts at once begins
    that far ahead at most, so the window is to be smaller than the skew its peers allow. While the clock is
    ahead of the wall clock, after such a restart above all, the ceiling goes only ``step_us`` ahead of
    it: restarts that follow one another must not drive it further by whole windows.
    """

    __slots__ = ("_durable_us", "_step_us", "_window_us")

    def __init__(self, durable_us: int, *, window_us: int, step_us: int) -> None:
        """Start with the ceiling found on disk, 0 on a new node; it is also the clock's floor."""
        assert 2 <= step_us <= window_us
        self._durable_us = durable_us
        self._window_us = window_us
        self._step_us = step_us

    def allows(self, micros: int) -> bool:
        """Tell whether a timestamp of ``micros`` may leave the node."""
        return micros < self._durable_us

    def next_to_persist(self, latest_us: int, *, wall_us: int) -> int | None:
        """Return the ceiling to make durable now, None while half a window, or half a step, is left.

        Until `persisted` is called each call may ask again; one write at a time is enough.

        Args:
            latest_us: the clock's latest time.
            wall_us: the wall clock's.
        """
        wanted = 0
        if self._durable_us - wall_us < self._window_us // 2:
            wanted = wall_us + self._window_us
        if self._durable_us - latest_us < self._step_us // 2:
            wanted = max(wanted, latest_us + self._step_us)
        return wanted or None

    def persisted(self, ceiling_us: int) -> None:
        """Note that ``ceiling_us`` has reached the disk."""
        self._durable_us = max(self._durable_us, ceiling_us)
