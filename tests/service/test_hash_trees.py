"""The hash trees of a node: kept up, kept on disk, rebuilt, forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from merganser.core.hash_tree import LEAVES
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import StorageFailedError, UnavailableError
from merganser.model.ids import PartitionId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service import tree_images
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.memory import MemoryEngine
from service.plays import ALL, damage, key_of, member, now_s, plant, put, settled, simulated, started, until
from service.trees_by_hand import (
    MAP,
    NODE,
    OTHER,
    PARTITIONS,
    TABLE,
    Disk,
    agrees,
    at_once,
    filled,
    images,
    on_a_loop,
    rebuilt,
    row,
    store,
    trees_on,
    with_twigs,
)


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
    trees = await filled(engine)
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
    trees = await filled(engine)
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
    trees = await filled(engine)
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
    trees = await filled(engine)
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
async def test_maps_that_come_one_upon_another_do_not_make_partitions_quiet() -> None:
    engine = MemoryEngine()
    trees = await filled(engine)
    running = asyncio.create_task(trees.run())
    for _ in range(4):
        trees._look_at(MAP)
        await until(lambda: not trees._news.is_set())
    assert images(engine) == [], "an image of each, that the next write would delete"
    running.cancel()


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
            trees._kept.count_on(place)
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
