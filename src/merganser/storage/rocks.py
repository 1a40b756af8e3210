"""The engine on disk: RocksDB through rocksdict.

A commit is an unsynced write on the event loop's thread (4 µs); `flush_wal(True)` in this engine's own
thread makes all of them durable (`storage.group_commit`). The other way round, a synced write, would
hold the interpreter lock, and so the whole node, for the length of an fsync.

What this file works around in rocksdict 0.3.29 and RocksDB 10.4.2, all of it seen:

- ``items()`` ends early at a damaged block without a word; an iterator's ``status()`` tells;
- ``set_iterate_lower_bound`` sets the upper bound;
- the default recovery drops acknowledged writes behind a damaged log record;
- a range deletion whose end lies before its start is accepted, and then no memtable can be flushed;
- after a full disk or an I/O error no write succeeds again, and closing raises.

The directory belongs to the engine alone. ``MERGANSER`` in it names its format; while the directory is
being made the file is called ``MERGANSER.new``, so that a database that vanished later is not taken for
one that was never there.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from merganser.model.errors import ConfigurationError, CorruptionError, InvariantError, StorageFailedError
from merganser.storage.engine import Batch
from merganser.storage.group_commit import GroupCommit

_FORMAT = 1
_MARK = "MERGANSER"
_UNFINISHED_MARK = "MERGANSER.new"
_MARK_TEXT = re.compile(r"merganser storage format ([0-9]{1,9})\n").fullmatch

_MIB = 2**20


class RocksEngine:
    """An `Engine` over a RocksDB database."""

    def __init__(self, database: Rdict, on_failure: Callable[[str], None] | None) -> None:
        """Take over an open database; see `open`."""
        self._database = database
        self._group = GroupCommit(self._sync, on_failure=on_failure)
        # Its own thread: an fsync must not queue behind whatever else the process runs in threads.
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merganser-fsync")
        self._is_closed = False

    @classmethod
    def open(cls, path: Path, *, on_failure: Callable[[str], None] | None = None) -> RocksEngine:
        """Open the database in ``path``, or make one if the directory is missing or empty.

        ``on_failure`` is told why the engine takes no more writes, when that happens.

        Raises:
            ConfigurationError: another process has it open, it is not Merganser's, it is of a newer
                format, or the system does not let us in; the message says what to do.
            CorruptionError: its files are damaged.
        """
        try:
            is_new = _claim(path)
            database = _opened(path, is_new=is_new)
            if is_new:
                _finish_claim(path)
        except OSError as error:
            raise ConfigurationError(f"cannot use {path} as a data directory: {error}") from error
        return cls(database, on_failure)

    @property
    def failure(self) -> str | None:
        """Why the engine takes no more writes; None while it is well."""
        return self._group.failure

    def get(self, key: bytes) -> bytes | None:
        """Return the newest committed value, durable or not.

        Raises:
            CorruptionError: the block is damaged or cannot be read.
        """
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise _unreadable(error) from error
        return value

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``start <= key < end`` in ascending order of bytes (descending if ``reverse``).

        Raises:
            CorruptionError: while iterating, at a block that is damaged or cannot be read.
        """
        if start >= end:
            return
        try:
            yield from self._scan(start, end, reverse=reverse)
        except Exception as error:
            raise _unreadable(error) from error

    def commit(self, batch: Batch) -> None:
        """Apply ``batch`` whole; visible at once, durable after `durable`.

        Raises:
            StorageFailedError: nothing of the batch was applied, or it is unknown whether it was.
        """
        self._group.note(batch)
        try:
            self._write(batch)
        except Exception as error:
            self._group.fail(f"write failed, restart the node once the disk is well: {error}")
            raise StorageFailedError(self._group.failure) from error

    def is_durable(self, key: bytes) -> bool:
        """Tell whether the newest committed value of ``key`` has reached the disk."""
        return self._group.is_durable(key)

    @property
    def is_all_durable(self) -> bool:
        """Tell whether everything committed has reached the disk."""
        return self._group.is_all_durable

    async def durable(self) -> None:
        """Return once everything committed before the call has reached the disk.

        Raises:
            StorageFailedError: it is unknown whether it did.
        """
        await self._group.durable()

    def close(self) -> None:
        """Release the directory, after the fsync in flight; what was not durable may be lost.

        Raises:
            StorageFailedError: the engine was well until now and could not be closed cleanly.
        """
        if self._is_closed:
            return
        self._is_closed = True
        was_well = self._group.failure is None
        self._group.stop("the engine is closed")
        self._syncer.shutdown(wait=True)
        try:
            self._database.close()
        except Exception as error:
            if was_well:
                raise StorageFailedError(f"could not be closed cleanly: {error}") from error

    async def _sync(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._syncer, self._database.flush_wal, True)

    def _write(self, batch: Batch) -> None:
        operations = batch.operations
        if len(operations) == 1 and len(operations[0]) == 2:  # nearly every batch: 1 µs less
            key, value = operations[0]
            if value is not None:
                self._database.put(key, value)
                return
        self._database.write(_raw_batch(batch))

    def _scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        rows = self._database.iter(options)
        if reverse:
            rows.seek_to_last()
        else:
            rows.seek(start)
        step = rows.prev if reverse else rows.next
        while rows.valid():
            key: bytes = rows.key()
            if key < start:
                break
            yield key, rows.value()
            step()
        rows.status()


