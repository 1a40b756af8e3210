"""What a node keeps for a snapshot: named files of named checkpoints, and nothing for ever."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest

from merganser.model.errors import CorruptionError, RequestError
from merganser.node.checkpoints import KEPT_S, Checkpoints
from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine

ID = "0123456789abcdef"


def kept(tmp_path: Path, *, age_s: float = 0.0) -> Path:
    """Put a checkpoint of one file in place, as an earlier life left it."""
    path = tmp_path / "checkpoints" / ID
    path.mkdir(parents=True)
    (path / "000001.sst").write_bytes(b"content")
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_a_file_is_read_in_parts_and_its_checksum_told(tmp_path: Path) -> None:
    kept(tmp_path)

    async def work() -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.files(ID) == {"000001.sst": 7}
        assert await checkpoints.read(ID, "000001.sst", 2, 3) == b"nte"
        assert await checkpoints.read(ID, "000001.sst", 5, 100) == b"nt"
        for _ in range(2):
            told = await checkpoints.checksum(ID, "000001.sst", bytes_per_s=1e9)
            assert told == hashlib.sha256(b"content").hexdigest()
        checkpoints.close()

    asyncio.run(work())


def test_nothing_else_of_the_disk_can_be_read(tmp_path: Path) -> None:
    kept(tmp_path)
    (tmp_path / "checkpoints" / "secret").write_bytes(b"secret")

    async def work() -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        for name in ("../secret", "/etc/passwd", "", ".", "..", "000002.sst"):
            with pytest.raises(RequestError, match="has no file"):
                await checkpoints.read(ID, name, 0, 1)
        for checkpoint in ("..", "../..", "", "secret"):
            with pytest.raises(RequestError, match="hexadecimal digits"):
                checkpoints.files(checkpoint)
        with pytest.raises(RequestError, match="there is no checkpoint"):
            checkpoints.files("fedcba9876543210")
        for offset, size in ((-1, 1), (0, 0), (0, 2**30)):
            with pytest.raises(RequestError, match="are read at once"):
                await checkpoints.read(ID, "000001.sst", offset, size)
        checkpoints.close()

    asyncio.run(work())


def test_a_checkpoint_outlives_a_restart_but_not_by_hours_and_not_half_made(tmp_path: Path) -> None:
    path = kept(tmp_path, age_s=KEPT_S / 2)
    (tmp_path / "checkpoints" / f"{ID}.making").mkdir()

    async def started() -> None:
        Checkpoints(tmp_path / "checkpoints").close()

    asyncio.run(started())
    assert [left.name for left in (tmp_path / "checkpoints").iterdir()] == [ID]
    os.utime(path, (time.time() - KEPT_S - 1, time.time() - KEPT_S - 1))
    asyncio.run(started())
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_checkpoint_that_tells_of_no_cluster_is_not_kept(tmp_path: Path) -> None:
    async def work() -> None:
        engine = RocksEngine.open(tmp_path / "database")
        engine.commit(Batch().put(b"key", b"value"))
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        with pytest.raises(CorruptionError, match="holds no cluster map"):
            await checkpoints.take(ID, engine)
        assert list((tmp_path / "checkpoints").iterdir()) == []
        checkpoints.close()
        engine.close()

    asyncio.run(work())
