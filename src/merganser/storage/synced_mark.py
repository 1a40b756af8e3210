"""How far the log had been synced, kept apart from the log, so that a log that was cut short is found out.

The mark holds the database's sequence number, and the size of each file of the log. The number alone would not
do: RocksDB writes its newest number into the manifest whenever it flushes a memtable, and then opens at that
number though the log that held it is gone.

A file of two slots, written in turn, each with a checksum; the newest whole slot counts. A slot is written after
the fsync of the log that it tells of has returned, so the mark is never ahead of what the disk held, and a crash
while one slot is written leaves the other.

What a power cut can hide: the file itself is synced once a second, so the mark may be a second older than the log. A
cut that takes only what was synced in that last second is not noticed; flipped bits are (`storage.rocks`). Killing the
process hides nothing: the kernel keeps what was written.

Written by its owner, synced from the thread that syncs the log.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SYNC_EVERY_S = 1.0  # a second fsync for each of the log's would cost a third of the acknowledged writes per second

LOGS_MAX = 16  # a slot of 269 bytes, which no disk tears; RocksDB keeps one log for each of its memtables, at most four

_SLOT_AT = (0, 4096)  # in different sectors and pages: what tears one leaves the other
_SLOT_BYTES_MAX = 512
_HEAD = struct.Struct(">QB")
_LOG = struct.Struct(">QQ")
_CHECKSUM = struct.Struct(">I")


class Synced(NamedTuple):
    """What had been synced at some moment; newer ones compare greater."""

    sequence: int
    """RocksDB's number of the newest change, or a later one."""
    logs: tuple[tuple[int, int], ...] = ()
    """Number and size of each file of the log, in bytes, the newest `LOGS_MAX` of them, in ascending order."""


class SyncedMark:
    """The mark of one database; see the module's docstring."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the mark in ``path``, or begin one that holds nothing.

        Args:
            path: the file.
            clock: seconds, monotone.

        Raises:
            OSError: the system does not let us.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._clock = clock
        self._slot = 0
        self._synced_at_s = clock()
        self.synced = self._read()
        """What was synced; None if the file does not tell."""

    def note(self, synced: Synced) -> None:
        """Record that ``synced`` has reached the disk; durable after `sync_if_due`, some time.

        Raises:
            OSError: the disk failed.
        """
        self._write(synced)

    def sync_if_due(self) -> None:
        """Make what was recorded durable, unless that was done within a second.

        Raises:
            OSError: the disk failed.
        """
        if self._clock() - self._synced_at_s >= SYNC_EVERY_S:
            self._sync()

    def restart(self, synced: Synced) -> None:
        """Record, durably, that ``synced`` is all there is, even if the mark stood higher.

        Raises:
            OSError: the disk failed.
        """
        for _ in _SLOT_AT:
            self._write(synced)
            self._sync()  # slot by slot, or a torn write could leave none

    def close(self) -> None:
        """Sync and close the file."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def _read(self) -> Synced | None:
        found = [_unpacked(os.pread(self._file, _SLOT_BYTES_MAX, at)) for at in _SLOT_AT]
        whole = [synced for synced in found if synced is not None]
        if not whole:
            return None
        self._slot = found.index(max(whole))
        return max(whole)

    def _write(self, synced: Synced) -> None:
        self._slot = 1 - self._slot
        os.pwrite(self._file, _packed(synced), _SLOT_AT[self._slot])
        self.synced = synced

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced_at_s = self._clock()


def _packed(synced: Synced) -> bytes:
    logs = synced.logs[-LOGS_MAX:]
    body = _HEAD.pack(synced.sequence, len(logs)) + b"".join(_LOG.pack(*log) for log in logs)
    return _CHECKSUM.pack(zlib.crc32(body)) + body


def _unpacked(slot: bytes) -> Synced | None:
    """Return what a slot holds, None if it was never written, torn or damaged."""
    at = _CHECKSUM.size
    if len(slot) < at + _HEAD.size:
        return None
    sequence, count = _HEAD.unpack_from(slot, at)
    end = at + _HEAD.size + count * _LOG.size
    if len(slot) < end or zlib.crc32(slot[at:end]) != _CHECKSUM.unpack_from(slot)[0]:
        return None
    return Synced(sequence, tuple(_LOG.iter_unpack(slot[at + _HEAD.size : end])))
