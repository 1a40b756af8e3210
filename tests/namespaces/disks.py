"""A small disk of its own for a node: ext4 in a file, through a loop device. It can fill, and lose power."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

DISK_MIB = 64
BALLOON = "balloon"
SNAPSHOT_TRIES = 20


class Disk:
    """One mounted disk; a context manager that unmounts it."""

    def __init__(self, directory: Path, *, size_mib: int = DISK_MIB) -> None:
        """Prepare a disk that is mounted at ``directory``; its images lie beside it."""
        self.directory = directory
        self._size_mib = size_mib
        self._lives = 0

    def __enter__(self) -> Self:
        """Make the file system and mount it.

        Raises:
            subprocess.CalledProcessError: this system does not let us.
        """
        self.directory.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(self._size_mib * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount it and remove its image."""
        self._unmount()
        self._image.unlink(missing_ok=True)

    def leave(self, free_mib: int) -> None:
        """Leave so much room, or what there is if that is less."""
        found = os.statvfs(self.directory)
        size = found.f_bavail * found.f_frsize - free_mib * 2**20
        with (self.directory / BALLOON).open("wb") as balloon:
            os.posix_fallocate(balloon.fileno(), 0, max(1, size))

    def fill(self) -> None:
        """Leave no room."""
        balloon = os.open(self.directory / BALLOON, os.O_WRONLY | os.O_CREAT)
        try:
            chunk = b"\1" * 2**20
            while chunk:
                try:
                    os.write(balloon, chunk)
                except OSError:  # no space left: try with less
                    chunk = chunk[: len(chunk) // 2]
            os.fsync(balloon)
        finally:
            os.close(balloon)

    def free(self) -> None:
        """Make room again."""
        (self.directory / BALLOON).unlink()

    def snapshot(self) -> Path:
        """Return an image of what is on the disk at one moment, without what the system still holds back.

        The copy is made twice: if both are equal, nothing changed between the end of the first and the begin of
        the second, so each shows that moment.
        """
        first, second = self._image.with_suffix(".first"), self._image.with_suffix(".second")
        for _ in range(SNAPSHOT_TRIES):
            shutil.copyfile(self._image, first)
            shutil.copyfile(self._image, second)
            if filecmp.cmp(first, second, shallow=False):
                second.unlink()
                return first
        raise AssertionError("the disk did not keep still")

    def come_back_as(self, image: Path) -> None:
        """Go on with ``image`` in place of what is there; no process may use the disk."""
        self._unmount()
        self._image.unlink()
        self._lives += 1
        image.rename(self._image)
        self._mount()

    @property
    def _image(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}-{self._lives}.img")

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.directory))

    def _unmount(self) -> None:
        if self.directory.is_mount():
            _run("umount", str(self.directory))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
