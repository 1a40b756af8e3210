"""A checkpoint of a RocksDB database, opened to be read (`storage.engine.Readable`); nothing of it is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from merganser.model.errors import CorruptionError
from merganser.storage.rocks_rows import rows_between


class CheckpointReader:
    """Reads a checkpoint; blocks are checked against their checksums."""

    def __init__(self, path: Path) -> None:
        """Open the checkpoint in ``path``, in a process that holds no other engine there.

        Raises:
            CorruptionError: it is none, or its files are damaged.
        """
        self._path = path
        self._logs = tempfile.TemporaryDirectory(prefix="merganser-log-")  # an open for reading writes a log, too
        options = Options(raw_mode=True)
        options.set_db_log_dir(self._logs.name)
        options.set_max_open_files(256)
        try:
            self._database = Rdict(str(path), options, access_type=AccessType.read_only())
        except Exception as error:
            self._logs.cleanup()
            raise CorruptionError(f"the checkpoint in {path} cannot be opened: {error}") from error

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``.

        Raises:
            CorruptionError: the block is damaged or cannot be read.
        """
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise CorruptionError(f"{self._path} cannot be read: {error}") from error
        return value

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``start <= key < end`` in ascending order of bytes (descending if ``reverse``).

        Raises:
            CorruptionError: while iterating, at a block that is damaged or cannot be read.
        """
        if start >= end:
            return
        try:
            yield from rows_between(self._database, start, end, reverse=reverse)
        except Exception as error:
            raise CorruptionError(f"{self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Close it."""
        self._database.close()
        self._logs.cleanup()
