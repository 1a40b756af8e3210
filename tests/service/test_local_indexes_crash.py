"""A process that is killed while it writes registers leaves local indexes that equal them.

This file is the killed program as well: ``python test_local_indexes_crash.py DIRECTORY SEED``.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.model.register import EMPTY, Content, Register, Version
from merganser.service.hash_trees import HashTrees
from merganser.service.local_indexes import LocalIndexes, entries
from merganser.service.topology import Topology
from merganser.sim.local_keys import local_indexer, local_keys
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from merganser.storage.rocks import RocksEngine

ROUNDS = 3
PARTITIONS = 16
NODE = NodeRecord(NodeId("a"), 1, "a:1")
TABLE = Table(TableId(7), "t", "sim", 1, b"", "a table", replication="leader")
MAP = ClusterMap(ClusterId("c"), 1, PARTITIONS, (NODE,), (1,) * PARTITIONS, (1,), (TABLE,), 10)


async def child(directory: Path, seed: int) -> None:
    dice, engine = random.Random(seed), RocksEngine.open(directory)
    topology = Topology(NODE.id, engine, MAP)
    local = LocalIndexes(engine, {"sim": local_indexer})
    trees = HashTrees(topology, engine, admit=lambda: asyncio.sleep(0), look_s=0.001, local=local)
    running = asyncio.create_task(trees.run())
    sequence = seed * 1_000_000
    while not running.done():
        sequence += 1
        name = b"k%d" % dice.randrange(20)
        key = keys.row_key(TABLE.id, token_of(name), name, b"s%d" % dice.randrange(10))
        content = EMPTY if dice.random() < 0.2 else Content(b"%d" % dice.randrange(10**6))
        after = encode_register(key, Register(Version(1, 1, sequence), content))
        trees.put(TABLE.id, topology.ring.partition_of(keys.token_in(key)), key, engine.get(key), after)
        if dice.random() < 0.3:
            await engine.durable()
            os.write(1, b"%d\n" % sequence)
    await running


def run_and_kill(directory: Path, *, seed: int, acks: int) -> None:
    arguments = [sys.executable, __file__, str(directory), str(seed)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout, start=1):
            if count == acks:
                process.kill()
    assert process.returncode == -9, "the child ended before it was killed"


def entries_that_are_right(directory: Path) -> int:
    engine = RocksEngine.open(directory)
    try:
        wanted: set[bytes] = set()
        for key, stored in engine.scan(*keys.table_range(TABLE.id)):
            value = decode_register(key, stored).value
            wanted.update(() if value is None else entries(local_keys, key, value))
        held = {keys.split_local_key(key) for key, _ in engine.scan(*keys.all_local_range())}
        assert held == wanted
        return len(held)
    finally:
        engine.close()


def test_kill_9_leaves_local_indexes_that_are_those_of_the_registers(tmp_path: Path) -> None:
    seed = random.randrange(2**20)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    for round_ in range(ROUNDS):
        run_and_kill(tmp_path / "data", seed=seed + round_, acks=random.Random(seed + round_).randint(50, 1_000))
        assert entries_that_are_right(tmp_path / "data") > 0


if __name__ == "__main__":
    asyncio.run(child(Path(sys.argv[1]), int(sys.argv[2])))
