"""The engine's directory: whose it is, and what is known of it apart from the database.

::

    MERGANSER       its format; MERGANSER.new while the directory is being made, so that a database that
                    vanished later is not taken for one that was never there
    SYNCED          how far the log was synced (`storage.synced_mark`)
    LOST            what was synced and is gone, in words, until it has been brought back
    damaged-logs/   the log as it was found damaged, the last time that happened

The rest is RocksDB's, which leaves alone what it does not know.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path

from merganser.model.errors import ConfigurationError

FORMAT = 1
SYNCED = "SYNCED"

_MARK = "MERGANSER"
_UNFINISHED_MARK = "MERGANSER.new"
_MARK_TEXT = re.compile(r"merganser storage format ([0-9]{1,9})\n").fullmatch
_LOST = "LOST"
_DAMAGED_LOGS = "damaged-logs"
_LOG_NAME = re.compile(r"([0-9]+)\.log").fullmatch


def claim(path: Path) -> bool:
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
        mark.write(f"merganser storage format {FORMAT}\n")
        mark.flush()
        os.fsync(mark.fileno())
    return True


def finish_claim(path: Path) -> None:
    """Record, durably, that the database in ``path`` is made."""
    (path / _UNFINISHED_MARK).rename(path / _MARK)
    _sync_directory(path)


def check_unused(path: Path) -> None:
    """Check that no other process has the database open.

    Raises:
        ConfigurationError: one has.
        OSError: the system does not let us look.
    """
    file = path / "LOCK"
    if not file.exists():
        return
    with file.open("r+b") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise in_use(path) from None


def in_use(path: Path) -> ConfigurationError:
    """Return the error of a directory that another process has open."""
    return ConfigurationError(f"{path} is open in another process: stop that one, or choose another data directory")


def read_lost(path: Path) -> str | None:
    """Return what was noted as lost, None if nothing."""
    try:
        return (path / _LOST).read_text(errors="replace").strip() or "something; the note of it is empty"
    except FileNotFoundError:
        return None


def keep_lost(path: Path, what: str) -> None:
    """Note, durably, that something is lost; what was noted before stays."""
    if read_lost(path) is not None:
        return
    draft = path / f"{_LOST}.new"
    with draft.open("w") as note:
        note.write(f"{what}\n")
        note.flush()
        os.fsync(note.fileno())
    draft.rename(path / _LOST)
    _sync_directory(path)


def forget_lost(path: Path) -> None:
    """Take the note of what was lost away, durably."""
    (path / _LOST).unlink(missing_ok=True)
    _sync_directory(path)


def set_logs_aside(path: Path) -> None:
    """Keep the log as it is now for whoever wants to know what happened to it, in place of what was kept before.

    Links, not copies: a damaged disk may be a full one. RocksDB removes its own when it has taken over what it can.
    """
    aside = path / _DAMAGED_LOGS
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for number in log_sizes(path):
        name = _log_name(number)
        os.link(path / name, aside / name)


def log_sizes(path: Path) -> dict[int, int]:
    """Return the size of each file of RocksDB's log by its number, the oldest first."""
    numbers = sorted(int(match[1]) for name in os.listdir(path) if (match := _LOG_NAME(name)))
    return {number: (path / _log_name(number)).stat().st_size for number in numbers}


class LogWatch:
    """Knows the files of the log and their sizes, at the price of two calls to the system.

    Only the newest file grows. When there is another, the directory has changed, and is listed again.
    """

    def __init__(self, path: Path) -> None:
        """Watch the log of the database in ``path``."""
        self._path = path
        self._directory = str(path)
        self._changed_ns = -1
        self._older: tuple[tuple[int, int], ...] = ()
        self._newest: int | None = None
        self._newest_path = ""

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return number and size of each file, in ascending order of number; no size is more than was written.

        A file that RocksDB removes meanwhile, because nothing needs it any more, may be missing.

        Raises:
            OSError: the system does not let us look.
        """
        while True:
            try:
                return self._look()
            except FileNotFoundError:  # removed between two calls
                self._changed_ns = -1

    def _look(self) -> tuple[tuple[int, int], ...]:
        changed_ns = os.stat(self._directory).st_mtime_ns
        if changed_ns != self._changed_ns or self._newest is None:
            found = tuple(log_sizes(self._path).items())
            if not found:
                return ()
            self._older, self._newest = found[:-1], found[-1][0]
            self._newest_path = str(self._path / _log_name(self._newest))
            self._changed_ns = changed_ns
        return (*self._older, (self._newest, os.stat(self._newest_path).st_size))


def _log_name(number: int) -> str:
    return f"{number:06d}.log"


def _make(path: Path) -> None:
    """Make the directory and those above it, so that a power cut does not unmake them."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        _sync_directory(directory.parent)


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
            f"write 'merganser storage format {FORMAT}' and a newline into it"
        )
    if int(match[1]) > FORMAT:
        raise ConfigurationError(
            f"{path} is of storage format {match[1]} and this Merganser knows {FORMAT}: start the newer version"
        )
