from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from merganser.model.errors import ConfigurationError, CorruptionError, InvariantError, StorageFailedError
from merganser.storage.compactions import MEMTABLE_BYTES, NICE, memtable_bytes
from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine, open_database

FIRST, LAST = b"", b"\xff" * 8
ROWS = 2_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some" / "data"


def expected_rows() -> dict[bytes, bytes]:
    dice = random.Random(7)
    return {b"%06d" % number: dice.randbytes(100) for number in range(ROWS)}


def fill(path: Path) -> None:
    engine = RocksEngine.open(path)
    batch = Batch()
    for key, value in expected_rows().items():
        batch.put(key, value)
    engine.commit(batch)
    asyncio.run(engine.durable())
    engine.close()


def test_everything_durable_is_there_after_a_restart(path: Path) -> None:
    fill(path)
    engine = RocksEngine.open(path)
    assert dict(engine.scan(FIRST, LAST)) == expected_rows()
    engine.close()


@pytest.mark.parametrize("lives", [1, 2])
def test_a_database_that_is_opened_again_has_its_cache_and_its_filters(path: Path, lives: int) -> None:
    for _ in range(lives):
        RocksEngine.open(path).close()
    database = open_database(path)
    for key, value in expected_rows().items():
        database.put(key, value)
    database.flush(True)
    properties = database.property_value("rocksdb.aggregated-table-properties")
    filter_bytes = re.search(r"filter block size=(\d+)", properties or "")
    assert database.property_int_value("rocksdb.block-cache-capacity") == 64 * 2**20
    assert filter_bytes is not None
    assert int(filter_bytes[1]) >= ROWS  # ten bits for each row
    database.close()


def test_a_deleted_range_stays_deleted_after_restarts(path: Path) -> None:
    fill(path)
    engine = RocksEngine.open(path)
    engine.commit(Batch().delete_range(b"000100", b"001900").put(b"000500", b"later").delete_range(b"z", b"a"))
    asyncio.run(engine.durable())
    crashed = path.parent / "crashed"
    shutil.copytree(path, crashed)
    engine.close()
    for directory in (crashed, path, path):
        engine = RocksEngine.open(directory)
        assert len(list(engine.scan(FIRST, LAST))) == 201
        assert engine.get(b"000100") is None
        assert engine.get(b"000500") == b"later"
        engine.close()


