"""Timestamps that no restart can mint twice.

The hybrid clock is monotone while the process lives. Across restarts a durable ceiling stands in for
it: nothing at or above the ceiling is ever minted, and a restarted node starts at the ceiling, even
when its wall clock was set back meanwhile. The ceiling moves ahead of use, in the background.

A node that lost what it had synced may have lost the newest ceiling. Before it mints again it goes above the old one
and above all that its clock can have shown by now: its wall clock, which must not have been set back since, and as far
ahead of that as the bound on skew and the windows of the others allow (`LOST_SKEWS`).

A node whose clock is too far from those of its peers mints nothing (`service.clock_watch`).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from merganser.core.clock import ClockCeiling, HybridClock
from merganser.model.timestamp import Timestamp
from merganser.service.clock_watch import ClockWatch
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal, unseal

WINDOW_US = 10_000_000  # over the wall clock: one small fsynced write per 5 s of writing
STEP_US = 1_000_000  # over a clock that is ahead of the wall clock: restarts may not drive it further by whole windows

LOST_SKEWS = 2
"""Bounds on skew between two nodes that both mint: one is ahead of the others as far as may be, one behind."""

_CEILING_KEY = keys.metadata_key("clock_ceiling")
_MICROS = struct.Struct(">q")


def load_ceiling(engine: Engine) -> int:
    """Return the microsecond below which this node may have minted; 0 if it never did."""
    stored = engine.get(_CEILING_KEY)
    if stored is None:
        return 0
    micros: int = _MICROS.unpack(unseal(_CEILING_KEY, stored))[0]
    return micros


class Timestamps:
    """The node's source of timestamps; see the module's docstring."""

    def __init__(
        self,
        clock: HybridClock,
        engine: Engine,
        *,
        wall_us: Callable[[], int],
        watch: ClockWatch | None = None,
        is_ceiling_lost: bool = False,
    ) -> None:
        """Mint from ``clock``, which must start at the engine's stored ceiling, while ``watch`` lets it.

        ``is_ceiling_lost``: it may have been higher.
        """
        self._clock = clock
        self._engine = engine
        self._wall_us = wall_us
        self._watch = watch
        self._ceiling = ClockCeiling(load_ceiling(engine), window_us=WINDOW_US, step_us=STEP_US)
        self._raising: asyncio.Task[None] | None = None
        self._is_ceiling_lost = is_ceiling_lost

    async def mint(self, deadline: float) -> Timestamp:
        """Return a timestamp above every one this node has minted, in all its lives, or observed in this one.

        Args:
            deadline: loop time until which a write of the ceiling may take, or the first look at the peers' clocks.

        Raises:
            ClockSkewError: this node's clock is too far from those of its peers.
            TimeoutError: the disk was too slow for that.
            StorageFailedError: the ceiling cannot be raised any more.
        """
        if self._watch is not None:
            if not self._watch.has_compared:
                await self._watch.compared(deadline)
            self._watch.check()
        if self._is_ceiling_lost:
            self._leap()
        timestamp = self._clock.mint(self._wall_us())
        raising = self._keep_ahead_of(timestamp.micros)
        while raising is not None and not self._ceiling.allows(timestamp.micros):
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(raising)
            raising = self._keep_ahead_of(timestamp.micros)
        return timestamp

    async def recover(self, deadline: float) -> None:
        """Make sure, durably, that nothing is minted twice though the ceiling was lost.

        Raises:
            as `mint`.
        """
        await self.mint(deadline)

    def observe(self, timestamp: Timestamp) -> None:
        """Mint nothing at or below ``timestamp`` from now on.

        Raises:
            ClockSkewError: it lies too far ahead of this node's clock.
        """
        self._clock.observe(timestamp, self._wall_us())

    async def close(self) -> None:
        """Wait for a write of the ceiling under way."""
        if self._raising is not None:
            await asyncio.wait({self._raising})

    def _leap(self) -> None:
        """Start again above all that may have been minted; the ceiling follows with the first mint."""
        skew_us = 0 if self._watch is None else int(self._watch.skew_max_s * 1e6)
        wall_us = self._wall_us()
        self._clock.observe(Timestamp(wall_us + LOST_SKEWS * skew_us + WINDOW_US + STEP_US, 0), wall_us)
        self._is_ceiling_lost = False

    def _keep_ahead_of(self, micros: int) -> asyncio.Task[None] | None:
        """Return the write of the ceiling under way, begun now if it is due; one at a time, so it never falls."""
        wanted = self._ceiling.next_to_persist(micros, wall_us=self._wall_us())
        if wanted is not None and self._raising is None:
            self._raising = asyncio.create_task(self._raise(wanted))
            self._raising.add_done_callback(self._raised)
        return self._raising

    async def _raise(self, ceiling_us: int) -> None:
        self._engine.commit(Batch().put(_CEILING_KEY, seal(_CEILING_KEY, _MICROS.pack(ceiling_us))))
        await self._engine.durable()
        self._ceiling.persisted(ceiling_us)

    def _raised(self, task: asyncio.Task[None]) -> None:
        self._raising = None
        if not task.cancelled():
            task.exception()  # whoever needed the ceiling met the error; the next mint tries again
