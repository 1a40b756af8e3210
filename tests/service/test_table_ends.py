"""Tables that are to go at a time: whoever is there then drops them, and nothing brings them back."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import cluster_map
from merganser.model.cluster import Table
from merganser.model.errors import TableChangedError, UnavailableError
from merganser.service.table_ends import LOOK_S
from merganser.sim.machine import Machine
from merganser.sim.steps import ending
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import ALL, member, now_s, put, simulated, started, until

CHANGE_S = 20.0
LASTS_S = 3.0
SOON_S = 3 * LOOK_S
SKEW_MAX_S = 10.0


async def told_to_go(machine: Machine, table: Table, *, after_s: float = LASTS_S) -> Table:
    """Return the table, which is to go after so many seconds by the clock of the machine."""
    definition = ending(machine.wall_us() // 1000 + int(after_s * 1000))
    return await machine.spawn(member(machine).catalog.redefine_table(table, definition, deadline=now_s() + CHANGE_S))


def knows(machine: Machine, table: Table) -> bool:
    return machine.member is not None and member(machine).topology.table(table.id) is not None


def rows(machine: Machine, table: Table) -> list[bytes]:
    return [key for key, _ in machine.engine.scan(*keys.table_range(table.id))]


async def created_anew(machine: Machine, name: str) -> Table:
    catalog = member(machine).catalog
    work = catalog.create_table(
        wire="sim", name=name, n=3, definition=b"", unique_id="anew", deadline=now_s() + CHANGE_S
    )
    return await machine.spawn(work)


@simulated()
async def test_table_and_rows_are_there_until_its_time_and_gone_soon_after(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"row", b"1", level=ALL)
    await told_to_go(world.machines[0], table)
    await asyncio.sleep(LASTS_S - 0.1)
    assert all(knows(machine, table) and rows(machine, table) for machine in world.machines)
    await until(lambda: not any(knows(machine, table) for machine in world.machines), timeout_s=SOON_S)
    assert not any(rows(machine, table) for machine in world.machines)


@pytest.mark.parametrize("seed", range(10))
def test_the_death_of_the_node_that_set_the_time_changes_nothing(seed: int) -> None:
    @simulated(seed=seed)
    async def run(world: World) -> None:
        table = await started(world)
        first, *others = world.machines
        await put(first, table, b"row", b"1", level=ALL)
        await told_to_go(first, table)
        first.crash()
        await until(lambda: not any(knows(machine, table) for machine in others), timeout_s=LASTS_S + 2 * SOON_S)
        assert not any(rows(machine, table) for machine in others)
        anew = await created_anew(others[0], table.name)
        first.start()
        await world.up(first)
        await until(lambda: knows(first, anew))
        await asyncio.sleep(SOON_S)  # all have looked since
        for machine in world.machines:
            assert cluster_map.table_named(member(machine).topology.map, "sim", table.name) == anew
            assert not rows(machine, table)

    run()


@simulated()
async def test_a_cluster_that_was_down_when_the_time_came_drops_the_table_once_it_is_back(world: World) -> None:
    table = await started(world)
    await told_to_go(world.machines[0], table)
    for machine in world.machines:
        machine.crash()
    await asyncio.sleep(LASTS_S)
    await world.start()
    await until(lambda: not any(knows(machine, table) for machine in world.machines), timeout_s=2 * SOON_S)


@simulated()
async def test_a_node_without_a_majority_keeps_the_table_and_goes_on(world: World) -> None:
    table = await started(world)
    lonely, *others = world.machines
    await told_to_go(lonely, table)
    await until(lambda: all(member(one).topology.table(table.id) != table for one in others))
    for machine in others:
        machine.crash()
    await asyncio.sleep(2 * LASTS_S)
    assert knows(lonely, table)
    with pytest.raises(UnavailableError):
        await lonely.spawn(member(lonely).catalog.drop_table(table, deadline=now_s() + 1.0))
    others[0].start()
    await until(lambda: not knows(lonely, table), timeout_s=CHANGE_S)


@simulated()
async def test_clocks_that_are_off_by_what_is_allowed_make_it_so_much_sooner_or_later(world: World) -> None:
    table = await started(world)
    world.machines[0].skew_us = int(SKEW_MAX_S * 1e6)
    await told_to_go(world.machines[0], table)  # by a clock that is ahead of the others
    world.machines[0].crash()
    await asyncio.sleep(LASTS_S + SKEW_MAX_S - 0.1)
    assert all(knows(machine, table) for machine in world.machines[1:])
    await until(lambda: not any(knows(machine, table) for machine in world.machines[1:]), timeout_s=2 * SOON_S)


@simulated()
async def test_a_table_that_was_given_another_definition_meanwhile_stays(world: World) -> None:
    table = await started(world)
    first = world.machines[0]
    going = await told_to_go(first, table)
    await first.spawn(member(first).catalog.redefine_table(going, b"", deadline=now_s() + CHANGE_S))
    with pytest.raises(TableChangedError):
        await first.spawn(member(first).catalog.drop_table(going, deadline=now_s() + CHANGE_S))
    await asyncio.sleep(LASTS_S + SOON_S)
    assert all(knows(machine, table) for machine in world.machines)
