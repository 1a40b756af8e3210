"""Items expire in a simulated cluster: once their time is over by the leader's clock, unless they have moved."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core.expiry import MARGIN_S
from merganser.model.cluster import Table
from merganser.model.errors import ClockSkewError, RequestError
from merganser.service.steps import EXPIRY, WIRES
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.steps import EXPIRING, Put, payload_of
from merganser.sim.steps import until as expiring_at
from merganser.sim.world import World
from service.led import the_leader
from service.plays import key_of, member, now_s, simulated, started_with_leaders, until

WAIT_S = 30.0


async def put(machine: Machine, table: Table, name: bytes, value: bytes | None) -> None:
    work = member(machine).leader_tables.leader_based.change(
        table, key_of(table, name), WIRES, payload_of(Put(value)), deadline=now_s() + WAIT_S
    )
    await machine.spawn(work)


async def get(machine: Machine, table: Table, name: bytes) -> bytes | None:
    work = member(machine).leader_tables.leader_based.read(
        table, key_of(table, name), is_consistent=True, deadline=now_s() + WAIT_S
    )
    return (await machine.spawn(work)).value


def definition_at(machine: Machine, table: Table) -> bytes | None:
    known = member(machine).topology.table(table.id)
    return None if known is None else known.definition


def is_whole(machine: Machine, table: Table) -> bool:
    """Tell whether the machine has the index of times of all it holds, whoever leads."""
    topology, index = member(machine).topology, member(machine).expiries
    known = topology.table(table.id)
    assert known is not None
    how = index.of(known)
    assert how is not None
    return all(index.is_whole((table.id, partition), how) for held, partition in topology.held() if held.id == table.id)


async def let_expire(world: World, table: Table, definition: bytes = EXPIRING) -> None:
    machine = world.machines[0]
    known = member(machine).topology.table(table.id)
    assert known is not None
    await machine.spawn(member(machine).catalog.redefine_table(known, definition, deadline=now_s() + WAIT_S))
    await until(lambda: all(definition_at(machine, table) == definition for machine in world.machines))


async def waited_until_gone(machine: Machine, table: Table, name: bytes) -> None:
    deadline = now_s() + WAIT_S
    while await get(machine, table, name) is not None:
        assert now_s() < deadline, f"{name!r} is still there"


def wall_s() -> int:
    """Return the true time, in seconds since 1970."""
    return int(EPOCH_US / 1e6 + now_s())


@simulated(machines=3, partitions=4)
async def test_items_go_when_their_time_is_over_and_no_others(world: World) -> None:
    table = await started_with_leaders(world)
    machine, at_s = world.machines[1], wall_s() + 3
    await put(machine, table, b"before", expiring_at(b"v", at_s))
    await let_expire(world, table)
    await put(machine, table, b"soon", expiring_at(b"v", at_s))
    await put(machine, table, b"later", expiring_at(b"v", at_s + 3600))
    await put(machine, table, b"never", b"v")
    assert None not in [await get(machine, table, name) for name in (b"before", b"soon")]
    for name in (b"before", b"soon"):
        await waited_until_gone(machine, table, name)
    assert wall_s() >= at_s + MARGIN_S
    assert [await get(machine, table, name) for name in (b"later", b"never")] == [
        expiring_at(b"v", at_s + 3600),
        b"v",
    ]
    assert sum(member(one).leader_tables.expirer.removed for one in world.machines) == 2


@simulated(machines=3, partitions=4)
async def test_an_item_whose_time_has_moved_stays_though_it_was_found(world: World) -> None:
    table = await started_with_leaders(world)
    await let_expire(world, table)
    over, moved = expiring_at(b"v", wall_s() - 60), expiring_at(b"v", wall_s() + 60)
    leader = the_leader(world, table, b"k")
    await put(leader, table, b"k", moved)
    work = member(leader).leader_tables.leader_based.change(
        table, key_of(table, b"k"), EXPIRY, b"", deadline=now_s() + WAIT_S
    )
    assert (await leader.spawn(work)).is_rejected
    assert await get(leader, table, b"k") == moved
    await put(leader, table, b"k", over)
    await waited_until_gone(leader, table, b"k")


@simulated(machines=3, partitions=4)
async def test_a_new_leader_goes_on(world: World) -> None:
    table = await started_with_leaders(world)
    await let_expire(world, table)
    leader = the_leader(world, table, b"k")
    await put(leader, table, b"k", expiring_at(b"v", wall_s() + 2 - MARGIN_S))
    await until(lambda: all(is_whole(machine, table) for machine in world.machines))
    leader.crash()
    (other, _) = (machine for machine in world.machines if machine is not leader)
    await waited_until_gone(other, table, b"k")


@simulated(machines=3, partitions=4)
async def test_a_node_whose_clock_is_wrong_removes_nothing(world: World) -> None:
    table = await started_with_leaders(world)
    await let_expire(world, table)
    leader = the_leader(world, table, b"k")
    leader.skew_us = 3_600_000_000  # so that every item of the hour is over, by this clock
    await put(leader, table, b"k", expiring_at(b"v", wall_s() + 600))
    expirer = member(leader).leader_tables.expirer
    led = next(led for led in member(leader).leader_tables.leadership.leading())
    with pytest.raises(ClockSkewError):
        await leader.spawn(expirer.sweep(led, table))
    work = member(leader).leader_tables.leader_based.change(
        table, key_of(table, b"k"), EXPIRY, b"", deadline=now_s() + WAIT_S
    )
    with pytest.raises(RequestError, match="does not know what time it is"):
        await leader.spawn(work)
    assert await get(leader, table, b"k") is not None


@simulated(machines=3, partitions=4)
async def test_a_node_that_has_not_compared_its_clock_yet_removes_nothing(world: World) -> None:
    await started_with_leaders(world)
    watch = member(world.machines[0]).clock_watch
    watch.check_compared()
    watch._compared.clear()
    with pytest.raises(ClockSkewError, match="yet to compare"):
        watch.check_compared()


@simulated(machines=3, partitions=4)
async def test_a_disk_that_fails_during_a_walk_is_no_error_of_the_expirer(world: World) -> None:
    table = await started_with_leaders(world)
    broken, other = world.machines[2], world.machines[0]
    await put(other, table, b"k", expiring_at(b"v", wall_s() + 600))
    broken.engine._group.fail("the disk is full")
    known = member(other).topology.table(table.id)
    assert known is not None
    changed = msgspec.structs.replace(
        member(other).topology.map, tables=(msgspec.structs.replace(known, definition=EXPIRING),)
    )
    member(broken).topology._take(changed)  # it cannot be stored any more, and is known all the same
    await broken.spawn(member(broken).leader_tables.expirer._walk(changed.tables))
    assert world.errors() == []


@simulated(machines=3, partitions=4)
async def test_nothing_expires_any_more_once_that_is_switched_off(world: World) -> None:
    table = await started_with_leaders(world)
    await let_expire(world, table)
    leader = the_leader(world, table, b"k")
    await put(leader, table, b"k", expiring_at(b"v", wall_s() + 3 - MARGIN_S))
    await let_expire(world, table, b"")
    work = member(leader).leader_tables.leader_based.change(
        table, key_of(table, b"k"), EXPIRY, b"", deadline=now_s() + WAIT_S
    )
    with pytest.raises(RequestError, match="do not expire"):
        await leader.spawn(work)
