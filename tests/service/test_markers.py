"""Markers of entries that are gone: kept while a late message could bring the entry back, and no longer."""

from __future__ import annotations

from merganser.core.indexing import decoded
from merganser.model.cluster import Table
from merganser.sim import indexes
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register
from service.led import others_than
from service.plays import member, simulated, until
from service.test_indexer import BLUE, RED, begun, entry_of, put, settled, shown


def markers(machine: Machine, table: Table) -> int:
    held = [
        decode_register(key, stored).value
        for index in table.indexes
        for key, stored in machine.engine.scan(*keys.table_range(index.table))
    ]
    return sum(value is not None and decoded(value).value is None for value in held)


async def moved(world: World) -> Table:
    """Return a table with one item, which has left one entry behind."""
    table = await begun(world, names=[indexes.BY_COLOR])
    await until(lambda: all(member(one).leader_tables.leadership.view().groups_led for one in world.machines))
    await put(world.machines[0], table, b"a", RED)
    await settled(world, table)
    await put(world.machines[0], table, b"a", BLUE)
    await settled(world, table)
    await until(lambda: all(markers(machine, table) == 1 for machine in world.machines))
    return table


def leader_of_entry(world: World, table: Table) -> Machine:
    entries, key = entry_of(table, b"a", RED)
    for machine in world.machines:
        found = member(machine).topology.table(entries)
        assert found is not None
        group = member(machine).leader_tables.indexer.epochs.group_of(found, key)
        if member(machine).leader_tables.leadership.led(group) is not None:
            return machine
    raise AssertionError("nobody leads the entry")


async def sweep(machine: Machine, table: Table) -> int:
    """Have ``machine`` go through all the markers that it leads; returns how many it keeps."""
    tables, kept = member(machine).leader_tables, 0
    entries = member(machine).topology.table(table.indexes[0].table)
    assert entries is not None
    for led in tables.leadership.leading():
        if led.group.rule == table.n:
            kept += await machine.spawn(tables.markers.sweep(led, entries))
    return kept


@simulated()
async def test_marker_stays_in_the_epoch_that_it_was_written_in_and_goes_in_the_next(world: World) -> None:
    table = await moved(world)
    leader = leader_of_entry(world, table)
    assert await sweep(leader, table) == 1
    entries, key = entry_of(table, b"a", RED)
    found = member(leader).topology.table(entries)
    assert found is not None
    group = member(leader).leader_tables.indexer.epochs.group_of(found, key)
    before = member(leader).leader_tables.leadership.known(group)
    await leader.spawn(member(leader).leader_tables.leadership.renew(group))
    await until(lambda: member(leader).leader_tables.leadership.led(group) is not None)
    assert member(leader).leader_tables.leadership.known(group) > before
    await until(lambda: all(markers(machine, table) == 0 for machine in world.machines))
    assert shown(world, table) == {("blue", BLUE)}


@simulated()
async def test_marker_goes_when_another_node_takes_over(world: World) -> None:
    table = await moved(world)
    leader = leader_of_entry(world, table)
    leader.crash()
    left = others_than(world, leader)
    await until(lambda: all(markers(machine, table) == 0 for machine in left))


@simulated()
async def test_too_many_markers_of_one_epoch_make_the_leader_begin_another(world: World) -> None:
    for_one = 1
    table = await moved(world)
    leader = leader_of_entry(world, table)
    tables = member(leader).leader_tables
    tables.markers._markers_max = for_one
    entries = member(leader).topology.table(table.indexes[0].table)
    assert entries is not None
    for led in tables.leadership.leading():
        await leader.spawn(tables.markers._look_after(led, entries))
    await until(lambda: all(markers(machine, table) == 0 for machine in world.machines))