def _raw_batch(batch: Batch) -> WriteBatch:
    raw = WriteBatch(raw_mode=True)
    for operation in batch.operations:
        if len(operation) == 3:
            start, end, _ = operation
            if start < end:
                raw.delete_range(start, end)
        else:
            key, value = operation
            if value is None:
                raw.delete(key)
            else:
                raw.put(key, value)
    return raw


def _options(*, is_new: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(is_new)
    # Damage in the log refuses to open instead of dropping what comes after it.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    _bound_memory(options)
    _bound_files(options)
    # Cheap to pack where data is young and rewritten, small where most of it rests.
    options.set_compression_type(DBCompressionType.lz4())
    options.set_bottommost_compression_type(DBCompressionType.zstd())
    options.set_level_compaction_dynamic_level_bytes(True)
    # Deleting obsolete files can take milliseconds, and iterators are closed on the loop's thread.
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_max_background_jobs(2)
    return options


def _bound_memory(options: Options) -> None:
    """Four memtables of at most 16 MiB and a 64 MiB cache, all allocated as they fill."""
    options.set_write_buffer_size(16 * _MIB)
    options.set_max_write_buffer_number(4)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(64 * _MIB))
    blocks.set_cache_index_and_filter_blocks(True)  # or they grow with the data, outside the bound
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_bloom_filter(10, False)  # 1 % false positives: a get of a missing key reads no block
    blocks.set_format_version(5)
    options.set_block_based_table_factory(blocks)


def _bound_files(options: Options) -> None:
    """Keep the log short enough to replay in a second, and descriptors below a default ulimit of 1,024."""
    options.set_max_total_wal_size(64 * _MIB)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(4 * _MIB)
    options.set_max_manifest_file_size(16 * _MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_bytes_per_sync(_MIB)  # writes SSTs back as they grow: no burst that an fsync would wait behind


def _opened(path: Path, *, is_new: bool) -> Rdict:
    try:
        return Rdict(str(path), _options(is_new=is_new))
    except Exception as error:
        text = str(error)
        if "/LOCK" in text:
            raise ConfigurationError(
                f"{path} is open in another process: stop that one, or choose another data directory"
            ) from error
        if "Corruption" in text:
            raise CorruptionError(
                f"the database in {path} is damaged, start from a copy made while the node was stopped: {text}"
            ) from error
        raise ConfigurationError(f"the database in {path} cannot be opened: {text}") from error


def _claim(path: Path) -> bool:
    """Make sure the directory is ours; true if there is no database in it yet.

    Raises:
        ConfigurationError: it is not ours, or too new for us.
        OSError: the system does not let us look or write.
    """
    _make(path)
    names = {entry.name for entry in path.iterdir()}
    if _MARK in names:
        _check_format(path)
        return False
    if names and _UNFINISHED_MARK not in names:
        raise ConfigurationError(
            f"{path} holds files and is not a Merganser data directory: choose an empty or a new directory"
        )
    with (path / _UNFINISHED_MARK).open("w") as mark:
        mark.write(f"merganser storage format {_FORMAT}\n")
        mark.flush()
        os.fsync(mark.fileno())
    return True


def _make(path: Path) -> None:
    """Make the directory and those above it, so that a power cut does not unmake them."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        _sync_directory(directory.parent)


def _finish_claim(path: Path) -> None:
    (path / _UNFINISHED_MARK).rename(path / _MARK)
    _sync_directory(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_format(path: Path) -> None:
    match = _MARK_TEXT((path / _MARK).read_text(errors="replace"))
    if match is None:
        raise ConfigurationError(
            f"{path / _MARK} is damaged: if the directory is Merganser's, "
            f"write 'merganser storage format {_FORMAT}' and a newline into it"
        )
    if int(match[1]) > _FORMAT:
        raise ConfigurationError(
            f"{path} is of storage format {match[1]} and this Merganser knows {_FORMAT}: start the newer version"
        )


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, DbClosedError):
        return InvariantError("read from a closed engine")
    return CorruptionError(f"cannot be read from this disk: {error}")
