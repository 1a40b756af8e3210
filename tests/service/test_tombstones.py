"""Tombstones of registers: dropped by the leader once all hold them, and nothing brings an item back."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import PeerLostError, RefusedError
from merganser.model.leader_messages import STALE_GENERATION, Drop, Replicate
from merganser.model.register import Version
from merganser.sim.machine import IN_FLIGHT_S, Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from merganser.storage import keys
from service.led import (
    can_evaluate,
    change,
    epoch_of,
    group_of,
    leading,
    payload_of,
    plant,
    read,
    register_at,
    started_led,
    term_at,
)
from service.plays import key_of, member, simulated, until


async def put(world: World, table: Table, name: bytes, value: bytes | None) -> Machine:
    machine = leading(world, table, name)
    assert machine is not None
    await change(machine, table, name, payload_of("put", value))
    return machine


async def sweep(machine: Machine, table: Table, name: bytes) -> int:
    term = term_at(machine, table, name)
    assert term is not None
    return await machine.spawn(member(machine).leader_repair.tombstones.sweep(term, table))


async def dropped(machine: Machine, table: Table, name: bytes) -> int:
    """Sweep, wait until what is there is old enough, and sweep again."""
    await sweep(machine, table, name)
    await asyncio.sleep(IN_FLIGHT_S + 0.1)
    return await sweep(machine, table, name)


def holders(world: World, table: Table, name: bytes) -> int:
    return sum(machine.engine.get(key_of(table, name)) is not None for machine in world.machines)


def followers(world: World, leader: Machine) -> list[Machine]:
    return [machine for machine in world.machines if machine is not leader]


def siblings(leader: Machine, table: Table, count: int) -> list[bytes]:
    """Return further names in the partition of `k`."""
    group, names = group_of(leader, table, b"k"), (b"%d" % number for number in itertools.count())
    return list(itertools.islice((name for name in names if group_of(leader, table, name) == group), count))


async def deleted(world: World) -> tuple[Table, Machine, Machine, Replicate]:
    """Delete an item everywhere; return also who leads it, another replica, and the message that had made it."""
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    other, _ = followers(world, leader)
    await everywhere(world, table, b"k")
    old = leader.engine.get(key_of(table, b"k"))
    assert old is not None
    late = Replicate(0, table.id, key_of(table, b"k"), epoch_of(leader, table, b"k"), old)
    await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    return table, leader, other, late


async def everywhere(world: World, table: Table, name: bytes) -> None:
    key = key_of(table, name)
    await until(lambda: len({machine.engine.get(key) for machine in world.machines}) == 1)


async def send(machine: Machine, sender: Machine, request: Replicate | Drop) -> None:
    await machine.spawn(member(machine).serve(member(sender).topology.node, request))


@simulated()
async def test_a_tombstone_that_all_hold_is_dropped_by_all(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    leader = await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    assert await dropped(leader, table, b"k") == 1
    await until(lambda: holders(world, table, b"k") == 0)
    assert (await read(leader, table, b"k")).value is None
    await put(world, table, b"k", b"again")
    assert (await read(leader, table, b"k")).value == b"again"


@simulated()
async def test_values_stay_and_so_do_tombstones_that_are_younger_than_a_request(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    assert await dropped(leader, table, b"k") == 0
    await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    await asyncio.sleep(IN_FLIGHT_S + 0.1)
    assert await sweep(leader, table, b"k") == 0
    assert await sweep(leader, table, b"k") == 0  # what was noted by the last is not old enough yet
    (younger,) = siblings(leader, table, 1)
    await put(world, table, younger, None)
    await everywhere(world, table, younger)
    await asyncio.sleep(IN_FLIGHT_S + 0.1)
    assert await sweep(leader, table, b"k") == 1
    assert holders(world, table, younger) == 3


@simulated()
async def test_what_one_replica_holds_otherwise_is_not_dropped(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    leader = await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    tombstone = register_at(leader, table, b"k")
    for other in followers(world, leader):
        plant(other, table, b"k", Version(tombstone.version.number, tombstone.version.leader, 0), b"value")
        assert await dropped(leader, table, b"k") == 0
        assert leader.engine.get(key_of(table, b"k")) is not None
        plant(other, table, b"k", tombstone.version, None)
    assert await dropped(leader, table, b"k") == 1


@simulated()
async def test_what_is_put_while_it_is_about_to_be_dropped_stays(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", None)
    names = siblings(leader, table, 40)
    for name in names:
        await put(world, table, name, None)
    await sweep(leader, table, b"k")
    await asyncio.sleep(IN_FLIGHT_S + 0.1)
    work = asyncio.get_running_loop().create_task(sweep(leader, table, b"k"))
    world.network.conditions = Conditions(delay_s=(0.05, 0.05))  # so that most are put while replicas are asked
    puts = []
    for name in names:
        await asyncio.sleep(0.005)
        puts.append(asyncio.get_running_loop().create_task(put(world, table, name, b"again")))
    assert await work >= 1
    await asyncio.gather(*puts)
    for name in names:
        assert (await read(leader, table, name)).value == b"again"
        await everywhere(world, table, name)
        assert register_at(leader, table, name).value == b"again"


@simulated()
async def test_with_a_replica_away_nothing_is_dropped(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    await everywhere(world, table, b"k")
    behind, _ = followers(world, leader)
    world.cut_off(behind)
    await put(world, table, b"k", None)
    with pytest.raises(PeerLostError):
        await dropped(leader, table, b"k")
    assert register_at(behind, table, b"k").value == b"value"
    assert leader.engine.get(key_of(table, b"k")) is not None


@simulated()
async def test_a_message_from_before_the_drop_brings_nothing_back(world: World) -> None:
    table, leader, other, late = await deleted(world)
    await dropped(leader, table, b"k")
    await until(lambda: holders(world, table, b"k") == 0)
    with pytest.raises(RefusedError) as refusal:
        await send(other, leader, late)
    assert refusal.value.code == STALE_GENERATION
    assert other.engine.get(late.key) is None


@simulated()
async def test_the_generation_outlives_a_power_cut(world: World) -> None:
    table, leader, other, late = await deleted(world)
    await dropped(leader, table, b"k")
    await until(lambda: holders(world, table, b"k") == 0 and other.engine.is_all_durable)
    other.crash()
    other.start()
    await world.up(other)
    with pytest.raises(RefusedError):
        await send(other, leader, late)
    assert other.engine.get(late.key) is None


@simulated()
async def test_a_replica_that_lost_its_log_after_a_drop_takes_nothing_from_before_it(world: World) -> None:
    table, leader, other, late = await deleted(world)
    assert await dropped(leader, table, b"k") == 1
    other.disk.cut_log(10_000)
    other.crash()
    other.start()
    await world.up(other)
    assert other.engine.lost is not None
    await until(lambda: other.engine.lost is None, timeout_s=120.0)
    with pytest.raises(RefusedError) as refusal:
        await send(other, leader, late)
    assert refusal.value.code == STALE_GENERATION
    assert other.engine.get(late.key) is None


@simulated()
async def test_what_was_sent_before_a_drop_and_is_still_wanted_is_sent_again(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    names = siblings(leader, table, 50)
    await sweep(leader, table, b"k")
    await asyncio.sleep(IN_FLIGHT_S + 0.1)
    world.network.conditions = Conditions(delay_s=(0.001, 0.2))  # what was sent before arrives after
    work = asyncio.get_running_loop().create_task(sweep(leader, table, b"k"))
    puts: list[asyncio.Task[Machine]] = []
    for name in itertools.cycle(names):
        if work.done() or len(puts) == len(names):
            break
        puts.append(asyncio.get_running_loop().create_task(put(world, table, name, b"sent again")))
        await asyncio.sleep(0.01)
    assert await work == 1
    await asyncio.gather(*puts)
    for name in names[: len(puts)]:
        await everywhere(world, table, name)
        assert (await read(leader, table, name)).value == b"sent again"


@simulated()
async def test_only_exactly_that_version_is_dropped(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", None)
    other, _ = followers(world, leader)
    await everywhere(world, table, b"k")
    held, group, epoch = register_at(other, table, b"k"), group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    wrong = Version(held.version.number, held.version.leader, held.version.sequence + 1)
    map_epoch = member(leader).topology.map.epoch
    drop = Drop(map_epoch, table.id, group.partition, epoch, 1, ((key_of(table, b"k"), wrong),))
    await send(other, leader, drop)
    assert register_at(other, table, b"k") == held
    assert other.engine.get(key_of(table, b"k")) is not None


@simulated()
async def test_a_replica_that_missed_the_drop_is_made_equal_and_nothing_lives(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    leader = await put(world, table, b"k", None)
    other, _ = followers(world, leader)
    await everywhere(world, table, b"k")
    await dropped(leader, table, b"k")
    await until(lambda: holders(world, table, b"k") == 0)
    plant(other, table, b"k", Version(epoch_of(leader, table, b"k").number, 1, 2), None)  # as if it had missed it
    term = term_at(leader, table, b"k")
    assert term is not None
    settle = member(leader).leader_tables.leader.settle
    await leader.spawn(settle(table, key_of(table, b"k"), led=term, toward=member(other).topology.node))
    await everywhere(world, table, b"k")
    assert (await read(leader, table, b"k")).value is None


@simulated()
async def test_a_new_leader_of_replicas_of_which_one_missed_the_drop_sees_no_item(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    leader = await put(world, table, b"k", None)
    other, _ = followers(world, leader)
    await everywhere(world, table, b"k")
    tombstone = other.engine.get(key_of(table, b"k"))
    await dropped(leader, table, b"k")
    await until(lambda: holders(world, table, b"k") == 0)
    member(other).trees.write([(table.id, key_of(table, b"k"), None, tombstone)])
    leader.crash()
    await until(lambda: leading(world, table, b"k") not in (None, leader))
    new = leading(world, table, b"k")
    assert new is not None
    assert (await read(new, table, b"k")).value is None


@simulated()
async def test_what_an_earlier_leader_deleted_is_dropped_too(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 4.0
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    leader = await put(world, table, b"k", None)
    await everywhere(world, table, b"k")
    leader.crash()
    await until(lambda: leading(world, table, b"k") not in (None, leader))
    leader.start()
    await world.up(leader)
    can_evaluate(leader)
    assert holders(world, table, b"k") == 3
    await until(lambda: holders(world, table, b"k") == 0, timeout_s=120.0)


@simulated()
async def test_in_the_background_all_tombstones_go_and_all_replicas_stay_equal(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 4.0
    table = await started_led(world)
    for number in range(40):
        await put(world, table, b"%d" % number, b"value")
    for number in range(30):
        await put(world, table, b"%d" % number, None)
    await until(lambda: all(holders(world, table, b"%d" % number) == 0 for number in range(30)), timeout_s=120.0)
    assert all(holders(world, table, b"%d" % number) == 3 for number in range(30, 40))
    start, end = keys.table_range(table.id)
    assert len({tuple(machine.engine.scan(start, end)) for machine in world.machines}) == 1
