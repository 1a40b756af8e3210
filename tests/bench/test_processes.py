"""What servers use is counted with the children that they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from merganser.bench.processes import family, resident_mib, usage
from merganser.model.errors import ConfigurationError

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
sys.stdin.read()
child.communicate()
"""
CHILD = """
import sys, time
while time.process_time() < 0.3:
    pass
with open({path!r}, "wb") as file:
    file.write(bytes(2**20))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A process, and its child, which has used 0.3 s of CPU time."""
    command = [sys.executable, "-c", FAMILY, CHILD.format(path=str(tmp_path / "written"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child, word = process.stdout.readline().split()
        assert word == b"done"
        yield process.pid, int(child)
        process.communicate()


def test_children_are_counted_with_their_parent(parent: tuple[int, int]) -> None:
    pid, child = parent
    assert list(family([pid])) == [pid, child]
    both, alone = usage([pid]), usage([child])
    assert alone.cpu_seconds >= 0.3
    assert both.cpu_seconds > alone.cpu_seconds
    assert both.resident_bytes > alone.resident_bytes > 2**20
    assert both.written_bytes >= alone.written_bytes


def test_time_of_a_process_is_that_which_it_says_itself() -> None:
    before = time.process_time()
    seen = usage([os.getpid()]).cpu_seconds
    assert before <= seen <= time.process_time() + sum(os.times()[2:4]) + 0.02


def test_nobody_uses_nothing() -> None:
    nothing = usage([])
    assert (nothing.cpu_seconds, nothing.resident_bytes, nothing.written_bytes, nothing.read_bytes) == (0, 0, 0, 0)


def test_a_process_that_there_is_not_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--pid 4194999: there is no such process"):
        usage([4194999])


def test_resident_memory_is_in_mib() -> None:
    assert 1 < resident_mib(os.getpid()) < 10_000