def test_a_directory_open_in_another_process_is_refused(path: Path) -> None:
    program = (
        "import pathlib, sys; from merganser.storage.rocks import RocksEngine; "
        "engine = RocksEngine.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ConfigurationError, match="open in another process: stop that one"):
            RocksEngine.open(path)
        other.communicate("")
    RocksEngine.open(path).close()


def test_a_directory_of_someone_else_is_refused_and_left_alone(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not a Merganser data directory: choose an empty"):
        RocksEngine.open(path)
    assert [entry.name for entry in path.iterdir()] == ["thesis.txt"]


def test_a_path_that_is_no_directory_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot use .* as a data directory"):
        RocksEngine.open(path)


def test_a_newer_format_is_refused(path: Path) -> None:
    fill(path)
    (path / "MERGANSER").write_text("merganser storage format 2\n")
    with pytest.raises(ConfigurationError, match="storage format 2 and this Merganser knows 1: start the newer"):
        RocksEngine.open(path)
    (path / "MERGANSER").write_text("\x00")
    with pytest.raises(ConfigurationError, match="MERGANSER is damaged"):
        RocksEngine.open(path)


def test_a_directory_whose_making_was_interrupted_is_made_again(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "MERGANSER.new").write_text("")
    RocksEngine.open(path).close()
    fill(path)
    assert (path / "MERGANSER").read_text() == "merganser storage format 1\n"


def test_a_database_that_vanished_is_not_taken_for_a_new_one(path: Path) -> None:
    fill(path)
    for entry in path.iterdir():
        if entry.name != "MERGANSER":
            entry.unlink()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        RocksEngine.open(path)


def test_reading_from_a_closed_engine_is_a_bug_that_shows(path: Path) -> None:
    engine = RocksEngine.open(path)
    engine.close()
    with pytest.raises(InvariantError):
        engine.get(b"a")
    with pytest.raises(InvariantError):
        list(engine.scan(FIRST, LAST))


def fsync_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("merganser-fsync")]


def test_closing_during_an_fsync_leaves_no_thread_behind(path: Path) -> None:
    async def scenario() -> None:
        engine = RocksEngine.open(path)
        engine.commit(Batch().put(b"a", bytes(1_000_000)))
        waiter = asyncio.create_task(engine.durable())
        for _ in range(8):  # turns of the loop: the waiter starts, the round starts, the thread starts
            await asyncio.sleep(0)
        assert fsync_threads()
        engine.close()
        assert not fsync_threads()
        with contextlib.suppress(StorageFailedError):  # unless the disk was quicker than eight turns of the loop
            await waiter

    asyncio.run(asyncio.wait_for(scenario(), 10))


class InlineLoop(asyncio.SelectorEventLoop):
    """Runs executor jobs on its own thread, later: as the simulator's loop does."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        self.call_later(0, lambda: future.set_result(func(*args)))
        return future


def test_group_commit_needs_no_threads(path: Path) -> None:
    engine = RocksEngine.open(path)

    async def scenario() -> None:
        engine.commit(Batch().put(b"a", b"1"))
        await engine.durable()
        assert engine.is_durable(b"a")

    with asyncio.Runner(loop_factory=InlineLoop) as runner:
        runner.run(scenario())
    engine.close()


def table_file(path: Path) -> Path:
    (only,) = path.glob("*.sst")
    return only


def read_all(path: Path, *, reverse: bool) -> tuple[bool, bool]:
    """Read everything both ways; tell whether the scan and whether some get met damage.

    Asserts that whatever was returned is right and whole.
    """
    expected = expected_rows()
    engine = RocksEngine.open(path)
    try:
        is_scan_refused = is_get_refused = False
        try:
            assert dict(engine.scan(FIRST, LAST, reverse=reverse)) == expected
        except CorruptionError:
            is_scan_refused = True
        for key, value in expected.items():
            try:
                assert engine.get(key) == value
            except CorruptionError:
                is_get_refused = True
    finally:
        engine.close()
    return is_scan_refused, is_get_refused


@pytest.mark.parametrize("reverse", [False, True])
def test_a_damaged_table_file_is_never_a_short_scan(path: Path, reverse: bool) -> None:
    fill(path)
    table = table_file(path)
    good = table.read_bytes()
    refused = []
    for place in range(len(good) // 40, len(good), len(good) // 20):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        table.write_bytes(damaged)
        try:
            refused.append(read_all(path, reverse=reverse))
        except CorruptionError:  # damaged where opening looks
            refused.append((True, True))
    # 200 kB of incompressible rows in blocks of 4 KiB: nearly every place is in a block of rows.
    assert refused.count((True, True)) >= 15


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", disk):
        pytest.skip("this system does not let the test mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def mount(*arguments: str | Path) -> bool:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0


def test_a_full_disk_stops_writes_keeps_reads_and_loses_nothing_acknowledged(small_disk: Path) -> None:
    engine = RocksEngine.open(small_disk / "data")
    acknowledged: dict[bytes, bytes] = {}
    dice = random.Random(7)

    async def write_until_refused() -> None:
        for number in range(100_000):
            key, value = b"%06d" % number, dice.randbytes(2_000)
            engine.commit(Batch().put(key, value))
            await engine.durable()
            acknowledged[key] = value

    async def refused() -> None:
        with pytest.raises(StorageFailedError, match="No space left"):
            await write_until_refused()
        assert engine.failure is not None
        with pytest.raises(StorageFailedError, match="No space left"):
            engine.commit(Batch().delete(b"000000"))
        with pytest.raises(StorageFailedError, match="No space left"):
            await engine.durable()

    asyncio.run(refused())
    assert len(acknowledged) > 100
    assert all(engine.get(key) == value for key, value in acknowledged.items())
    assert len(list(engine.scan(FIRST, LAST))) >= len(acknowledged)
    engine.close()

    assert mount("-o", "remount,size=64m", small_disk)
    engine = RocksEngine.open(small_disk / "data")
    assert all(engine.get(key) == value for key, value in acknowledged.items())
    engine.commit(Batch().put(b"a", b"1"))
    asyncio.run(engine.durable())
    engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of threads")
def test_the_thread_that_compacts_comes_after_the_others_and_they_stay_as_they_are(path: Path) -> None:
    RocksEngine.open(path).close()
    told = subprocess.run([sys.executable, "-c", PRIORITIES, str(path)], capture_output=True, text=True, check=True)
    threads = [(name, int(nice)) for name, _, nice in (line.rpartition(" ") for line in told.stdout.splitlines())]
    if not any(name.startswith("rocksdb:") for name, _ in threads):
        pytest.skip("this C library does not name threads")
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert {nice for name, nice in threads if name == "rocksdb:low"} == {min(19, ours + NICE)}
    assert {nice for name, nice in threads if name != "rocksdb:low"} == {ours}


PRIORITIES = """
import os, sys
from pathlib import Path
from merganser.storage.rocks import RocksEngine

engine = RocksEngine.open(Path(sys.argv[1]))
for task in Path("/proc/self/task").iterdir():
    print((task / "comm").read_text().rstrip(), os.getpriority(os.PRIO_PROCESS, int(task.name)))
engine.close()
"""


def test_nodes_have_memtables_of_different_sizes_none_larger_than_the_bound() -> None:
    rng = random.Random(1)
    sizes = [memtable_bytes(rng) for _ in range(100)]
    assert len(set(sizes)) == 100
    assert max(sizes) <= MEMTABLE_BYTES
    assert min(sizes) >= MEMTABLE_BYTES // 2
