"""A log that lost what had been synced is found out, in this life and the next; a crash alone never looks like that."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rocksdict import DBRecoveryMode, Options

from merganser.model.errors import CorruptionError
from merganser.storage import rocks
from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine
from merganser.storage.synced_mark import Synced, SyncedMark

ROWS = 300
BYTES = 100


def key(number: int) -> bytes:
    return b"%06d" % number


def write(engine: RocksEngine, numbers: range) -> None:
    for number in numbers:
        engine.commit(Batch().put(key(number), bytes(BYTES)))
    asyncio.run(engine.durable())


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A directory as kill -9 left it: 300 rows, all synced, all in the log."""
    engine = RocksEngine.open(tmp_path / "running")
    write(engine, range(ROWS))
    shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    engine.close()
    return tmp_path / "crashed"


def the_log(path: Path) -> Path:
    (log,) = path.glob("*.log")
    return log


def found(path: Path) -> tuple[list[bytes], str | None]:
    """Open, and return what is there and what the engine calls lost."""
    engine = RocksEngine.open(path)
    keys = [key for key, _ in engine.scan(b"", b"\xff")]
    lost = engine.lost
    engine.close()
    return keys, lost


def expect_lost(path: Path, words: str, *, below: int = ROWS) -> None:
    """What is left is a prefix, and every life from now on says that something is lost."""
    keys, lost = found(path)
    assert keys == [key(number) for number in range(len(keys))]
    assert len(keys) < below
    assert lost is not None
    assert words in lost
    assert found(path) == (keys, lost)


def test_a_crash_alone_loses_nothing(crashed: Path) -> None:
    for _ in range(3):
        assert found(crashed) == ([key(number) for number in range(ROWS)], None)


