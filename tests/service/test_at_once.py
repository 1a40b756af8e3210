"""Reads that a node answers itself, in the turn of the loop in which they come, and those that it must not."""

from __future__ import annotations

import asyncio

from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, ReadLevel, ReadQuorums
from merganser.model.leader_messages import Led, ReadLed
from merganser.model.messages import Found, Read, ReadRange, Reply, Rows
from merganser.service.leadership import Led as Term
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage.engine import Batch
from merganser.storage.keys import table_range
from service.led import change, epoch_of, group_of, leader_of, payload_of, started_led, the_leader
from service.plays import ALL, ONE, damage, get, held, key_of, member, put, replicas_of, simulated, started

NAME = b"k"


def of_leader(machine: Machine, table: Table, name: bytes = NAME, *, map_epoch: int = 0) -> Reply | None:
    request = ReadLed(map_epoch, table.id, key_of(table, name), epoch_of(machine, table, name))
    return member(machine).serve_at_once(member(machine).topology.node, request)


def of_replica(machine: Machine, table: Table, name: bytes = NAME, *, map_epoch: int = 0) -> Reply | None:
    request = Read(map_epoch, table.id, key_of(table, name))
    return member(machine).serve_at_once(member(machine).topology.node, request)


def of_range(machine: Machine, table: Table, *, map_epoch: int = 0) -> Reply | None:
    start, end = table_range(table.id)
    request = ReadRange(map_epoch, table.id, start, end, reverse=False, rows_max=10, bytes_max=1000)
    return member(machine).serve_at_once(member(machine).topology.node, request)


@simulated(machines=1)
async def test_the_only_replica_answers_as_a_leader_and_as_a_replica(world: World) -> None:
    table = await started_led(world, n=1)
    (machine,) = world.machines
    await change(machine, table, NAME, payload_of("put", b"v"))
    led, found = of_leader(machine, table), of_replica(machine, table)
    assert isinstance(led, Led)
    assert led.value == b"v"
    assert isinstance(found, Found)
    assert found.row == machine.engine.get(key_of(table, NAME))
    page = of_range(machine, table)
    assert isinstance(page, Rows)
    assert page.rows == ((key_of(table, NAME), found.row),)
    nothing = of_leader(machine, table, b"nothing there")
    assert isinstance(nothing, Led)
    assert nothing.value is None


@simulated(machines=1)
async def test_what_is_not_on_the_disk_yet_is_told_by_nobody(world: World) -> None:
    table = await started_led(world, n=1)
    (machine,) = world.machines
    await change(machine, table, NAME, payload_of("put", b"old"))
    writing = asyncio.ensure_future(change(machine, table, NAME, payload_of("put", b"new")))
    while not leader_of(machine).terms.is_in_flight(_term(machine, table), key_of(table, NAME)):  # noqa: ASYNC110 - by turns
        await asyncio.sleep(0)
    assert of_leader(machine, table) is None
    assert of_replica(machine, table) is None
    assert of_range(machine, table) is None
    await writing
    assert isinstance(of_range(machine, table), Rows)
    answer = of_leader(machine, table)
    assert isinstance(answer, Led)
    assert answer.value == b"new"


@simulated()
async def test_a_leader_of_others_asks_them_first_and_a_replica_does_not(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"v"))
    await asyncio.sleep(1.0)  # so that every replica has it
    assert of_leader(leader, table) is None
    for machine in world.machines:
        assert isinstance(of_replica(machine, table), Found)


@simulated(machines=5)
async def test_who_holds_no_replica_leads_no_more_or_knows_an_older_map_does_not_answer(world: World) -> None:
    table = await started_led(world)
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas_of(world, table, NAME)]
    assert of_replica(outsider, table) is None
    assert of_leader(outsider, table) is None
    assert of_range(outsider, table) is None
    holder = replicas_of(world, table, NAME)[0]
    assert of_replica(holder, table, map_epoch=member(holder).topology.map.epoch + 1) is None
    assert of_range(world.machines[0], table, map_epoch=member(holder).topology.map.epoch + 1) is None


@simulated(machines=5)
async def test_a_replica_that_coordinates_a_read_at_one_asks_nobody_and_others_do(world: World) -> None:
    table = await started(world)
    holders = replicas_of(world, table, NAME)
    await put(holders[0], table, NAME, b"v", level=ALL)
    for machine in world.machines:
        found = at(machine, table)
        assert (found is not None) == (machine in holders)
        assert found is None or found.row == machine.engine.get(key_of(table, NAME))
        assert at(machine, table, level=Consistency.TWO) is None
        assert at(machine, table, level=ReadQuorums(r=2, pr=1)) is None
    assert at(holders[0], table, level=ReadQuorums(r=1)) is not None
    nothing = at(replicas_of(world, table, b"nothing there")[0], table, b"nothing there")
    assert nothing is not None
    assert nothing.row is None
    world.cut_off(holders[0])
    assert await get(holders[0], table, NAME, level=ONE) == b"v"


@simulated()
async def test_a_read_at_one_does_not_tell_what_is_damaged_or_not_on_the_disk_yet(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, NAME, b"old", level=ALL)
    writing = asyncio.ensure_future(put(machine, table, NAME, b"new", level=ALL))
    while member(machine).engine.is_durable(key_of(table, NAME)):  # noqa: ASYNC110 - by turns
        await asyncio.sleep(0)
    assert at(machine, table) is None
    await writing
    assert at(machine, table) is not None
    damage(machine, table, NAME)
    assert at(machine, table) is None
    assert await get(machine, table, NAME, level=ONE) == b"new"


@simulated()
async def test_reads_at_one_look_now_and_then_at_what_the_other_replicas_hold(world: World) -> None:
    table = await started(world)
    reader, missing = world.machines[0], world.machines[1]
    await put(reader, table, NAME, b"v", level=ALL)
    missing.engine.commit(Batch().delete(key_of(table, NAME)))
    for _ in range(1000):  # one in a hundred looks
        assert at(reader, table) is not None
        await asyncio.sleep(0.001)
        if held(missing, table, NAME) is not None:
            break
    assert held(missing, table, NAME) is not None


def at(machine: Machine, table: Table, name: bytes = NAME, *, level: ReadLevel = ONE) -> Found | None:
    return member(machine).coordinator.at_once(table, key_of(table, name), level=level)


def _term(machine: Machine, table: Table) -> Term:
    term = member(machine).leader_tables.leadership.led(group_of(machine, table, NAME))
    assert term is not None
    return term
