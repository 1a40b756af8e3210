"""A process that writes to one table until it is killed; tests that are such a program say what it writes."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.ids import ClusterId, NodeId
from merganser.service.hash_trees import HashTrees
from merganser.service.local_indexes import LocalIndexes
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.rocks import RocksEngine

PARTITIONS = 16
NODE = NodeRecord(NodeId("a"), 1, "a:1")


async def write_for_ever(
    directory: Path,
    seed: int,
    table: Table,
    drawn: Callable[[random.Random, int], tuple[bytes, bytes]],
    *,
    local: Callable[[RocksEngine], LocalIndexes] | None = None,
) -> None:
    """Store row after row of ``table``, each a key and a value ``drawn`` with a number that rises, and tell of some."""
    dice, engine = random.Random(seed), RocksEngine.open(directory)
    owners = (1,) * PARTITIONS
    topology = Topology(NODE.id, engine, ClusterMap(ClusterId("c"), 1, PARTITIONS, (NODE,), owners, (1,), (table,), 10))
    indexes = None if local is None else local(engine)
    trees = HashTrees(topology, engine, admit=lambda: asyncio.sleep(0), look_s=0.001, local=indexes)
    running = asyncio.create_task(trees.run())
    number = seed * 1_000_000
    while not running.done():
        number += 1
        key, after = drawn(dice, number)
        trees.put(table.id, topology.ring.partition_of(keys.token_in(key)), key, engine.get(key), after)
        if dice.random() < 0.3:
            await engine.durable()
            os.write(1, b"%d\n" % number)
    await running


def killed_again_and_again(program: str, directory: Path, *, rounds: int) -> Iterator[None]:
    """Run ``program`` (its arguments: the directory, a seed) and kill it, some time after it began, once a round."""
    first = random.randrange(2**20)
    print(f"seed {first}")  # noqa: T201 - pytest shows it when the test fails
    for seed in range(first, first + rounds):
        _run_and_kill([sys.executable, program, str(directory), str(seed)], acks=random.Random(seed).randint(50, 1_000))
        yield


def _run_and_kill(command: list[str], *, acks: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # it imports what stands beside this
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout, start=1):
            if count == acks:
                process.kill()
    assert process.returncode == -9, "the child ended before it was killed"
