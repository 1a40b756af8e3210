"""Counts of items beside the hash trees of one node, and put together from several."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.model.cluster import Table
from merganser.model.ids import PartitionId
from merganser.model.register import Content, Intent, Register, Version
from merganser.service.counts import NOTHING, Count
from merganser.service.hash_trees import HashTrees
from merganser.service.local_indexes import LocalIndexes
from merganser.service.steps import WIRES
from merganser.service.topology import Topology
from merganser.service.tree_images import TreeImages
from merganser.sim.machine import Machine
from merganser.sim.steps import Put, payload_of
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.keys import token_in
from merganser.storage.memory import MemoryEngine
from merganser.storage.registers import decode_register, encode_register
from service.plays import key_of, member, now_s, replicas_of, simulated, started_with_leaders, until
from service.test_expiry_index import NODE, PLAIN, on_a_loop

TABLE = PLAIN.tables[0]
PLACE = (TABLE.id, PartitionId(0))
HELD = Intent(b"t" * 16, 1, True, b"what it will be")


def measure(stored: bytes, at: int) -> int | None:
    """The size of a value is its length; an empty one is no item."""
    return len(stored) - at or None


def trees_on(engine: MemoryEngine) -> HashTrees:
    topology = Topology(NODE.id, engine, PLAIN)
    local = LocalIndexes(engine, {"w": lambda _table: keys_of}, {"w": lambda _table: sizes_of})
    return HashTrees(topology, engine, admit=lambda: asyncio.sleep(0), local=local, measures={"w": measure})


def keys_of(value: bytes) -> list[tuple[int, bytes]]:
    """Every item with a value stands in index 3, long ones in index 0 as well."""
    return [(index, value) for index, _ in sizes_of(value)]


def sizes_of(value: bytes) -> list[tuple[int, int]]:
    return [*([(0, 2 * len(value))] if len(value) > 25 else []), *([(3, 7)] if value else [])]


def key(number: int) -> bytes:
    name = b"k%d" % number
    return keys.row_key(TABLE.id, keys.token_in(b"\x00" * 4 + name.ljust(8, b"\x80")), name)


def put(trees: HashTrees, engine: MemoryEngine, number: int, content: Content, version: int) -> None:
    after = encode_register(key(number), Register(Version(1, 1, version), content))
    trees.put(*PLACE, key(number), engine.get(key(number)), after)


def counted(engine: MemoryEngine) -> Count:
    values = [decode_register(key, stored).value for key, stored in engine.scan(*keys.table_range(TABLE.id))]
    sizes = [len(value) for value in values if value]
    shown = [one for value in values if value for one in sizes_of(value)]
    local = [(index, [size for number, size in shown if number == index]) for index in (0, 3)]
    return Count(len(sizes), sum(sizes), tuple((index, len(all_), sum(all_)) for index, all_ in local if all_))


def content(dice: random.Random) -> Content:
    value = dice.choice((None, b"", b"v" * dice.randint(1, 50)))
    pending = ((TABLE.id, b"entry"),) if dice.random() < 0.3 else ()
    return Content(value, HELD if dice.random() < 0.2 else None, pending)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_the_registers_whatever_happens(seed: int) -> None:
    @on_a_loop
    async def within() -> None:
        dice, engine = random.Random(seed), MemoryEngine()
        for life in range(4):
            trees = trees_on(engine)
            for number in range(dice.randrange(30)):
                put(trees, engine, dice.randrange(15), content(dice), 100 * life + number)
                if dice.random() < 0.1:
                    await trees.ready(TABLE, PLACE[1], deadline=asyncio.get_running_loop().time() + 5)
                if dice.random() < 0.1:
                    gone = key(dice.randrange(15))
                    trees.write([(TABLE.id, gone, engine.get(gone), None)])
            if dice.random() < 0.5:
                await trees.close()  # which keeps the count with the tree
            assert trees.count(*PLACE) in (None, counted(engine))
            await trees.ready(TABLE, PLACE[1], deadline=asyncio.get_running_loop().time() + 5)
            assert trees.count(*PLACE) == counted(engine)

    within()


@on_a_loop
async def test_an_image_without_a_count_is_counted_anew() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    put(trees, engine, 1, Content(b"value"), 1)
    await trees.close()
    images = TreeImages(engine)
    image = images.load(PLACE)
    assert image is None  # it was never counted to its end
    await trees.ready(TABLE, PLACE[1], deadline=asyncio.get_running_loop().time() + 5)
    await trees.close()
    assert images.load(PLACE) is not None
    (stored,) = [key for key, _ in engine.scan(b"", b"\x00\x00\x00\x01") if b"tree|" in key]
    engine.commit(Batch().put(stored, b"of an earlier release"))
    assert images.load(PLACE) is None
    assert trees_on(engine).count(*PLACE) is None


@on_a_loop
async def test_a_damaged_register_is_counted_as_it_looks() -> None:
    engine = MemoryEngine()
    trees = trees_on(engine)
    await trees.ready(TABLE, PLACE[1], deadline=asyncio.get_running_loop().time() + 5)
    put(trees, engine, 1, Content(b"value"), 1)
    damaged = (engine.get(key(1)) or b"")[:-1] + b"?"
    engine.commit(Batch().put(key(1), damaged))
    after = encode_register(key(1), Register(Version(1, 1, 2), Content(b"longer value")))
    trees.replace(*PLACE, [(TABLE.id, key(1), damaged, after)])
    count = trees.count(*PLACE)
    assert count is not None
    assert count[:2] == (1, len(b"longer value"))


async def filled(world: World) -> Table:
    for machine in world.machines:
        machine.measures = {"sim": measure}
        machine.local_measurers = {"sim": lambda _table: sizes_of}
    table = await started_with_leaders(world)
    for number in range(20):
        work = member(world.machines[0]).leader_tables.leader_based.change(
            table, key_of(table, b"%d" % number), WIRES, payload_of(Put(b"12345")), deadline=now_s() + 20
        )
        await world.machines[0].spawn(work)
    return table


async def count_at(machine: Machine, table: Table) -> Count:
    return await machine.spawn(member(machine).counting.count(table.id, table.n))


@simulated(machines=5, partitions=8)
async def test_any_node_tells_the_count_of_the_whole_table(world: World) -> None:
    table = await filled(world)
    await until(lambda: all(_has_counted(machine) for machine in world.machines))
    for machine in world.machines:
        assert await count_at(machine, table) == Count(20, 100, ((3, 20, 140),))
    others = [machine for machine in world.machines if machine not in replicas_of(world, table, b"1")]
    replicas_of(world, table, b"1")[0].crash()
    assert await count_at(others[0], table) == Count(20, 100, ((3, 20, 140),))


@simulated(machines=5, partitions=8)
async def test_any_node_tells_what_is_around_a_key(world: World) -> None:
    table = await filled(world)
    await until(lambda: all(_has_counted(machine) for machine in world.machines))
    ring = member(world.machines[0]).topology.ring
    there = [ring.partition_of(token_in(key_of(table, b"%d" % number))) for number in range(20)]
    for number in range(20):
        items = there.count(there[number])
        for machine in world.machines:
            assert await around(machine, table, b"%d" % number) == Count(items, 5 * items, ((3, items, 7 * items),))
    replicas = replicas_of(world, table, b"1")
    others = [machine for machine in world.machines if machine not in replicas]
    replicas[0].crash()
    count = await around(others[0], table, b"1")
    assert count is not None
    assert count.items == there.count(there[1])
    for machine in replicas[1:]:
        machine.crash()
    assert await around(others[0], table, b"1") is None


async def around(machine: Machine, table: Table, name: bytes) -> Count | None:
    return await machine.spawn(member(machine).counting.around(table, key_of(table, name)))


@simulated(machines=3, partitions=8)
async def test_a_table_that_is_gone_has_nothing(world: World) -> None:
    table = await filled(world)
    await world.machines[0].spawn(member(world.machines[0]).catalog.drop_table(table, deadline=now_s() + 20))
    assert await count_at(world.machines[0], table) == NOTHING


def _has_counted(machine: Machine) -> bool:
    trees = member(machine).trees
    return all(trees.is_ready(table.id, partition) for table, partition in member(machine).topology.held())
