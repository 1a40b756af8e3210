"""The checkpoints that a node keeps for snapshots, until they have been fetched.

::

    DIR/checkpoints/ID/          hard links to the files of the database: they cost room only once the database drops
    a file DIR/checkpoints/ID.making/   one that is not whole; removed at the next start

A checkpoint outlives a restart of the node, so a command that fetches it can go on. One that nobody has asked for in
an hour is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from merganser.model.cluster import ClusterMap
from merganser.model.errors import CorruptionError, RequestError, StorageFailedError, UnavailableError
from merganser.service.member import Member
from merganser.service.topology import load_map
from merganser.storage.checkpoint import CheckpointReader
from merganser.storage.rocks import RocksEngine

KEPT_S: Final = 3600.0
"""A command that was stopped for so long has to begin anew."""
READ_BYTES_MAX: Final = 4 * 2**20
_HASHED_BYTES: Final = 2**20
_ID = re.compile(r"[0-9a-f]{8,32}").fullmatch
_MAKING = ".making"


class Checkpoints:
    """Makes, reads and removes them; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        """Keep them in ``path``; what an earlier life left half made, or too long, goes."""
        self._path = path
        self._checksums: dict[tuple[int, int, int], str] = {}
        self._expiry: asyncio.TimerHandle | None = None
        for left in self._all():
            if left.suffix == _MAKING or time.time() - left.stat().st_mtime > KEPT_S:
                shutil.rmtree(left, ignore_errors=True)
        if any(self._all()):
            self._watch()

    def close(self) -> None:
        """Look after them no more; they stay."""
        if self._expiry is not None:
            self._expiry.cancel()

    async def take(self, checkpoint: str, engine: RocksEngine) -> ClusterMap:
        """Make a checkpoint; returns the cluster map that it holds.

        Raises:
            RequestError: no such id may be, or it is there already.
            StorageFailedError: it could not be made.
            CorruptionError: what was made cannot be read.
        """
        target = self._of(checkpoint)
        if target.exists():
            raise RequestError(f"checkpoint {checkpoint} is there already")
        draft = target.with_suffix(_MAKING)
        try:
            target.parent.mkdir(exist_ok=True)
            await engine.checkpoint(draft)
            found = await asyncio.to_thread(_map_in, draft)
            draft.rename(target)
        except OSError as error:
            raise StorageFailedError(f"{target}: {error.strerror}") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._watch()
        return found

    def files(self, checkpoint: str) -> dict[str, int]:
        """Return the files of a checkpoint, and their sizes.

        Raises:
            RequestError: it is not there.
        """
        return {file.name: file.stat().st_size for file in sorted(self._there(checkpoint).iterdir()) if file.is_file()}

    async def checksum(self, checkpoint: str, name: str, *, bytes_per_s: float) -> str:
        """Return the SHA-256 of a file, in hexadecimal; each is read once in a life of the node, at that speed.

        Raises:
            RequestError: it is not there.
        """
        file = self._file(checkpoint, name)
        status = file.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)  # shared by all checkpoints that have the file
        known = self._checksums.get(identity)
        if known is None:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while part := await asyncio.to_thread(stream.read, _HASHED_BYTES):
                    await asyncio.to_thread(digest.update, part)
                    await asyncio.sleep(len(part) / bytes_per_s)
            known = self._checksums[identity] = digest.hexdigest()
        return known

    async def read(self, checkpoint: str, name: str, offset: int, size: int) -> bytes:
        """Return a part of a file, shorter at its end.

        Raises:
            RequestError: it is not there, or that is too much at once.
        """
        if not (offset >= 0 and 0 < size <= READ_BYTES_MAX):
            raise RequestError(f"1 to {READ_BYTES_MAX} bytes are read at once")
        file = self._file(checkpoint, name)
        os.utime(file.parent)  # it is in use
        return await asyncio.to_thread(_read, file, offset, size)

    async def drop(self, checkpoint: str) -> None:
        """Remove a checkpoint, if it is there."""
        await asyncio.to_thread(shutil.rmtree, self._of(checkpoint), ignore_errors=True)

    def _all(self) -> Iterator[Path]:
        return iter(self._path.iterdir()) if self._path.is_dir() else iter(())

    def _of(self, checkpoint: str) -> Path:
        if not _ID(checkpoint):
            raise RequestError("a checkpoint is named by 8 to 32 hexadecimal digits")
        return self._path / checkpoint

    def _there(self, checkpoint: str) -> Path:
        found = self._of(checkpoint)
        if not found.is_dir():
            raise RequestError(f"there is no checkpoint {checkpoint} on this node")
        return found

    def _file(self, checkpoint: str, name: str) -> Path:
        file = self._there(checkpoint) / name
        if "/" in name or name in ("", ".", "..") or not file.is_file():
            raise RequestError(f"checkpoint {checkpoint} has no file {name[:80]!r}")
        return file

    def _watch(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(KEPT_S / 10, self._look)

    def _look(self) -> None:
        for found in self._all():
            with contextlib.suppress(OSError):
                if time.time() - found.stat().st_mtime > KEPT_S:
                    shutil.rmtree(found, ignore_errors=True)
        if any(self._all()):
            self._watch()


def check_fit(member: Member) -> RocksEngine:
    """Return the engine of a node whose checkpoint tells what the node has acknowledged.

    Raises:
        UnavailableError: it would not; says why.
    """
    engine = member.engine
    if not isinstance(engine, RocksEngine):
        raise UnavailableError("this node keeps its data in memory only (--ephemeral), and has no files to copy")
    if engine.failure is not None:
        raise UnavailableError(f"the disk of this node has failed: {engine.failure}")
    if engine.lost is not None:
        raise UnavailableError("this node has lost what it had on its disk, and is recovering")
    doubted = len(member.horizons.doubted())
    if doubted:
        raise UnavailableError(f"rows of {doubted} partitions may have vanished here, until they have been compared")
    return engine


def _map_in(path: Path) -> ClusterMap:
    reader = CheckpointReader(path)
    try:
        found = load_map(reader)
    finally:
        reader.close()
    if found is None:
        raise CorruptionError(f"the checkpoint in {path} holds no cluster map")
    return found


def _read(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)
