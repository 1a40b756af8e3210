"""When a disk counts as full: before it is.

RocksDB does not take a write after it has met a full disk until the process starts again, and its background work needs
room to free room. So rows are refused while less than a reserve is left, and taken again when there is a tenth more
than that; in between nothing changes, so that neither clients nor the log see it flap.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 1.0  # a look costs 2 µs; a disk takes some 100 MB in that time, which the reserve has room for
_MIB = 2**20


def free_bytes(path: Path) -> int:
    """Return what an ordinary user may still write to the file system of ``path``."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class SpaceWatch:
    """Watches the free room of one file system; see the module's docstring."""

    def __init__(
        self, free: Callable[[], int], *, reserve_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep ``reserve_bytes`` free; 0 watches nothing.

        Args:
            free: returns the bytes that are free, may raise OSError.
            reserve_bytes: below this no rows are taken.
            clock: seconds, monotone.
        """
        self._free = free
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._look_at_s = clock()
        self._shortage: str | None = None

    def shortage(self) -> str | None:
        """Return why no more rows should be written, None while there is room; looks at most once a second."""
        if self._reserve_bytes and self._clock() >= self._look_at_s:
            self._look_at_s = self._clock() + LOOK_EVERY_S
            self._look()
        return self._shortage

    def reserve(self, reserve_bytes: int) -> None:
        """Keep another number of bytes free, from the next look on."""
        self._reserve_bytes, self._shortage, self._look_at_s = reserve_bytes, None, self._clock()

    def _look(self) -> None:
        try:
            free = self._free()
        except OSError:  # a disk that does not answer is found out by the next write
            return
        wanted = self._reserve_bytes if self._shortage is None else self._reserve_bytes * 11 // 10
        self._shortage = None if free >= wanted else self._told(free)

    def _told(self, free: int) -> str:
        return (
            f"{free // _MIB} MiB are free on its disk, and {self._reserve_bytes // _MIB} MiB are kept in reserve: "
            "make room, or drop tables; it takes rows again by itself"
        )
