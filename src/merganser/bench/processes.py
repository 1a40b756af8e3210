"""What server processes use, with the children that they start: CPU time, memory, bytes written (Linux, /proc)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from merganser.model.errors import ConfigurationError

MIB = 1024 * 1024
_TICKS_S = os.sysconf("SC_CLK_TCK")
_PROCESS_CLOCK = 2
"""What Linux makes of a process id the clock of its CPU time with, to the nanosecond (clock_getcpuclockid(3))."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(msgspec.Struct, frozen=True):
    """Of several processes and all their children together, so far."""

    cpu_seconds: float
    """User and system; children that have ended, and were waited for, count too, in steps of 10 ms."""
    resident_bytes: int
    """What each has resident, added up: pages that several share count for each."""
    written_bytes: int
    """Sent to the disk by those that live, as the kernel counts ``write_bytes``: nothing where the disk is memory."""
    read_bytes: int
    """Fetched from the disk by those that live: nothing where the page cache had it."""


def usage(pids: Iterable[int]) -> Usage:
    """Return what processes and their children use.

    Raises:
        ConfigurationError: there is no such process, or it is another user's.
    """
    found = [_of_one(pid) for pid in family(pids)]
    return Usage(
        cpu_seconds=sum(one.cpu_seconds for one in found),
        resident_bytes=sum(one.resident_bytes for one in found),
        written_bytes=sum(one.written_bytes for one in found),
        read_bytes=sum(one.read_bytes for one in found),
    )


def family(pids: Iterable[int]) -> Iterator[int]:
    """Yield each of ``pids``, and its children, and theirs.

    Raises:
        ConfigurationError: one of ``pids`` is no process.
    """
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            raise ConfigurationError(f"--pid {pid}: there is no such process")
        yield pid
        yield from _descendants(pid)


def resident_mib(pid: int) -> float:
    """Return how much memory one process has resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / MIB


def _descendants(pid: int) -> Iterator[int]:
    try:
        lists = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it has ended meanwhile
        return
    for child in " ".join(lists).split():
        yield int(child)
        yield from _descendants(int(child))


def _of_one(pid: int) -> Usage:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        io = Path(f"/proc/{pid}/io").read_text()
        spent_s = time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)
    except (FileNotFoundError, ProcessLookupError):  # a child that ended meanwhile, which its parent has waited for
        return Usage(0.0, 0, 0, 0)
    except OSError as error:
        raise ConfigurationError(f"--pid {pid}: what it uses cannot be read: {error}") from None
    ended_s = sum(map(int, fields[13:15])) / _TICKS_S
    moved = dict(line.split(": ") for line in io.splitlines())
    return Usage(spent_s + ended_s, int(fields[21]) * _PAGE_BYTES, int(moved["write_bytes"]), int(moved["read_bytes"]))
