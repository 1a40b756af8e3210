"""The hash trees of a node: kept up, kept on disk, rebuilt, forgotten."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import ParamSpec

import pytest

from merganser.core.hash_tree import LEAVES, HashTree, fingerprint, seed_of, twig_at, twig_shift
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import CorruptionError, StorageFailedError, UnavailableError
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service import hash_trees, tree_images
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import check_row, encode_row
from service.plays import ALL, damage, key_of, member, now_s, plant, put, settled, simulated, started, until

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


def rebuilt(engine: MemoryEngine, table: Table = TABLE, partitions: int = PARTITIONS) -> dict[int, HashTree]:
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


def with_twigs(trees: HashTrees) -> list[int]:
    return [number for number in range(PARTITIONS) if trees.has_twigs(TABLE.id, PartitionId(number))]


def images(engine: MemoryEngine) -> list[bytes]:
    return [key for key, _ in engine.scan(IMAGES, keys.prefix_end(IMAGES))]


@on_a_loop
async def test_writes_rewrites_and_deletes_leave_the_tree_of_what_is_stored() -> None:
    engine, dice = MemoryEngine(), random.Random(1)
    trees = trees_on(engine)
    for partition in range(PARTITIONS):
        await trees.ready(TABLE, PartitionId(partition), deadline=now_s() + 60)
    for version in range(500):
        if dice.random() < 0.8:
            store(trees, engine, dice.randrange(40), version)
        else:
            key, _ = row(dice.randrange(40))
            trees.write([(TABLE.id, key, engine.get(key), None)])
    assert await agrees(trees, engine)


@on_a_loop
async def test_an_image_is_kept_at_close_and_the_next_life_counts_nothing() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    assert images(engine) == []
    await trees.close()
    assert len(images(engine)) == PARTITIONS
    again = trees_on(engine)
    assert await agrees(again, engine)
    assert again.counted_rows == 0
    assert with_twigs(again) == [*range(PARTITIONS)]


@on_a_loop
async def test_only_partitions_of_many_rows_have_twigs_and_get_them_once_they_have_grown() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine, twigs_from_rows=20)
    for number in range(8):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    assert with_twigs(trees) == []
    for number in range(40, 160):
        store(trees, engine, number)
    growing = asyncio.create_task(trees._grow_twigs())
    version = 0
    while not growing.done():  # writes before and behind the leaf that it has come to
        await asyncio.sleep(0)
        version += 1
        store(trees, engine, version * 7 % 200, version)
    assert version > LEAVES
    assert with_twigs(trees) == [*range(PARTITIONS)]
    assert await agrees(trees, engine)


@on_a_loop
async def test_an_image_of_a_quiet_partition_has_no_twigs_and_gets_them_at_the_close() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    for _ in range(2):
        await trees._keep_images()
    cut = trees_on(engine)
    assert (with_twigs(cut), cut.counted_rows) == ([], 0)
    await cut._grow_twigs()
    assert with_twigs(cut) == [*range(PARTITIONS)]
    assert await agrees(cut, engine)
    await trees.close()
    again = trees_on(engine)
    assert with_twigs(again) == [*range(PARTITIONS)]
    assert await agrees(again, engine)


@on_a_loop
async def test_a_block_that_cannot_be_read_leaves_a_tree_without_twigs() -> None:
    engine = Disk()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    for _ in range(2):
        await trees._keep_images()
    again = trees_on(engine)
    assert with_twigs(again) == []
    engine.unreadable = row(3)[0]
    await again._grow_twigs()
    assert len(with_twigs(again)) == PARTITIONS - 1
    engine.unreadable = None
    await again._grow_twigs()
    assert len(with_twigs(again)) == PARTITIONS
    assert await agrees(again, engine)


@on_a_loop
async def test_the_first_change_deletes_the_image_in_its_own_batch_and_no_other_image() -> None:
    engine = Disk()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    await trees.close()
    again = trees_on(engine)
    engine.batches.clear()
    store(again, engine, 3, version=1)
    store(again, engine, 3, version=2)
    assert [len(batch.operations) for batch in engine.batches] == [2, 1]
    assert len(images(engine)) == PARTITIONS - 1
    assert await agrees(again, engine)
    assert again.counted_rows == 0, "the image was good until that change, and was taken before it"


@on_a_loop
async def test_an_image_is_written_once_a_partition_is_quiet_and_not_before() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    await trees._count_all()
    await trees._keep_images()
    assert images(engine) == [], "all have changed since the last look"
    store(trees, engine, 0, version=1)
    await trees._keep_images()
    assert len(images(engine)) == PARTITIONS - 1
    await trees._keep_images()
    assert len(images(engine)) == PARTITIONS
    assert await agrees(trees_on(engine), engine)


@pytest.mark.parametrize("bit", [0, 8 * 7, 8 * 40 + 3])
@on_a_loop
async def test_a_damaged_image_is_thrown_away_and_the_partition_counted(bit: int) -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    await trees.close()
    engine.rot(images(engine)[0], bit=bit)
    again = trees_on(engine)
    assert await agrees(again, engine)
    assert 0 < again.counted_rows < 50
    assert len(images(engine)) == PARTITIONS - 1


@on_a_loop
async def test_a_rebuild_in_slices_is_right_whatever_is_written_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_trees, "SLICE_ROWS", 3)
    for seed in range(60):
        engine, dice = MemoryEngine(), random.Random(seed)
        for number in range(0, 40, 2):
            engine.commit(Batch().put(*row(number)))
        trees = trees_on(engine)
        for version in range(60):
            key, after = row(dice.randrange(40), version + 1)
            trees.write([(TABLE.id, key, engine.get(key), after if dice.random() < 0.7 else None)])
            place = (TABLE.id, PartitionId(dice.randrange(PARTITIONS)))
            if not trees.is_ready(*place):
                trees._count_on(place)
        assert await agrees(trees, engine), seed


@on_a_loop
async def test_a_tree_that_is_not_ready_tells_nothing() -> None:
    engine = MemoryEngine()
    engine.commit(Batch().put(*row(1)))
    trees = trees_on(engine)
    with pytest.raises(UnavailableError, match="still being counted"):
        trees.nodes(TABLE.id, partition_of(row(1)[0]), 0, [0])


@on_a_loop
async def test_counting_that_takes_longer_than_the_deadline_is_given_up_and_goes_on_later() -> None:
    engine = MemoryEngine()
    for number in range(3000):
        engine.commit(Batch().put(*row(number)))
    trees = trees_on(engine)
    with pytest.raises(UnavailableError, match="still being counted"):
        await trees.ready(TABLE, PartitionId(0), deadline=now_s())
    counted = trees.counted_rows
    assert counted > 0
    assert await agrees(trees, engine)
    assert trees.counted_rows == 3000


@on_a_loop
async def test_a_block_that_cannot_be_read_is_told_and_the_rest_is_counted_once_it_can() -> None:
    engine = Disk()
    for number in range(50):
        engine.commit(Batch().put(*row(number)))
    key = row(5)[0]
    engine.unreadable = key
    trees, partition = trees_on(engine), partition_of(key)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="cannot be read to its end: a block is damaged"):
            await trees.ready(TABLE, partition, deadline=now_s() + 60)
    assert list(trees.problems()) == [(TABLE.id, partition)]
    await trees._count_all()
    assert [trees.is_ready(TABLE.id, PartitionId(p)) for p in range(PARTITIONS)].count(False) == 1
    store(trees, engine, 5, version=1)
    engine.unreadable = None
    assert await agrees(trees, engine)
    assert trees.problems() == {}
    assert trees.counted_rows == 50


@on_a_loop
async def test_a_look_at_an_unreadable_partition_comes_once_a_look_and_not_hot() -> None:
    engine = Disk()
    engine.commit(Batch().put(*row(5)))
    engine.unreadable = row(5)[0]
    trees = trees_on(engine)
    engine.scans = 0
    task = asyncio.create_task(trees.run())
    for _ in range(200):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert engine.scans == 2 * PARTITIONS


@on_a_loop
async def test_a_damaged_row_adds_nothing_and_replacing_it_puts_the_leaf_right() -> None:
    for is_counted_before_it_rots in False, True:
        engine = MemoryEngine()
        for number in range(50):
            engine.commit(Batch().put(*row(number)))
        key, _ = row(5)
        trees = trees_on(engine)
        leaf = trees.leaf_of(TABLE.id, partition_of(key), key)
        if is_counted_before_it_rots:
            assert await agrees(trees, engine)
        engine.rot(key, bit=77)
        if not is_counted_before_it_rots:
            assert await agrees(trees, engine)
        trees.write([(TABLE.id, key, engine.get(key), row(5, version=1)[1])])
        assert await agrees(trees, engine)
        assert trees.recount(TABLE.id, partition_of(key), leaf)


@on_a_loop
async def test_a_leaf_is_counted_again_and_a_wrong_one_put_right_with_its_image_gone() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(50):
        store(trees, engine, number)
    assert await agrees(trees, engine)
    await trees.close()
    key, _ = row(5)
    place = (TABLE.id, partition_of(key))
    leaf = trees.leaf_of(*place, key)
    assert trees.recount(*place, leaf)
    assert len(images(engine)) == PARTITIONS
    engine.rot(key, bit=77)
    assert not trees.recount(*place, leaf)
    assert trees.recount(*place, leaf)
    assert len(images(engine)) == PARTITIONS - 1
    assert await agrees(trees, engine)


@on_a_loop
async def test_the_leaves_of_a_partition_are_its_keys() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    for number in range(200):
        key, _ = row(number)
        start, end = trees.stretch_range(TABLE.id, partition_of(key), trees.leaf_of(TABLE.id, partition_of(key), key))
        assert start <= key < end


@on_a_loop
async def test_a_dropped_table_takes_its_trees_and_images_and_leaves_those_of_others() -> None:
    engine = MemoryEngine()
    topology = Topology(NODE.id, engine, MAP)
    trees = HashTrees(topology, engine, admit=at_once)
    for number in range(50):
        store(trees, engine, number)
        store(trees, engine, number, table=OTHER)
    assert await agrees(trees, engine)
    assert await agrees(trees, engine, OTHER)
    await trees.close()
    assert len(images(engine)) == 2 * PARTITIONS
    await topology.learn(ClusterMap(MAP.cluster_id, 2, PARTITIONS, (NODE,), MAP.owners, (1,), (OTHER,), 10))
    assert len(images(engine)) == PARTITIONS
    with pytest.raises(UnavailableError, match="table 7 was dropped; nothing was written"):
        store(trees, engine, 1)
    assert engine.get(row(1)[0]) is None
    with pytest.raises(UnavailableError, match="dropped"):
        await trees.ready(TABLE, PartitionId(0), deadline=now_s() + 60)
    assert await agrees(trees, engine, OTHER)


@on_a_loop
async def test_images_of_a_table_whose_drop_was_cut_short_go_at_the_next_start() -> None:
    engine = MemoryEngine()
    stale = tree_images.image_key((TableId(8), PartitionId(2)))
    kept = tree_images.image_key((TABLE.id, PartitionId(2)))
    engine.commit(Batch().put(stale, b"x").put(kept, b"x"))
    trees_on(engine)
    assert images(engine) == [kept]


@on_a_loop
async def test_an_engine_that_has_failed_gets_no_tree_believed() -> None:
    async def fail() -> None:
        raise OSError("broken")

    engine = MemoryEngine(sync=fail)
    trees = trees_on(engine)
    await trees.ready(TABLE, PartitionId(0), deadline=now_s() + 60)
    store(trees, engine, 1)
    with pytest.raises(StorageFailedError):
        await engine.durable()
    with pytest.raises(StorageFailedError):
        store(trees, engine, 2)
    with pytest.raises(StorageFailedError):
        trees.nodes(TABLE.id, PartitionId(0), 0, [0])
    await trees.run()
    await trees.close()


# After power cuts


@pytest.mark.parametrize("first", range(0, 200, 100))
@on_a_loop
async def test_image_and_rows_agree_after_every_power_cut(first: int) -> None:
    believed = 0
    for seed in range(first, first + 100):
        dice = random.Random(seed)
        engine = MemoryEngine(sync=at_once)
        for life in range(6):
            trees = trees_on(engine)
            for version in range(dice.randrange(40)):
                await step(trees, engine, dice, 100 * life + version)
            engine.power_cut(dice.randint(0, engine.unsynced_batches))
            for partition, tree in rebuilt(engine).items():
                image = tree_images.TreeImages(engine).load((TABLE.id, PartitionId(partition)))
                believed += image is not None
                assert image is None or image[0] == tree, f"seed {seed}, life {life}"
            assert await agrees(trees_on(engine), engine)
    assert believed > 100, "hardly any image was there to be judged"


async def step(trees: HashTrees, engine: MemoryEngine, dice: random.Random, version: int) -> None:
    what = dice.random()
    if what < 0.5:
        store(trees, engine, dice.randrange(20), version)
    elif what < 0.6:
        some = [row(number)[0] for number in dice.sample(range(20), 5)]
        trees.write([(TABLE.id, key, engine.get(key), None) for key in some])
    elif what < 0.75:
        place = (TABLE.id, PartitionId(dice.randrange(PARTITIONS)))
        if not trees.is_ready(*place):
            trees._count_on(place)
    elif what < 0.95:
        await trees._keep_images(is_quiet=dice.random() < 0.3)
    else:
        await engine.durable()


# In a cluster


def places(machine: Machine, table: Table) -> Sequence[PartitionId]:
    return [PartitionId(p) for p in range(member(machine).topology.ring.partitions)]


@simulated()
async def test_equal_replicas_have_equal_trees_and_one_row_too_many_shows_in_its_leaf(world: World) -> None:
    table = await started(world)
    for number in range(30):
        await put(world.machines[0], table, b"k%d" % number, b"v", level=ALL)
    await settled(world)
    one, other, _ = world.machines

    def leaves(machine: Machine) -> dict[int, tuple[int, ...]]:
        return {p: member(machine).trees.nodes(table.id, p, 2, range(LEAVES)) for p in places(machine, table)}

    await until(lambda: all(member(m).trees.is_ready(table.id, p) for m in (one, other) for p in places(m, table)))
    assert leaves(one) == leaves(other)
    key = key_of(table, b"extra")
    plant(other, table, b"extra", Row((Cell(b"value", Timestamp(5, 5), b"v"),)))
    partition = member(one).topology.ring.partition_of(keys.token_in(key))
    mine, theirs = leaves(one), leaves(other)
    differing = [(p, leaf) for p in mine for leaf in range(LEAVES) if mine[p][leaf] != theirs[p][leaf]]
    assert differing == [(partition, member(one).trees.leaf_of(table.id, partition, key))]


@simulated()
async def test_a_machine_that_lost_power_has_its_trees_again(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for life in range(5):
        for number in range(20):
            await put(machine, table, b"k%d" % number, b"v%d" % life)
        await asyncio.sleep(world.rng.uniform(0, 2.0))
        machine.crash()
        machine.start()
        await world.up(machine)
        work = agrees(member(machine).trees, machine.engine, table, member(machine).topology.ring.partitions)
        assert await machine.spawn(work)


@simulated()
async def test_a_row_that_rots_is_found_by_counting_its_leaf_again(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"k", b"v", level=ALL)
    key = key_of(table, b"k")
    partition = member(machine).topology.ring.partition_of(keys.token_in(key))
    trees = member(machine).trees
    await machine.spawn(trees.ready(table, partition, deadline=now_s() + 60))
    leaf = trees.leaf_of(table.id, partition, key)
    assert trees.recount(table.id, partition, leaf)
    damage(machine, table, b"k")
    assert not trees.recount(table.id, partition, leaf)
    assert trees.nodes(table.id, partition, 2, [leaf]) == (0,)
