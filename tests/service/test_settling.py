"""Damaged registers of leader-based tables: made right by the leader, and never by something older."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, RefusedError
from merganser.model.leader_messages import Replicate, Settle, Touch
from merganser.model.leadership import Epoch
from merganser.model.register import Content, Register, Version
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage.registers import encode_register
from service.led import (
    change,
    epoch_of,
    group_of,
    leader_of,
    leading,
    payload_of,
    plant,
    read,
    register_at,
    started_led,
    term_at,
)
from service.plays import key_of, member, simulated, until


async def put(world: World, table: Table, name: bytes, value: bytes) -> Machine:
    machine = leading(world, table, name)
    assert machine is not None
    await change(machine, table, name, payload_of("put", value))
    return machine


def rot(machine: Machine, table: Table, name: bytes) -> bytes:
    """Damage a register, and have that noted; returns what it was."""
    key = key_of(table, name)
    stored = machine.engine.get(key)
    assert stored is not None
    machine.disk.rot_row(key)
    assert machine.engine.get(key) != stored
    return stored


def is_there(machine: Machine, table: Table, name: bytes, value: bytes) -> bool:
    return register_at(machine, table, name).value == value


def note(machine: Machine, table: Table, name: bytes) -> None:
    member(machine).damage.met_row(table.id, key_of(table, name))


def followers(world: World, leader: Machine) -> list[Machine]:
    return [machine for machine in world.machines if machine is not leader]


def holds(machine: Machine, table: Table, name: bytes, stored: bytes) -> bool:
    return machine.engine.get(key_of(table, name)) == stored


@simulated()
async def test_a_damaged_register_of_a_follower_is_replaced_within_moments(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    other, _ = followers(world, leader)
    await until(lambda: register_at(other, table, b"k").value == b"value")
    before = rot(other, table, b"k")
    note(other, table, b"k")
    await until(lambda: holds(other, table, b"k", before), timeout_s=2.0)
    await until(lambda: not member(other).damage.wounds)
    assert member(other).healing.rows_put == 1


@simulated()
async def test_a_follower_refuses_to_tell_what_is_damaged_and_notes_it(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    other, third = followers(world, leader)
    await until(lambda: register_at(other, table, b"k").value == b"value")
    before = rot(other, table, b"k")
    touch = Touch(0, table.id, key_of(table, b"k"), epoch_of(leader, table, b"k"))
    with pytest.raises(MerganserError):
        await other.spawn(member(other).serve(member(leader).topology.node, touch))
    await until(lambda: holds(other, table, b"k", before), timeout_s=2.0)
    assert third.member is not None


@simulated()
async def test_a_late_message_does_not_take_the_place_of_what_was_damaged(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"first")
    other, third = followers(world, leader)
    third.crash()
    await until(lambda: register_at(other, table, b"k").value == b"first")
    first = other.engine.get(key_of(table, b"k"))
    assert first is not None
    await put(world, table, b"k", b"second")  # acknowledged by the leader and this one alone
    rot(other, table, b"k")
    late = Replicate(0, table.id, key_of(table, b"k"), epoch_of(leader, table, b"k"), first)
    with pytest.raises(MerganserError):
        await other.spawn(member(other).serve(member(leader).topology.node, late))
    second = leader.engine.get(key_of(table, b"k"))
    assert second is not None
    await until(lambda: holds(other, table, b"k", second), timeout_s=2.0)


@simulated()
async def test_damage_at_the_leader_is_made_good_by_the_replica_that_has_what_was_acknowledged(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"old")
    newer, older = followers(world, leader)
    await until(lambda: register_at(older, table, b"k").value == b"old")
    world.network.cut(leader.address, older.address)
    await put(world, table, b"k", b"acknowledged")
    assert register_at(older, table, b"k").value == b"old"
    rot(leader, table, b"k")
    world.network.heal()
    assert (await read(leader, table, b"k")).value == b"acknowledged"
    assert register_at(newer, table, b"k").value == b"acknowledged"


@simulated()
async def test_damage_at_the_leader_waits_for_both_others_and_makes_up_nothing(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"old")
    newer, older = followers(world, leader)
    await until(lambda: register_at(older, table, b"k").value == b"old")
    world.network.cut(leader.address, older.address)
    await put(world, table, b"k", b"acknowledged")
    rot(leader, table, b"k")
    newer.crash()
    world.network.heal()
    await until(lambda: leading(world, table, b"k") is not None)
    for _ in range(3):
        now_leading = leading(world, table, b"k")
        if now_leading is not None:
            with pytest.raises(MerganserError):
                await read(now_leading, table, b"k")
        await asyncio.sleep(1.0)
    newer.start()
    await world.up(newer)
    await until(lambda: register_at(older, table, b"k").value == b"acknowledged", timeout_s=60.0)
    await until(lambda: holds(leader, table, b"k", older.engine.get(key_of(table, b"k")) or b""), timeout_s=60.0)


@simulated()
async def test_what_is_in_flight_is_put_back_where_it_was_damaged(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"old")
    for other in followers(world, leader):
        await until(partial(is_there, other, table, b"k", b"old"))
        world.network.cut(leader.address, other.address)
    work = change(leader, table, b"k", payload_of("put", b"in flight"))
    waiting = asyncio.get_running_loop().create_task(work)
    await until(lambda: register_at(leader, table, b"k").value == b"in flight")
    written = rot(leader, table, b"k")
    term = term_at(leader, table, b"k")
    assert term is not None
    await leader.spawn(leader_of(leader).known(table, key_of(table, b"k"), led=term))
    assert holds(leader, table, b"k", written)
    world.network.heal()
    await waiting
    assert (await read(leader, table, b"k")).value == b"in flight"


@simulated()
async def test_a_later_promise_than_the_leaders_keeps_its_answer_out(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    other, _ = followers(world, leader)
    await until(lambda: register_at(other, table, b"k").value == b"value")
    rot(other, table, b"k")
    promises, group = member(other).leader_tables.promises, group_of(other, table, b"k")
    settling = member(other).leader_repair.settling
    work = other.spawn(settling.make_right(table, group.partition, [key_of(table, b"k")]))
    await asyncio.sleep(0)
    later = Epoch(promises.of(group).number + 50, member(other).topology.me.number)
    promises.promise([(group, later)])
    with pytest.raises(MerganserError):
        await work


@simulated()
async def test_only_the_leader_settles_and_only_keys_of_the_partition(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    other, _ = followers(world, leader)
    key, group = key_of(table, b"k"), group_of(leader, table, b"k")
    epoch, node = epoch_of(leader, table, b"k"), member(other).topology.node
    map_epoch = member(leader).topology.map.epoch
    with pytest.raises(RefusedError, match="takes no requests"):
        await other.spawn(member(other).serve(node, Settle(map_epoch, table.id, group.partition, epoch, (key,))))
    foreign = next(key_of(table, b"%d" % n) for n in range(99) if group_of(leader, table, b"%d" % n) != group)
    with pytest.raises(RefusedError, match="is no key of"):
        await leader.spawn(member(leader).serve(node, Settle(map_epoch, table.id, group.partition, epoch, (foreign,))))


@simulated()
async def test_a_damaged_register_that_nobody_counted_does_not_pass_for_none(world: World) -> None:
    table = await started_led(world)
    leader = leading(world, table, b"k")
    assert leader is not None
    other, third = followers(world, leader)
    group, epoch = group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    for machine in (other, third):
        plant(machine, table, b"k", Version(epoch.number, epoch.leader, 77), b"acknowledged")
    await asyncio.sleep(2.0)
    rot(other, table, b"k")
    member(other).trees.forget(table.id, group.partition)
    await until(lambda: member(other).trees.is_ready(table.id, group.partition))
    assert member(other).trees.root(table.id, group.partition) is None
    assert member(other).trees.is_flawed(table.id, group.partition)
    key = key_of(table, b"k")
    register = encode_register(key, Register(Version(epoch.number, epoch.leader, 78), Content(b"v")))
    member(other).trees.replace(table.id, group.partition, [(table.id, key, other.engine.get(key), register)])
    assert member(other).trees.root(table.id, group.partition) is not None


@simulated(machines=2)
async def test_of_two_replicas_the_well_one_makes_the_other_right(world: World) -> None:
    table = await started_led(world, n=2)
    leader = await put(world, table, b"k", b"value")
    (other,) = followers(world, leader)
    await until(partial(is_there, other, table, b"k", b"value"))
    rot(leader, table, b"k")
    assert (await read(leader, table, b"k")).value == b"value"
    await until(lambda: not member(leader).damage.wounds)
    before = rot(other, table, b"k")
    note(other, table, b"k")
    await until(lambda: holds(other, table, b"k", leader.engine.get(key_of(table, b"k")) or b""))
    assert before != b""
