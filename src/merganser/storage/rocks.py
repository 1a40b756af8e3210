"""The engine on disk: RocksDB through rocksdict.

A commit is an unsynced write on the event loop's thread (4 µs); `flush_wal(True)` in this engine's own
thread makes all of them durable (`storage.group_commit`). The other way round, a synced write, would
hold the interpreter lock, and so the whole node, for the length of an fsync.

What this file works around in rocksdict 0.3.29 and RocksDB 10.4.2, all of it seen:

- ``items()`` ends early at a damaged block without a word; an iterator's ``status()`` tells;
- ``set_iterate_lower_bound`` sets the upper bound;
- the default recovery drops acknowledged writes behind a damaged log record; the strict one does so too when a log
  file is shorter than it was, or gone;
- a database that is opened again takes its cache and its Bloom filters from the options of its column families, which
  are read from the disk if they are not given: without filters, and with a cache of 8 MiB;
- a range deletion whose end lies before its start is accepted, and then no memtable can be flushed;
- after a full disk or an I/O error no write succeeds again, and closing raises.

So the log is examined first (read only, strictly), compared with the mark of what was synced
(`storage.synced_mark`), and then opened up to its first flaw::

    the strict look finds a damaged record -----------+
    a file of the log is shorter than was synced -----+
    what opens ends before what was synced -----------+--> LOST is noted, durably, and `lost` says so
    the mark itself is gone or damaged ---------------+
    anything else: a crash at worst                   ---> all that was synced is there

The directory belongs to the engine alone (`storage.rocks_directory`).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)

from merganser.model.errors import ConfigurationError, CorruptionError, InvariantError, StorageFailedError
from merganser.storage import compactions, rocks_directory
from merganser.storage.engine import Batch
from merganser.storage.group_commit import GroupCommit
from merganser.storage.rocks_rows import rows_between
from merganser.storage.space import SpaceWatch, free_bytes
from merganser.storage.synced_mark import Synced, SyncedMark
from merganser.storage.worker_thread import WorkerThread

_MIB = 2**20


class RocksEngine:
    """An `Engine` over a RocksDB database."""

    def __init__(
        self,
        path: Path,
        database: Rdict,
        mark: SyncedMark,
        *,
        on_failure: Callable[[str], None] | None,
        reserve_bytes: int,
    ) -> None:
        """Take over an open database; see `open`."""
        self._path = path
        self._database = database
        self._mark = mark
        self._logs = rocks_directory.LogWatch(path)
        self._space = SpaceWatch(lambda: free_bytes(path), reserve_bytes=reserve_bytes)
        self._lost = rocks_directory.read_lost(path)
        self._group = GroupCommit(self._sync, on_failure=on_failure)
        # Its own thread: an fsync must not queue behind whatever else the process runs in threads.
        self._syncer = WorkerThread("merganser-fsync")
        self._is_closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        on_failure: Callable[[str], None] | None = None,
        reserve_bytes: int = 0,
        lost_if_new: str | None = None,
    ) -> RocksEngine:
        """Open the database in ``path``, or make one if the directory is missing or empty.

        Damage to the log is no error: what is left of it is opened, and `lost` says what is not.

        Args:
            path: the engine's directory.
            on_failure: told why the engine takes no more writes, when that happens.
            reserve_bytes: free room below which there is a `shortage`; 0 watches nothing.
            lost_if_new: what an empty database has `lost`, if one has to be made.

        Raises:
            ConfigurationError: another process has it open, it is not Merganser's, it is of a newer
                format, or the system does not let us in; the message says what to do.
            CorruptionError: its files, other than the log, are damaged.
        """
        try:
            is_new = rocks_directory.claim(path)
            database, mark = _made(path, lost_if_new) if is_new else _recovered(path)
        except OSError as error:
            raise ConfigurationError(f"cannot use {path} as a data directory: {error}") from error
        return cls(path, database, mark, on_failure=on_failure, reserve_bytes=reserve_bytes)

    @property
    def failure(self) -> str | None:
        """Why the engine takes no more writes; None while it is well."""
        return self._group.failure

    @property
    def lost(self) -> str | None:
        """What was durable and is gone, in words; None while nothing is known to be missing."""
        return self._lost

    async def mark_lost(self, what: str) -> None:
        """Say `lost` from now on, in later lives too; durable on return.

        Raises:
            StorageFailedError: it could not be kept, or it is unknown whether it was.
        """
        self._lost = self._lost or what
        await self._in_thread(rocks_directory.keep_lost, self._path, what)

    async def made_whole(self) -> None:
        """Forget what was `lost`: it has been brought back, or its loss was accepted; durable on return.

        Raises:
            StorageFailedError: it is unknown whether it is forgotten.
        """
        await self._in_thread(rocks_directory.forget_lost, self._path)
        self._lost = None

    @property
    def shortage(self) -> str | None:
        """Why no more rows should be written just now, in words; None while there is room."""
        return self._space.shortage()

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
            yield from rows_between(self._database, start, end, reverse=reverse)
        except Exception as error:
            raise _unreadable(error) from error

    def commit(self, batch: Batch) -> None:
        """Apply ``batch`` whole; visible at once, durable after `durable`.

        Raises:
            StorageFailedError: nothing of the batch was applied, or it is unknown whether it was.
        """
        self._group.note(batch)
        operations = batch.operations
        try:
            if len(operations) == 1 and operations[0][1] is not None and len(operations[0]) == 2:
                self._database.put(*operations[0])  # nearly every batch: 1 µs less
            else:
                self._database.write(_raw_batch(batch))
        except Exception as error:
            self._group.fail(f"write failed, restart the node once the disk is well: {error}")
            raise StorageFailedError(self._group.failure) from error

    def is_durable(self, key: bytes) -> bool:
        """Tell whether the newest committed value of ``key`` has reached the disk."""
        return self._group.is_durable(key)

    def is_range_durable(self, start: bytes, end: bytes) -> bool:
        """Tell whether all of ``start <= key < end``, as it reads now, has reached the disk."""
        return self._group.is_range_durable(start, end)

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

    async def flush(self) -> None:
        """Write what is in memory into files, so that a `checkpoint` right after it is quick.

        Raises:
            StorageFailedError: it could not be done.
        """
        await self._in_other_thread(lambda: self._database.flush(True))

    async def checkpoint(self, path: Path) -> None:
        """Keep the database as it is now in ``path``, durably: files that are shared with it until it drops them.

        What is still in memory is written into files first, while the loop stands still: 15 ms a megabyte.

        Args:
            path: a directory that is not there, on the same file system.

        Raises:
            StorageFailedError: it could not be made; the engine goes on.
        """
        await self.durable()
        await self._in_other_thread(lambda: Checkpoint(self._database).create_checkpoint(str(path)))

    def keep_free(self, reserve_bytes: int) -> None:
        """Have a `shortage` below another free room from now on; 0 watches nothing."""
        self._space.reserve(reserve_bytes)

    async def erase(self, start: bytes, end: bytes) -> None:
        """Return once nothing that was deleted of ``start <= key < end`` is in any file, the log included.

        A compaction of the range writes out what is in memory first, after which the log before it is deleted.

        Raises:
            StorageFailedError: it may be there.
        """
        await self.durable()
        await self._in_other_thread(lambda: self._database.compact_range(start, end))

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
        self._syncer.close()
        try:
            self._database.close()
            self._mark.close()
        except Exception as error:
            if was_well:
                raise StorageFailedError(f"could not be closed cleanly: {error}") from error

    async def _sync(self) -> None:
        """Sync the log; the mark tells of no more than was written when that began.

        The thread does nothing but what must not hold up the loop: each time it comes back to Python it waits for the
        loop to let go of the interpreter.
        """
        written = Synced(self._database.latest_sequence_number(), self._logs.sizes())
        await self._syncer.do(self._flush)
        self._mark.note(written)

    def _flush(self) -> None:
        self._database.flush_wal(True)
        self._mark.sync_if_due()

    async def _in_other_thread(self, work: Callable[[], None]) -> None:
        """Do what may take long, and must not hold up the fsyncs of commits."""
        self._group.check()
        try:
            await asyncio.to_thread(work)
        except Exception as error:
            raise StorageFailedError(f"{self._path}: {error}") from error

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            await self._syncer.do(partial(work, *arguments))
        except (OSError, RuntimeError) as error:  # RuntimeError: the thread has ended, as the engine is closed
            raise StorageFailedError(f"{self._path}: {error}") from error


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


def _options(recovery: DBRecoveryMode, *, is_new: bool = False) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(is_new)
    options.set_wal_recovery_mode(recovery)
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
    """Four memtables (of at most 16 MiB) and a 64 MiB cache, all allocated as they fill.

    Indexes and filters are in blocks of 4 KiB. Whole, they are of some 400 KB for each file, and the cache is cut into
    64 parts, of which each holds two: once they do not all fit, a get costs 300 µs in place of 10.
    """
    options.set_write_buffer_size(compactions.memtable_bytes(random.Random()))
    options.set_max_write_buffer_number(4)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(64 * _MIB))
    blocks.set_cache_index_and_filter_blocks(True)  # or they grow with the data, outside the bound
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_metadata_block_size(4096)
    blocks.set_pin_top_level_index_and_filter(True)  # some KB for each file
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


# Looks at the whole log, and refuses a flipped bit in it, but for a last record that was never whole.
_STRICT = DBRecoveryMode.tolerate_corrupted_tail_records()
# Takes each file of the log up to the first flaw. A newer file is taken although an older one is gone.
_PREFIX = DBRecoveryMode.point_in_time()


def open_database(path: Path, *, is_new: bool = False) -> Rdict:
    """Open the database itself, as the engine does, up to the first flaw of its log; `RocksEngine` looks first.

    Raises:
        ConfigurationError: another process has it open, or the system does not let us in.
        CorruptionError: its files are damaged.
    """
    options = _options(_PREFIX, is_new=is_new)
    try:
        database = Rdict(str(path), options, column_families={"default": options})
    except Exception as error:
        text = str(error)
        if "/LOCK" in text:
            raise rocks_directory.in_use(path) from error
        if "Corruption" in text:
            raise CorruptionError(
                f"the database in {path} is damaged: start the node once with --rebuild, which sets the database aside "
                f"and takes everything from the other nodes, or start from a copy made while the node was stopped: "
                f"{text}"
            ) from error
        raise ConfigurationError(f"the database in {path} cannot be opened: {text}") from error
    compactions.put_last()
    return database


def _made(path: Path, lost: str | None) -> tuple[Rdict, SyncedMark]:
    if lost is not None:
        rocks_directory.keep_lost(path, lost)
    database = open_database(path, is_new=True)
    mark = SyncedMark(path / rocks_directory.SYNCED)
    mark.restart(Synced(0))
    rocks_directory.finish_claim(path)
    return database, mark


def _recovered(path: Path) -> tuple[Rdict, SyncedMark]:
    """Open what an earlier life left, and note it if that is less than it had synced."""
    rocks_directory.check_unused(path)
    mark = SyncedMark(path / rocks_directory.SYNCED)
    damage = _damage_of_log(path, mark.synced)
    if damage is not None:
        rocks_directory.keep_lost(path, damage)  # first: what opens next forgets the damage
        rocks_directory.set_logs_aside(path)
    database = open_database(path)
    found = database.latest_sequence_number()
    if mark.synced is None:
        damage = f"{rocks_directory.SYNCED}, which tells how much was synced, is gone or damaged"
    elif found < mark.synced.sequence:
        damage = f"the log ends at change {found}, and change {mark.synced.sequence} was synced"
    if damage is not None:
        rocks_directory.keep_lost(path, damage)
        mark.restart(Synced(found))
    return database, mark


def _damage_of_log(path: Path, synced: Synced | None) -> str | None:
    """Return what is wrong with the log; None if it is well, or if something else is damaged."""
    try:
        database = Rdict(str(path), _options(_STRICT), access_type=AccessType.read_only())
    except Exception as error:  # noqa: BLE001 - the library has no class of its own for them
        text = str(error)
        return f"the log is damaged: {text}" if "Corruption" in text and not _NOT_OF_THE_LOG(text) else None
    oldest_needed = database.property_int_value("rocksdb.min-log-number-to-keep") or 0
    database.close()
    sizes = rocks_directory.log_sizes(path)
    for number, size in synced.logs if synced is not None else ():
        if number >= oldest_needed and sizes.get(number, 0) < size:
            return f"log file {number} has {sizes.get(number, 0)} bytes, and {size} were synced"
    return None


_NOT_OF_THE_LOG = re.compile(r"\.sst|MANIFEST|CURRENT|IDENTITY").search


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, DbClosedError):
        return InvariantError("read from a closed engine")
    return CorruptionError(f"cannot be read from this disk: {error}")
