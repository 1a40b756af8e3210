"""What `durable` promised is on the disk itself, not only with the operating system.

A killed process loses nothing that the kernel still holds, so only this test notices an fsync that was
left out: the engine lives in a small ext4 image, the image is copied at one moment without a sync, and
the copy is what a machine would find after a power cut at that moment.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine

ROWS = 300


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    directory = image.with_suffix(".mounted")
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        with mounted(image):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system does not let the test mount an image: {error}")
    return image


async def write(engine: RocksEngine) -> None:
    for number in range(ROWS):
        engine.commit(Batch().put(b"%06d" % number, b"%d" % number))
        await engine.durable()


def test_a_power_cut_loses_nothing_acknowledged(image: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.img"
    with mounted(image) as disk:
        engine = RocksEngine.open(disk / "some" / "data")
        asyncio.run(write(engine))
        shutil.copyfile(image, found)
        engine.close()
    with mounted(found) as disk:
        engine = RocksEngine.open(disk / "some" / "data")
        assert list(engine.scan(b"", b"\xff")) == [(b"%06d" % number, b"%d" % number) for number in range(ROWS)]
        engine.close()
