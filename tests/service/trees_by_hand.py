"""Hash trees on an engine in memory: rows to store, and what the trees have to tell of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import ParamSpec

from merganser.core.hash_tree import LEAVES, HashTree, fingerprint, seed_of, twig_at, twig_shift
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import check_row, encode_row

PARTITIONS = 4
NODE = NodeRecord(NodeId("a"), 1, "a:1")
TABLE = Table(TableId(7), "t", "sim", 1, b"", "a table")
OTHER = Table(TableId(9), "u", "sim", 1, b"", "another")
MAP = ClusterMap(ClusterId("c"), 1, PARTITIONS, (NODE,), (1,) * PARTITIONS, (1,), (TABLE, OTHER), 10)
IMAGES = keys.metadata_key("tree|")


P = ParamSpec("P")


class Disk(MemoryEngine):
    """An engine of which a block may be unreadable, and that notes what it is asked."""

    unreadable: bytes | None = None

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.scans = 0

    def commit(self, batch: Batch) -> None:
        self.batches.append(batch)
        super().commit(batch)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.scans += 1
        for key, stored in super().scan(start, end, reverse=reverse):
            if key == self.unreadable:
                raise CorruptionError("a block is damaged")
            yield key, stored


def on_a_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Let pytest run a test that awaits."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def at_once() -> None:
    await asyncio.sleep(0)


def trees_on(engine: MemoryEngine, *, look_s: float = 1e6, twigs_from_rows: int = 2) -> HashTrees:
    topology = Topology(NODE.id, engine, MAP)
    return HashTrees(topology, engine, admit=at_once, look_s=look_s, twigs_from_rows=twigs_from_rows)


def row(number: int, version: int = 0, table: Table = TABLE) -> tuple[bytes, bytes]:
    name = b"k%d" % number
    key = keys.row_key(table.id, token_of(name), name)
    return key, encode_row(key, Row((Cell(b"", Timestamp(1000 + version, 1), b"v%d" % version),)))


def store(trees: HashTrees, engine: MemoryEngine, number: int, version: int = 0, table: Table = TABLE) -> None:
    key, after = row(number, version, table)
    trees.put(table.id, partition_of(key), key, engine.get(key), after)


def partition_of(key: bytes) -> PartitionId:
    return PartitionId((keys.token_in(key) + 2**63) >> 62)


def rebuilt(engine: Engine, table: Table = TABLE, partitions: int = PARTITIONS) -> dict[int, HashTree]:
    trees = {partition: HashTree() for partition in range(partitions)}
    for tree in trees.values():
        tree.begin_twigs()
    for key, stored in engine.scan(*keys.table_range(table.id)):
        try:
            check_row(key, stored)
        except CorruptionError:
            continue
        token = keys.token_in(key)
        partition = (token + 2**63) * partitions >> 64
        twig = twig_at(token, twig_shift(partitions))
        trees[partition].toggle(twig, fingerprint(key, stored, seed_of(table.unique_id)))
    return trees


async def agrees(trees: HashTrees, engine: MemoryEngine, table: Table = TABLE, partitions: int = PARTITIONS) -> bool:
    now = asyncio.get_running_loop().time()
    for partition, tree in rebuilt(engine, table, partitions).items():
        await trees.ready(table, PartitionId(partition), deadline=now + 60)
        if trees.nodes(table.id, PartitionId(partition), 2, range(LEAVES)) != tree.nodes(2, range(LEAVES)):
            return False
        kept = [trees.twigs(table.id, PartitionId(partition), leaf) for leaf in range(LEAVES)]
        if trees.has_twigs(table.id, PartitionId(partition)) != (None not in kept):
            return False
        if any(twigs not in (None, tree.twigs_of(leaf)) for leaf, twigs in enumerate(kept)):
            return False
    return True


async def filled(engine: MemoryEngine) -> HashTrees:
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    return trees


def with_twigs(trees: HashTrees) -> list[int]:
    return [number for number in range(PARTITIONS) if trees.has_twigs(TABLE.id, PartitionId(number))]


def images(engine: MemoryEngine) -> list[bytes]:
    return [key for key, _ in engine.scan(IMAGES, keys.prefix_end(IMAGES))]
