"""Replicas that compare while nodes crash, tables are dropped, rows rot and clocks are wrong."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from merganser.core import rows
from merganser.model.errors import CorruptionError, MerganserError, UnavailableError
from merganser.model.ids import TableId
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.comparisons import compare, in_one_partition, partition_of, row_of, same_bytes, synchronise
from service.plays import damage, held, holders, key_of, member, now_s, plant, put, settled, simulated, started, until


@simulated(seed=3)
async def test_a_replica_that_missed_writes_whose_hints_were_lost_is_brought_up_without_a_read(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 20.0
    table = await started(world)
    one, other, missed = world.machines
    missed.crash()
    names = [b"k%d" % number for number in range(50)]
    for name in names:
        await put(one, table, name, b"v" + name)
    await settled(world)
    low, high = keys.all_hints_range()
    for machine in one, other:
        machine.crash()
        machine.restore({key: stored for key, stored in machine.image().items() if not low <= key < high})
    await world.start()
    assert not any(held(missed, table, name) for name in names)
    await until(lambda: all(held(missed, table, name) for name in names), timeout_s=40.0)
    await until(lambda: same_bytes(world, table, names), timeout_s=40.0)
    assert sum(member(machine).coordinator.repairs.sent for machine in world.machines) == 0


@simulated()
async def test_a_crash_of_either_side_in_the_middle_costs_nothing_but_another_try(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    names = in_one_partition(one, table, 40)
    for after_s in (0.001, 0.01, 0.02, 0.03, 0.05, 1.03, 1.05, 1.06, 1.07):
        for side in one, other:
            for number, name in enumerate(names):
                value = row_of(b"%d %f" % (number, after_s), seconds_ago=-after_s, writer=1 + (side is other))
                plant(one if number % 2 else other, table, name, value)
            before = {machine: {name: held(machine, table, name) for name in names} for machine in (one, other)}
            await one.engine.durable()
            await other.engine.durable()
            began = asyncio.ensure_future(compare(one, other, table, names[0]))
            await asyncio.sleep(after_s)
            side.crash()
            await asyncio.sleep(0.5)
            began.cancel()
            await world.start()
            for name in names:
                for machine in one, other:
                    row, old = held(machine, table, name), before[machine][name]
                    assert old is None or (row is not None and rows.covers(row, old)), "nothing durable is lost"
            await until(lambda: member(one).topology.map.epoch == member(other).topology.map.epoch)
            compared = await compare(one, other, table, names[0])
            while compared.problem is not None:
                await asyncio.sleep(0.1)  # virtual: until they are connected again
                compared = await compare(one, other, table, names[0])
            assert all(held(one, table, name) == held(other, table, name) for name in names)


@simulated()
async def test_two_exchanges_of_one_partition_at_once_come_to_the_same(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    names = in_one_partition(one, table, 90)
    for number, name in enumerate(names):
        plant(world.machines[number % 3], table, name, row_of(b"%d" % number))
    sides = [(one, other), (other, one), (one, third), (third, other), (one, other)]
    both = [compare(*side, table, names[0]) for side in sides]
    assert [compared.problem for compared in await asyncio.gather(*both)] == [None] * 5
    await asyncio.gather(*(synchronise(*side, table, names[0]) for side in sides))
    assert same_bytes(world, table, names)


@simulated()
async def test_a_peer_that_is_away_is_a_problem_and_no_synchronisation(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    plant(one, table, b"k", row_of(b"v"))
    world.cut_off(other)
    compared = await compare(one, other, table, b"k", timeout_s=5.0)
    assert compared.problem is not None
    with pytest.raises(MerganserError):
        await synchronise(one, other, table, b"k", timeout_s=5.0)


@simulated()
async def test_a_table_dropped_in_the_middle_leaves_no_row_behind(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    for number in range(20):
        plant(one, table, b"k%d" % number, row_of(b"v"))
    began = [asyncio.ensure_future(compare(one, other, table, b"k%d" % number)) for number in range(20)]
    await asyncio.sleep(0.9)
    await other.spawn(member(other).catalog.drop_table(table, deadline=now_s() + 10.0))
    assert all([(await compared).problem for compared in began])
    await until(lambda: not any(member(machine).topology.table(table.id) for machine in world.machines))
    for machine in world.machines:
        assert list(machine.engine.scan(*keys.table_range(table.id))) == []


@simulated()
async def test_a_damaged_row_is_told_to_its_own_side_and_met_by_nobody(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    told: list[Machine] = []
    for machine in world.machines:
        plant(machine, table, b"k", row_of(b"v"))
        member(machine).anti_entropy.when_damaged = partial(_note, told, machine)
    damaged = damage(other, table, b"k")
    place = (table.id, partition_of(other, table, b"k"))
    await other.spawn(member(other).trees.ready(table, place[1], deadline=now_s() + 1.0))
    assert not member(other).trees.recount(*place, member(other).trees.leaf_of(*place, key_of(table, b"k")))
    for machine, peer in ((one, other), (other, third)):
        compared = await compare(machine, peer, table, b"k")
        assert (compared.problem, compared.differing, compared.damaged) == (None, 0, (key_of(table, b"k"),))
        with pytest.raises(CorruptionError):
            await synchronise(machine, peer, table, b"k")
    assert other.engine.get(key_of(table, b"k")) == damaged
    assert set(told) == {other}


def _note(told: list[Machine], machine: Machine, _table: TableId, _key: bytes) -> None:
    told.append(machine)


@simulated()
async def test_a_row_too_far_ahead_of_a_clock_stays_where_it_is(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    plant(one, table, b"k", row_of(b"v", seconds_ago=-3600.0))
    for machine, peer in ((one, other), (other, one)):
        compared = await compare(machine, peer, table, b"k")
        assert compared.differing == 1
        assert compared.problem is not None
        assert "ahead" in compared.problem
        with pytest.raises(UnavailableError):
            await synchronise(machine, peer, table, b"k")
    assert holders(world, table, b"k") == [one.address]
