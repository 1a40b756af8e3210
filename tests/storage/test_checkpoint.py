"""A checkpoint holds the database as it was, whatever becomes of that, and its damage is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from merganser.model.errors import CorruptionError, StorageFailedError
from merganser.storage.checkpoint import CheckpointReader
from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine

END = b"\xff"


def rows(count: int, value: bytes = b"v" * 100) -> Batch:
    batch = Batch()
    for number in range(count):
        batch.put(b"%06d" % number, value)
    return batch


def checkpointed(tmp_path: Path, afterwards: Callable[[RocksEngine], None]) -> Path:
    """Return a checkpoint of a thousand rows, taken before ``afterwards`` was done to the database."""

    async def work() -> None:
        engine = RocksEngine.open(tmp_path / "database")
        engine.commit(rows(1000))
        await engine.flush()
        engine.commit(Batch().put(b"late", b"not flushed yet"))
        await engine.checkpoint(tmp_path / "checkpoint")
        afterwards(engine)
        await engine.durable()
        engine.close()

    asyncio.run(work())
    return tmp_path / "checkpoint"


def test_a_checkpoint_holds_what_was_committed_before_and_nothing_later(tmp_path: Path) -> None:
    def afterwards(engine: RocksEngine) -> None:
        engine.commit(Batch().delete_range(b"", b"000500"))
        engine.commit(Batch().put(b"later", b"than that"))

    reader = CheckpointReader(checkpointed(tmp_path, afterwards))
    found = list(reader.scan(b"", END))
    assert len(found) == 1001
    assert found[0] == (b"000000", b"v" * 100)
    assert (reader.get(b"late"), reader.get(b"later")) == (b"not flushed yet", None)
    assert list(reader.scan(b"000001", b"000003", reverse=True)) == [(b"000002", b"v" * 100), (b"000001", b"v" * 100)]
    assert list(reader.scan(b"b", b"a")) == []
    reader.close()


def test_a_damaged_block_is_never_a_short_scan(tmp_path: Path) -> None:
    path = checkpointed(tmp_path, lambda _engine: None)
    largest = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[500] ^= 1
    largest.write_bytes(content)
    reader = CheckpointReader(path)
    with pytest.raises(CorruptionError, match="cannot be read"):
        list(reader.scan(b"", END))
    reader.close()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptionError, match="cannot be opened"):
        CheckpointReader(tmp_path)


def test_a_checkpoint_that_cannot_be_made_leaves_the_engine_as_it_was(tmp_path: Path) -> None:
    async def work() -> None:
        engine = RocksEngine.open(tmp_path / "database")
        engine.commit(rows(10))
        (tmp_path / "taken").mkdir()
        with pytest.raises(StorageFailedError):
            await engine.checkpoint(tmp_path / "taken")
        engine.commit(rows(20))
        await engine.durable()
        assert len(list(engine.scan(b"", END))) == 20
        engine.close()

    asyncio.run(work())
