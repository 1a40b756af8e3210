"""A process that is killed at any moment has lost nothing it acknowledged.

This file is the killed program as well: ``python test_rocks_crash.py DIRECTORY FIRST`` writes numbered
values from several writers and prints a line for each after `durable` returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine

WRITERS = 8
ROUND = 10_000_000


async def write_for_ever(engine: RocksEngine, writer: int, first: int) -> None:
    """Write two keys a batch, so that a torn batch would show."""
    number = first
    while True:
        value = b"%d of %d" % (number, writer)
        engine.commit(Batch().put(b"all/%d/%d" % (writer, number), value).put(b"newest/%d" % writer, b"%d" % number))
        await engine.durable()
        os.write(1, b"%d %d\n" % (writer, number))
        number += 1


async def child(directory: Path, first: int) -> None:
    engine = RocksEngine.open(directory)
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write_for_ever(engine, writer, first))


def run_and_kill(directory: Path, *, first: int, acks: int) -> dict[int, int]:
    """Let the child write until ``acks`` lines came, kill it, and return each writer's last acknowledged number."""
    last: dict[int, int] = {}
    arguments = [sys.executable, __file__, str(directory), str(first)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout, start=1):
            if count == acks:
                process.kill()
            if line.endswith("\n"):
                writer, number = map(int, line.split())
                last[writer] = number
    assert process.returncode == -9, "the child ended before it was killed"
    return last


def check(directory: Path, *, first: int, last: dict[int, int]) -> None:
    engine = RocksEngine.open(directory)
    try:
        assert engine.lost is None
        for writer, acknowledged in last.items():
            newest = int(engine.get(b"newest/%d" % writer) or b"-1")
            assert newest >= acknowledged
            for number in range(first, newest + 1):
                assert engine.get(b"all/%d/%d" % (writer, number)) == b"%d of %d" % (number, writer)
            assert engine.get(b"all/%d/%d" % (writer, newest + 1)) is None, "half a batch survived"
    finally:
        engine.close()


def kill_again_and_again(directory: Path, *, rounds: int, acks_max: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    dice = random.Random(seed)
    lives = []
    for round_ in range(rounds):
        first = round_ * ROUND
        lives.append((first, run_and_kill(directory, first=first, acks=dice.randint(1, acks_max))))
        check(directory, first=first, last=lives[-1][1])
    for first, last in lives:
        for writer, acknowledged in last.items():
            check_old(directory, writer=writer, numbers=range(first, acknowledged + 1))


def check_old(directory: Path, *, writer: int, numbers: range) -> None:
    engine = RocksEngine.open(directory)
    try:
        assert all(engine.get(b"all/%d/%d" % (writer, number)) for number in numbers)
    finally:
        engine.close()


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "data", rounds=5, acks_max=2_000)


@pytest.mark.soak
def test_kill_9_loses_nothing_acknowledged_over_many_rounds(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "data", rounds=40, acks_max=20_000)


if __name__ == "__main__":
    asyncio.run(child(Path(sys.argv[1]), int(sys.argv[2])))
