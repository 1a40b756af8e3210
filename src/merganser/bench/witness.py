"""When the machine itself was slow, whatever was measured on it: a shared host lends its cores to others.

One process a core does the same small piece of work every few milliseconds, ahead of everything else that the kernel
has to run (``SCHED_FIFO``), and times it. What is measured cannot delay it, so where it was slow, the core was. On
such a machine a loop that does nothing but count was seen to stand nearly still for a tenth of a second every one and a
half, on the processor all that time as the kernel tells it, with no steal noted.

Without the right to that place in the queue (CAP_SYS_NICE) nothing is told: an ordinary process would take the load
itself for a slow machine.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Self

import msgspec

from merganser.model.errors import ConfigurationError

_EVERY_S = 0.004
_WORK_TURNS = 800
"""Some 40 µs: a hundredth of a core."""
SLOW = 3.0
"""Times the median piece of work, or it began as late as this many periods."""
SHORTEST_S = 0.01
"""Of pieces on end; what is over sooner is an interrupt, or a cache that the load has filled."""
APART_S = 0.05
"""Slow moments that are no further apart are one."""

_READY = b"ready\n"
_END_S = 30.0

LEAD_S = 0.1
"""Requests that began so long before a slow moment may have lain in it."""
SETTLE_S = 0.15
"""After it, what came meanwhile is still being served."""


class Slow(msgspec.Struct, frozen=True):
    """A time in which a core was slow, in seconds of the monotonic clock."""

    begin: float
    end: float


class Witness:
    """Watches the machine while it is entered; then `slow` tells what it saw."""

    def __init__(self) -> None:
        """Prepare; nothing is watched yet."""
        self.is_allowed = _may_go_first()
        """Whether anything can be seen: if not, all time is taken for clear."""
        self.slow: tuple[Slow, ...] = ()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Watch each core; returns once each is watched.

        Raises:
            ConfigurationError: one cannot be.
        """
        for core in sorted(os.sched_getaffinity(0)) if self.is_allowed else ():
            command = (sys.executable, "-m", "merganser.bench.witness", str(core))
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != _READY:
                self._end()
                raise ConfigurationError("the speed of this machine's cores cannot be watched")
        return self

    def __exit__(self, *_error: object) -> None:
        """Watch no longer.

        Raises:
            ConfigurationError: a core was not watched to the end.
        """
        said = self._end()
        if any(process.returncode for process in self._processes):
            raise ConfigurationError("what watched the speed of this machine's cores has failed")
        self.slow = joined(
            (one for seen in said for one in msgspec.json.decode(seen, type=list[Slow])), apart_s=APART_S
        )

    def _end(self) -> list[bytes]:
        try:
            return [process.communicate(timeout=_END_S)[0] for process in self._processes]
        except subprocess.TimeoutExpired:
            raise ConfigurationError("what watched the speed of this machine's cores does not end") from None
        finally:
            for process in self._processes:
                process.kill()


def joined(times: Iterable[Slow], *, apart_s: float) -> tuple[Slow, ...]:
    """Return ``times`` in order, those that overlap or are less than ``apart_s`` apart made one."""
    found: list[Slow] = []
    for one in sorted(times, key=lambda slow: slow.begin):
        if found and one.begin - found[-1].end < apart_s:
            found[-1] = Slow(found[-1].begin, max(found[-1].end, one.end))
        else:
            found.append(one)
    return tuple(found)


def is_clear(when: float, slow: Sequence[Slow]) -> bool:
    """Tell whether a request that began at ``when`` met a machine that was not slow then.

    How long it took has no part in that: of the requests that began in clear time the slowest count like all others.
    """
    return not any(one.begin - LEAD_S <= when < one.end + SETTLE_S for one in slow)


def found_slow(pieces: Sequence[tuple[float, float, float]]) -> list[Slow]:
    """Return when a core was slow, by when each piece of work was due, began and ended."""
    usual = median(end - begin for _due, begin, end in pieces) if pieces else 0.0
    slow = [Slow(due, end) for due, begin, end in pieces if end - begin > SLOW * usual or begin - due > SLOW * _EVERY_S]
    return [one for one in joined(slow, apart_s=2 * _EVERY_S) if one.end - one.begin >= SHORTEST_S]


def _may_go_first() -> bool:
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, before, os.sched_param(0))
    return True


def _watch(core: int) -> None:
    """Watch until standard input ends, then say what was seen."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    gc.disable()
    os.set_blocking(sys.stdin.fileno(), False)
    pieces: list[tuple[float, float, float]] = []
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    due = time.monotonic()
    while not _is_over():
        due += _EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.monotonic()
        _work()
        end = time.monotonic()
        pieces.append((due, begin, end))
        due = max(due, end - _EVERY_S)
    sys.stdout.buffer.write(msgspec.json.encode(found_slow(pieces)))


def _is_over() -> bool:
    try:
        return not os.read(sys.stdin.fileno(), 1)
    except BlockingIOError:
        return False


def _work() -> None:
    left = _WORK_TURNS
    while left:
        left -= 1


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