def test_a_log_that_was_cut_anywhere_is_found_out(crashed: Path, tmp_path: Path) -> None:
    size = the_log(crashed).stat().st_size
    for place in [0, 1, 6, 7, 8, size // 3, 32_767, 32_768, 32_769, size - 8, size - 1]:
        copy = tmp_path / f"cut-{place}"
        shutil.copytree(crashed, copy)
        os.truncate(the_log(copy), min(place, size - 1))
        expect_lost(copy, "bytes, and")


def test_a_flipped_bit_anywhere_in_the_log_is_found_out(crashed: Path, tmp_path: Path) -> None:
    dice = random.Random(7)
    good = the_log(crashed).read_bytes()
    for place in [0, 4, 6, 7, *(dice.randrange(len(good)) for _ in range(15)), len(good) - 1]:
        copy = tmp_path / f"flip-{place}"
        shutil.copytree(crashed, copy)
        damaged = bytearray(good)
        damaged[place] ^= 1 << dice.randrange(8)
        the_log(copy).write_bytes(damaged)
        expect_lost(copy, "log")


def test_a_flipped_bit_behind_a_mark_that_a_power_cut_set_back_is_found_out(crashed: Path) -> None:
    mark = SyncedMark(crashed / "SYNCED")
    mark.restart(Synced(0))
    mark.close()
    damaged = bytearray(the_log(crashed).read_bytes())
    damaged[5_000] ^= 1
    the_log(crashed).write_bytes(damaged)
    expect_lost(crashed, "the log is damaged")


def test_the_damaged_log_is_kept_for_who_wants_to_see_it(crashed: Path) -> None:
    damaged = bytearray(the_log(crashed).read_bytes())
    damaged[5_000] ^= 1
    name = the_log(crashed).name
    the_log(crashed).write_bytes(damaged)
    found(crashed)
    assert (crashed / "damaged-logs" / name).read_bytes() == damaged


def test_a_log_that_was_removed_is_found_out(crashed: Path) -> None:
    the_log(crashed).unlink()
    expect_lost(crashed, "has 0 bytes, and", below=1)


def test_a_mark_that_is_gone_or_damaged_proves_nothing_and_so_counts_as_loss(crashed: Path, tmp_path: Path) -> None:
    spoils: dict[str, Callable[[Path], object]] = {
        "gone": Path.unlink,
        "empty": lambda mark: os.truncate(mark, 0),
        "zeroed": lambda mark: mark.write_bytes(bytes(8192)),
        "overwritten": lambda mark: mark.write_bytes(b"\1" * 8192),
    }
    for name, spoil in spoils.items():
        copy = tmp_path / name
        shutil.copytree(crashed, copy)
        spoil(copy / "SYNCED")
        keys, lost = found(copy)
        assert len(keys) == ROWS
        assert lost is not None
        assert "SYNCED" in lost
        assert found(copy) == (keys, lost)


@pytest.mark.parametrize("slot", [0, 4096])
def test_one_torn_slot_of_the_mark_is_no_loss(crashed: Path, slot: int) -> None:
    mark = crashed / "SYNCED"
    content = bytearray(mark.read_bytes())
    content[slot] ^= 1
    mark.write_bytes(content)
    assert found(crashed) == ([key(number) for number in range(ROWS)], None)


def test_what_is_written_after_a_loss_does_not_hide_it(crashed: Path) -> None:
    os.truncate(the_log(crashed), 5_000)
    engine = RocksEngine.open(crashed)
    write(engine, range(1_000, 1_000 + 2 * ROWS))
    engine.close()
    assert found(crashed)[1] is not None


def test_a_second_loss_after_the_first_is_found_out_again(crashed: Path, tmp_path: Path) -> None:
    os.truncate(the_log(crashed), 20_000)
    engine = RocksEngine.open(crashed)
    asyncio.run(engine.made_whole())
    assert engine.lost is None
    write(engine, range(1_000, 1_010))  # far below the first mark
    again = tmp_path / "again"
    shutil.copytree(crashed, again)
    engine.close()
    assert found(crashed)[1] is None
    newest = max(again.glob("*.log"))
    os.truncate(newest, newest.stat().st_size - 1)
    assert found(again)[1] is not None


def test_loss_that_somebody_else_proved_is_remembered_until_it_is_made_whole(tmp_path: Path) -> None:
    engine = RocksEngine.open(tmp_path / "data")
    asyncio.run(engine.mark_lost("the whole directory is a copy from the past"))
    asyncio.run(engine.mark_lost("a later reason"))
    engine.close()
    assert found(tmp_path / "data")[1] == "the whole directory is a copy from the past"
    engine = RocksEngine.open(tmp_path / "data")
    asyncio.run(engine.made_whole())
    engine.close()
    assert found(tmp_path / "data")[1] is None


def test_a_table_file_that_is_gone_refuses_to_open_and_says_what_to_do(tmp_path: Path) -> None:
    engine = RocksEngine.open(tmp_path / "data")
    write(engine, range(ROWS))
    engine.close()  # writes the rows out
    (table,) = (tmp_path / "data").glob("*.sst")
    table.unlink()
    for _ in range(2):
        with pytest.raises(CorruptionError, match="start the node once with --rebuild"):
            RocksEngine.open(tmp_path / "data")
    assert not (tmp_path / "data" / "LOST").exists()


@pytest.fixture
def two_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a crash left it while the older of two logs was still needed."""
    options = rocks._options

    def slow_to_flush(recovery: DBRecoveryMode, *, is_new: bool = False) -> Options:
        made = options(recovery, is_new=is_new)
        made.set_write_buffer_size(70_000)
        made.set_max_write_buffer_number(8)
        made.set_min_write_buffer_number_to_merge(6)
        return made

    monkeypatch.setattr(rocks, "_options", slow_to_flush)
    engine = RocksEngine.open(tmp_path / "running")
    write(engine, range(800))
    shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    engine.close()
    assert len(list((tmp_path / "crashed").glob("*.log"))) == 2
    return tmp_path / "crashed"


@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, lambda log: os.truncate(log, 0), lambda log: os.truncate(log, 30_000)],
    ids=["gone", "empty", "cut"],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_flaw_in_either_of_two_logs_is_found_out(two_logs: Path, spoil: Callable[[Path], None], which: int) -> None:
    spoil(sorted(two_logs.glob("*.log"))[which])
    _, lost = found(two_logs)
    assert lost is not None


def test_two_logs_that_are_whole_are_no_loss(two_logs: Path) -> None:
    assert found(two_logs) == ([key(number) for number in range(800)], None)


def test_a_log_that_went_after_the_manifest_had_told_its_end_is_found_out(tmp_path: Path) -> None:
    engine = RocksEngine.open(tmp_path / "running")
    write(engine, range(10))
    engine._database.flush()
    write(engine, range(10, 20))
    other = Batch().put(b"ingested", b"")
    engine.commit(other)
    asyncio.run(engine.durable())
    shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    sequence = engine._database.latest_sequence_number()
    engine.close()
    os.truncate(max((tmp_path / "crashed").glob("*.log")), 0)
    mark = SyncedMark(tmp_path / "crashed" / "SYNCED")  # as if the manifest had the number of the last change
    assert mark.synced is not None
    assert mark.synced.sequence == sequence
    mark.restart(Synced(10, mark.synced.logs))
    mark.close()
    assert found(tmp_path / "crashed")[1] is not None


def test_logs_that_were_flushed_and_removed_are_no_loss(tmp_path: Path) -> None:
    engine = RocksEngine.open(tmp_path / "running")
    write(engine, range(ROWS))
    engine._database.flush()  # the mark still tells of the log that this makes needless
    shutil.copytree(tmp_path / "running", tmp_path / "crashed")
    engine.close()
    assert found(tmp_path / "crashed") == ([key(number) for number in range(ROWS)], None)


def test_the_mark_never_runs_ahead_of_what_an_fsync_covered(tmp_path: Path) -> None:
    engine = RocksEngine.open(tmp_path / "data")
    write(engine, range(10))
    engine.commit(Batch().put(b"unsynced", b""))
    mark = SyncedMark(tmp_path / "data" / "SYNCED")
    assert mark.synced is not None
    assert mark.synced.sequence == 10
    ((number, size),) = mark.synced.logs
    assert size < (tmp_path / "data" / f"{number:06d}.log").stat().st_size
    mark.close()
    engine.close()
