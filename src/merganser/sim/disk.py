"""The disk of a simulated machine, and what can be wrong with it.

It outlives its machine's lives. Faults may come at any time, from a nemesis or a test, on a machine that runs or on
one that is down; whatever has to be drawn is drawn from the world's own randomness:

- ``slow``: each fsync takes long, until ``heal``;
- ``fill``: short of room (rows are refused, until ``free``), or full to the last byte (the engine fails);
- ``fail_next_sync``: one fsync fails, and with it the engine, until the machine has been crashed and started again;
- ``cut_log``: at the next start the newest batches of the log are gone, synced or not, and the engine says `lost`;
- ``rot``: a bit of a row at rest flips, silently.

A power cut keeps some of what was not synced, the oldest batches first and each batch whole or not at all: the record
that was being written is torn, and RocksDB drops a torn record at the end of its log whole when it opens.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random

from merganser.sim.loop import SimulatedLoop
from merganser.storage import keys
from merganser.storage.memory import MemoryEngine

SYNC_S = (1e-4, 5e-3)  # an fsync on flash to one on a busy disk
SLOW_SYNC_S = (0.1, 2.0)  # a disk that retries its reads, a cloud volume out of credits
LOG_BATCHES_MAX = 256  # what a real log holds until its memtable is flushed, scaled to the length of our runs

_LAST_KEY = b"\xff" * 16


class SimulatedDisk:
    """A disk, the engine on it, and its faults; see the module's docstring."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random, engine_type: type[MemoryEngine] = MemoryEngine) -> None:
        """Begin empty and well."""
        self._loop = loop
        self._rng = rng
        self._sync_s = SYNC_S
        self._is_short = False
        self._is_full = False
        self._is_next_sync_failing = False
        self.has_rotted = False
        """In any life of the machine."""
        self._batches_to_cut = 0
        self._sound_batches: int | None = None  # of this life, once an fsync has failed
        self.engine = engine_type(sync=self._sync, space=self._space, log_batches_max=LOG_BATCHES_MAX)

    # -- faults

    def slow(self, seconds_range: tuple[float, float] = SLOW_SYNC_S) -> None:
        """Let each fsync take that long, until `heal`."""
        self._sync_s = seconds_range

    def fill(self, *, to_the_last_byte: bool = False) -> None:
        """Leave no room but the reserve, so that rows are refused; or nothing at all, so that any write fails."""
        self._is_short = True
        self._is_full = to_the_last_byte

    def free(self) -> None:
        """Make room; an engine that has failed stays so until its machine was crashed and started."""
        self._is_short = self._is_full = False

    def fail_next_sync(self) -> None:
        """Let the next fsync fail, and the engine with it until the machine was crashed and started."""
        self._is_next_sync_failing = True

    def cut_log(self, batches: int) -> None:
        """Lose the newest ``batches`` of the log at the next start, as many as it holds then, synced ones too."""
        self._batches_to_cut = max(self._batches_to_cut, batches)

    @property
    def is_log_to_be_cut(self) -> bool:
        """Tell whether the next start finds less than was synced."""
        return self._batches_to_cut > 0

    def rot(self, *, is_metadata: bool = False) -> bytes | None:
        """Flip a bit of some table's row at rest; returns its key, None if there are no rows.

        Args:
            is_metadata: of the node's own metadata instead; no node is built to live with that.
        """
        _, rows_begin = keys.table_range(keys.METADATA)
        start, end = (b"", rows_begin) if is_metadata else (rows_begin, _LAST_KEY)
        candidates = [key for key, _ in self.engine.scan(start, end)]
        if not candidates:
            return None
        key = self._rng.choice(candidates)
        self.rot_row(key)
        return key

    def rot_row(self, key: bytes) -> None:
        """Flip a bit of what is at rest under ``key``."""
        self.has_rotted = True
        self.engine.rot(key, bit=self._rng.getrandbits(32))
        self._loop.note("rot", key)

    def heal(self) -> None:
        """End slowness and fullness, and call off what has not happened yet; what is lost, cut or rotten stays so."""
        self._sync_s = SYNC_S
        self.free()
        self._is_next_sync_failing = False

    # -- for the machine

    def power_cut(self) -> int:
        """Lose a seeded part of what was not synced; returns how many batches of it survive.

        After a failed fsync nothing later is on the disk, whatever later ones said: the system threw the pages away.
        """
        if self._sound_batches is not None:
            gone = self.engine.synced_batches - self._sound_batches
            self._batches_to_cut, self._sound_batches = max(self._batches_to_cut, gone), None
        kept = self._rng.randint(0, self.engine.unsynced_batches)
        self.engine.power_cut(kept)
        return kept

    def spin_up(self) -> None:
        """Be what a machine that starts finds."""
        if self._batches_to_cut:
            self._loop.note("cut log", self._batches_to_cut)
            self.engine.cut_log(self._batches_to_cut)
            self._batches_to_cut = 0

    async def _sync(self) -> None:
        await asyncio.sleep(self._rng.uniform(*self._sync_s))
        if self._is_next_sync_failing:
            self._is_next_sync_failing = False
            self._sound_batches = self.engine.synced_batches
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _space(self) -> str | None:
        if self._is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return "the disk has no room but its reserve" if self._is_short else None
