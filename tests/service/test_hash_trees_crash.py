"""A process that is killed while it writes rows and images leaves images that equal their rows.

This file is the killed program as well: ``python test_hash_trees_crash.py DIRECTORY SEED``.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from merganser.core.hash_tree import HashTree, fingerprint, seed_of, twig_at, twig_shift
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.service.tree_images import TreeImages
from merganser.storage import keys
from merganser.storage.rocks import RocksEngine
from merganser.storage.values import encode_row

ROUNDS = 4
PARTITIONS = 16
NODE = NodeRecord(NodeId("a"), 1, "a:1")
TABLE = Table(TableId(7), "t", "sim", 1, b"", "a table")
MAP = ClusterMap(ClusterId("c"), 1, PARTITIONS, (NODE,), (1,) * PARTITIONS, (1,), (TABLE,), 10)
IMAGES = keys.metadata_key("tree|")


async def child(directory: Path, seed: int) -> None:
    dice, engine = random.Random(seed), RocksEngine.open(directory)
    topology = Topology(NODE.id, engine, MAP)
    trees = HashTrees(topology, engine, admit=lambda: asyncio.sleep(0), look_s=0.001)
    running = asyncio.create_task(trees.run())
    version = seed * 1_000_000
    while not running.done():
        version += 1
        name = b"k%d" % dice.randrange(200)
        key = keys.row_key(TABLE.id, token_of(name), name)
        after = encode_row(key, Row((Cell(b"", Timestamp(version, 1), b"%d" % version),)))
        trees.put(TABLE.id, topology.ring.partition_of(keys.token_in(key)), key, engine.get(key), after)
        if dice.random() < 0.3:
            await engine.durable()
            os.write(1, b"%d\n" % version)
    await running


def run_and_kill(directory: Path, *, seed: int, acks: int) -> None:
    arguments = [sys.executable, __file__, str(directory), str(seed)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout, start=1):
            if count == acks:
                process.kill()
    assert process.returncode == -9, "the child ended before it was killed"


def images_that_were_right(directory: Path) -> int:
    engine = RocksEngine.open(directory)
    try:
        rebuilt = {partition: HashTree() for partition in range(PARTITIONS)}
        for key, stored in engine.scan(*keys.table_range(TABLE.id)):
            token = keys.token_in(key)
            twig = twig_at(token, twig_shift(PARTITIONS))
            change = fingerprint(key, stored, seed_of(TABLE.unique_id))
            rebuilt[(token + 2**63) * PARTITIONS >> 64].toggle(twig, change)
        images = list(engine.scan(IMAGES, keys.prefix_end(IMAGES)))
        for key, _ in images:
            partition = PartitionId(int.from_bytes(key[-8:], "big"))
            image = TreeImages(engine).load((TABLE.id, partition))
            assert image is not None
            assert image[0] == rebuilt[partition]
        return len(images)
    finally:
        engine.close()


def test_kill_9_leaves_no_image_that_its_rows_contradict(tmp_path: Path) -> None:
    seed = random.randrange(2**20)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    right = 0
    for round_ in range(ROUNDS):
        run_and_kill(tmp_path / "data", seed=seed + round_, acks=random.Random(seed + round_).randint(50, 1_000))
        right += images_that_were_right(tmp_path / "data")
    assert right > 0, "no image was there to be judged"


if __name__ == "__main__":
    asyncio.run(child(Path(sys.argv[1]), int(sys.argv[2])))
