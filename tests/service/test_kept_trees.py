"""Where hash trees come from: images, and the rows themselves, a slice or a leaf at a time."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.model.errors import CorruptionError, UnavailableError
from merganser.model.ids import PartitionId, TableId
from merganser.service import kept_trees, tree_images
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from service.plays import now_s
from service.trees_by_hand import (
    PARTITIONS,
    TABLE,
    Disk,
    agrees,
    filled,
    images,
    on_a_loop,
    partition_of,
    row,
    store,
    trees_on,
)


@pytest.mark.parametrize("bit", [0, 8 * 7, 8 * 40 + 3])
@on_a_loop
async def test_a_damaged_image_is_thrown_away_and_the_partition_counted(bit: int) -> None:
    engine = MemoryEngine()
    trees = await filled(engine)
    await trees.close()
    engine.rot(images(engine)[0], bit=bit)
    again = trees_on(engine)
    assert await agrees(again, engine)
    assert 0 < again.counted_rows < 50
    assert len(images(engine)) == PARTITIONS - 1


@on_a_loop
async def test_a_rebuild_in_slices_is_right_whatever_is_written_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_trees, "SLICE_ROWS", 3)
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
                trees._kept.count_on(place)
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
    trees = await filled(engine)
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
async def test_images_of_a_table_whose_drop_was_cut_short_go_at_the_next_start() -> None:
    engine = MemoryEngine()
    stale = tree_images.image_key((TableId(8), PartitionId(2)))
    kept = tree_images.image_key((TABLE.id, PartitionId(2)))
    engine.commit(Batch().put(stale, b"x").put(kept, b"x"))
    trees_on(engine)
    assert images(engine) == [kept]
