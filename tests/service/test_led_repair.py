"""Followers that differ from their leader: found, and settled by the leader, byte for byte."""

from __future__ import annotations

import asyncio

from merganser.model.cluster import Table
from merganser.model.register import Version
from merganser.service.repairing import Repaired
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import change, epoch_of, group_of, leading, payload_of, plant, read, register_at, started_led
from service.plays import key_of, member, now_s, simulated, until


async def put(world: World, table: Table, name: bytes, value: bytes | None) -> None:
    machine = leading(world, table, name)
    assert machine is not None
    await change(machine, table, name, payload_of("put", value))


def held_by(machine: Machine, table: Table) -> dict[bytes, bytes]:
    return dict(machine.engine.scan(*keys.table_range(table.id)))


def are_equal(world: World, table: Table) -> bool:
    first, *others = (held_by(machine, table) for machine in world.machines)
    return all(other == first for other in others)


async def repaired(machine: Machine, table: Table, name: bytes, *, is_dry_run: bool = False) -> Repaired:
    _, partition = group_of(machine, table, name)
    work = member(machine).repairing.repair(table, partition, deadline=now_s() + 60.0, is_dry_run=is_dry_run)
    return await machine.spawn(work)


def follower(world: World, table: Table, name: bytes) -> Machine:
    return next(machine for machine in world.machines if machine is not leading(world, table, name))


@simulated()
async def test_a_replica_that_was_away_has_what_it_missed_seconds_after_it_is_back(world: World) -> None:
    table = await started_led(world)
    for number in range(60):
        await put(world, table, b"%d" % number, b"before")
    away = world.machines[2]
    away.crash()
    await until(lambda: all(leading(world, table, b"%d" % number) for number in range(60)))
    for number in range(60):
        await put(world, table, b"%d" % number, b"after")
    await asyncio.sleep(30.0)
    away.start()
    await world.up(away)
    began_s = now_s()
    await until(lambda: are_equal(world, table))
    assert now_s() - began_s < 12.0
    assert register_at(away, table, b"7").value == b"after"


@simulated()
async def test_a_replica_that_was_cut_off_and_takes_over_nothing_is_brought_up_by_the_leader(world: World) -> None:
    table = await started_led(world)
    lonely = follower(world, table, b"k")
    world.cut_off(lonely)
    await until(lambda: leading(world, table, b"k") is not lonely and leading(world, table, b"k") is not None)
    await put(world, table, b"k", b"value")
    await asyncio.sleep(60.0)
    assert register_at(lonely, table, b"k").value is None
    world.network.heal()
    await until(lambda: register_at(lonely, table, b"k").value == b"value", timeout_s=15.0)
    await until(lambda: are_equal(world, table), timeout_s=15.0)


@simulated()
async def test_what_an_earlier_leader_left_on_a_follower_is_outranked(world: World) -> None:
    table = await started_led(world)
    leader, other = leading(world, table, b"k"), follower(world, table, b"k")
    assert leader is not None
    epoch = epoch_of(leader, table, b"k")
    plant(other, table, b"k", Version(epoch.number - 1, 9, 5), b"of nobody")
    assert (await read(leader, table, b"k")).value is None
    done = await repaired(leader, table, b"k")
    assert [comparison.differing for comparison in done.peers.values() if comparison.differing] == [1]
    assert are_equal(world, table)
    assert register_at(other, table, b"k") == register_at(leader, table, b"k")
    assert register_at(other, table, b"k").version.epoch == epoch


@simulated()
async def test_a_repair_asked_of_a_follower_is_done_by_the_leader(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    await until(lambda: are_equal(world, table))
    asked = follower(world, table, b"k")
    for machine in world.machines:
        if machine is not leading(world, table, b"k"):
            key = key_of(table, b"k")
            member(machine).trees.write([(table.id, key, machine.engine.get(key), None)])
    counted = await repaired(asked, table, b"k", is_dry_run=True)
    assert [comparison.differing for comparison in counted.peers.values()] == [1, 1]
    assert not are_equal(world, table)
    done = await repaired(asked, table, b"k")
    assert sorted(done.peers) == sorted(
        member(machine).topology.node for machine in world.machines if machine is not leading(world, table, b"k")
    )
    assert not any(comparison.problem for comparison in done.peers.values())
    assert are_equal(world, table)


@simulated()
async def test_what_a_follower_refused_for_a_while_is_compared_soon_after(world: World) -> None:
    table = await started_led(world)
    other = follower(world, table, b"k")
    other.disk.fill()
    names = [b"%d" % n for n in range(100) if leading(world, table, b"%d" % n) is not other]
    for name in names:
        await put(world, table, name, b"value")
    await asyncio.sleep(10.0)
    assert not are_equal(world, table)
    other.disk.free()
    await until(lambda: are_equal(world, table), timeout_s=60.0)


@simulated()
async def test_a_tombstone_that_a_replica_missed_reaches_it(world: World) -> None:
    table = await started_led(world)
    await put(world, table, b"k", b"value")
    await until(lambda: are_equal(world, table))
    away = follower(world, table, b"k")
    away.crash()
    await until(lambda: leading(world, table, b"k") is not None)
    await put(world, table, b"k", None)
    away.start()
    await world.up(away)
    await until(lambda: are_equal(world, table), timeout_s=30.0)
    assert register_at(away, table, b"k").value is None


@simulated(partitions=64)
async def test_what_a_replica_is_known_to_have_missed_is_compared_before_all_else(world: World) -> None:
    table = await started_led(world)
    away, name = world.machines[2], b"7"
    await put(world, table, name, b"before")
    leader = leading(world, table, name)
    assert leader is not None
    if leader is away:
        away = world.machines[1]
    away.crash()
    await asyncio.sleep(30.0)  # others lead what it led, and have found it gone
    await put(world, table, name, b"after")
    await asyncio.sleep(10.0)
    begun: list[tuple[int, int, str]] = []
    repair = member(leader).leader_repair.led_repair
    begin = repair._begin

    def record(pair: tuple[int, int, str]) -> None:
        begun.append(pair)
        begin(pair)  # type: ignore[arg-type]

    repair._begin = record  # type: ignore[method-assign]
    away.start()
    await world.up(away)
    with_it = member(away).topology.node
    await until(lambda: len({pair for pair in begun if pair[2] == with_it}) > 10)
    first = next(pair for pair in begun if pair[2] == with_it)
    assert first == (table.id, group_of(leader, table, name)[1], with_it)
    await until(lambda: register_at(away, table, name).value == b"after")
