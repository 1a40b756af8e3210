"""Reads of ranges: in order, to the end, across replica sets, with every acknowledged row and no deleted one."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import rows
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency
from merganser.model.errors import RequestError, UnavailableError
from merganser.model.ids import PartitionId
from merganser.model.row import CellWrite, Mutation
from merganser.service.coordinator import RANGE_READS_MAX
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import (
    ALL,
    CELL,
    ONE,
    QUORUM,
    damage,
    held,
    key_of,
    member,
    now_s,
    page,
    play,
    put,
    settled,
    simulated,
    started,
)

PAGES_MAX = 2000


async def listing(
    machine: Machine,
    table: Table,
    start: bytes,
    end: bytes,
    *,
    reverse: bool = False,
    rows_max: int = 1000,
    bytes_max: int = 1_000_000,
    level: Consistency = QUORUM,
) -> list[tuple[bytes, bytes | None]]:
    """Return key and value of every live row of a range, page after page."""
    listed: list[tuple[bytes, bytes | None]] = []
    for _ in range(PAGES_MAX):
        got = await page(
            machine, table, start, end, reverse=reverse, rows_max=rows_max, bytes_max=bytes_max, level=level
        )
        assert len(got.rows) <= 3 * max(rows_max, 1)
        listed += [(key, rows.live_value(row, CELL, 0)) for key, row in got.rows]
        if got.resume is None:
            return listed
        assert start <= got.resume <= end
        start, end = (start, got.resume) if reverse else (got.resume, end)
    raise AssertionError("the pages have no end")


async def filled(world: World, table: Table, count: int = 40) -> dict[bytes, bytes]:
    """Write rows, delete some of them again; return what must be listed."""
    live = {}
    for number in range(count):
        name = b"k%d" % number
        await put(world.rng.choice(world.machines), table, name, b"v%d" % number)
        live[key_of(table, name)] = b"v%d" % number
    for number in range(0, count, 5):
        await put(world.rng.choice(world.machines), table, b"k%d" % number, None)
        del live[key_of(table, b"k%d" % number)]
    return live


def test_every_row_is_listed_once_in_order_either_way_from_every_node() -> None:
    async def script(world: World) -> None:
        table = await started(world)
        live = await filled(world, table)
        start, end = keys.table_range(table.id)
        for reverse in (False, True):
            for rows_max, bytes_max in ((1000, 10**6), (3, 10**6), (1, 10**6), (1000, 1), (7, 200)):
                listed = await listing(
                    world.rng.choice(world.machines),
                    table,
                    start,
                    end,
                    reverse=reverse,
                    rows_max=rows_max,
                    bytes_max=bytes_max,
                )
                assert listed == sorted(live.items(), reverse=reverse)

    for machines in (1, 3, 5, 7, 9):
        play(script, seed=machines, machines=machines)


def test_any_part_of_the_table_is_listed_as_asked() -> None:
    async def script(world: World) -> None:
        table = await started(world)
        live = sorted((await filled(world, table)).items())
        edges = [*keys.table_range(table.id), *(key for key, _ in live), *(keys.after(key) for key, _ in live)]
        topology = member(world.machines[0]).topology
        edges += [edge for p in map(PartitionId, range(16)) for edge in topology.partition_range(table, p, p)]
        for _ in range(60):
            start, end = world.rng.choice(edges), world.rng.choice(edges)
            for reverse in (False, True):
                listed = await listing(
                    world.rng.choice(world.machines),
                    table,
                    start,
                    end,
                    reverse=reverse,
                    rows_max=world.rng.randint(1, 9),
                )
                expected = [(key, value) for key, value in live if start <= key < end]
                assert listed == (expected[::-1] if reverse else expected)

    play(script, machines=5)


@simulated()
async def test_the_rows_of_one_partition_key_are_listed_in_order_of_their_sort_keys(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    prefix = key_of(table, b"p")
    for number in world.rng.sample(range(20), 20):
        await put_sorted(machine, table, b"%02d" % number)
    await put(machine, table, b"another", b"v")
    listed = await listing(machine, table, prefix, keys.prefix_end(prefix), rows_max=4)
    assert [value for _, value in listed] == [b"%02d" % number for number in range(20)]
    listed = await listing(machine, table, prefix + b"05", prefix + b"09", reverse=True)
    assert [value for _, value in listed] == [b"08", b"07", b"06", b"05"]


async def put_sorted(machine: Machine, table: Table, sort_key: bytes) -> None:
    await machine.spawn(
        member(machine).coordinator.write(
            table,
            key_of(table, b"p") + sort_key,
            Mutation((CellWrite(CELL, sort_key),)),
            level=QUORUM,
            deadline=now_s() + 2.0,
        )
    )


@simulated()
async def test_a_page_of_nothing_but_tombstones_names_where_to_go_on(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for number in range(10):
        await put(machine, table, b"k%d" % number, None, level=ALL)
    start, end = keys.table_range(table.id)
    first = await page(machine, table, start, end, rows_max=4)
    assert first.rows == []
    assert first.resume is not None
    assert await listing(machine, table, start, end, rows_max=4) == []


@simulated()
async def test_empty_ranges_are_empty(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v")
    key = key_of(table, b"k")
    start, end = keys.table_range(table.id)
    for low, high in ((key, key), (keys.after(key), key), (end, start), (end, end + b"\xff"), (b"", start)):
        for reverse in (False, True):
            assert await listing(world.machines[0], table, low, high, reverse=reverse) == []


@simulated()
async def test_expired_rows_are_not_listed(world: World) -> None:
    table = await started(world)
    past_s = EPOCH_US // 1_000_000 - 1
    await put(world.machines[0], table, b"gone", b"v", expires_at_s=past_s)
    await put(world.machines[0], table, b"here", b"v", expires_at_s=past_s + 10_000)
    listed = await listing(world.machines[0], table, *keys.table_range(table.id))
    assert [key for key, _ in listed] == [key_of(table, b"here")]


@simulated(machines=5)
async def test_rows_that_one_replica_missed_are_listed_and_repaired(world: World) -> None:
    table = await started(world)
    away = world.machines[4]
    world.cut_off(away)
    live = {}
    for number in range(30):
        live[key_of(table, b"k%d" % number)] = b"v%d" % number
        await put(world.machines[number % 3], table, b"k%d" % number, b"v%d" % number)
    world.network.heal()
    start, end = keys.table_range(table.id)
    assert await listing(away, table, start, end, rows_max=5, level=ALL) == sorted(live.items())
    await settled(world)
    node = member(away).topology.node
    for number in range(30):
        name = b"k%d" % number
        if node in member(away).topology.replicas(table, key_of(table, name)):
            assert held(away, table, name) is not None


@simulated()
async def test_a_range_goes_around_a_damaged_row(world: World) -> None:
    table = await started(world)
    for number in range(10):
        await put(world.machines[0], table, b"k%d" % number, b"v", level=ALL)
    damage(world.machines[0], table, b"k3")
    for reader in world.machines:
        assert len(await listing(reader, table, *keys.table_range(table.id))) == 10
    with pytest.raises(UnavailableError, match="damaged value"):
        await listing(world.machines[0], table, *keys.table_range(table.id), level=ALL)


@simulated()
async def test_a_range_needs_as_many_replicas_as_its_level(world: World) -> None:
    table = await started(world, n=2)
    with pytest.raises(RequestError, match="the table has 2"):
        await listing(world.machines[0], table, *keys.table_range(table.id), level=Consistency.THREE)
    for machine in world.machines[1:]:
        machine.crash()
    with pytest.raises(UnavailableError, match="can be reached"):
        await listing(world.machines[0], table, *keys.table_range(table.id), level=ALL)


@simulated()
async def test_range_reads_beyond_the_bound_wait_for_their_turn_and_give_up_at_their_deadline(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"k", b"v")
    world.cut_off(machine)
    whole = keys.table_range(table.id)
    stuck = [asyncio.ensure_future(page(machine, table, *whole)) for _ in range(RANGE_READS_MAX)]
    await asyncio.sleep(0.01)
    with pytest.raises(UnavailableError, match="range reads are under way"):
        await page(machine, table, *whole, level=ONE, timeout_s=0.5)
    world.network.heal()
    waiting = asyncio.ensure_future(page(machine, table, *whole, level=ONE))
    await asyncio.gather(*stuck, return_exceptions=True)  # some were told that too few replicas answer
    assert [key for key, _ in (await waiting).rows] == [key_of(table, b"k")]
