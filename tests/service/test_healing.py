"""Damaged rows are refused, and put right from all other replicas: never from fewer, never with less."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.horizon import Standing
from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import PartitionId
from merganser.model.messages import Read, ReadRange
from merganser.service.damage import WAITING_MAX, Wound
from merganser.sim.machine import IN_FLIGHT_S, Machine
from merganser.sim.world import World
from merganser.storage.engine import Batch
from merganser.storage.values import encode_row
from service.plays import (
    ALL,
    damage,
    get,
    held,
    key_of,
    member,
    now_s,
    put,
    replicas_of,
    settled,
    simulated,
    started,
    until,
)

NAME = b"k"


async def ask_for(machine: Machine, table: Table, name: bytes = NAME) -> None:
    """Have ``machine`` look at its own copy, and refuse it."""
    with pytest.raises(CorruptionError):
        await machine.spawn(
            member(machine).serve(member(machine).topology.node, Read(0, table.id, key_of(table, name)))
        )


def wounds(machine: Machine) -> list[Wound]:
    return list(member(machine).damage.wounds.values())


def stored(machine: Machine, table: Table, name: bytes = NAME) -> bytes | None:
    return machine.engine.get(key_of(table, name))


async def healed(machine: Machine) -> None:
    await until(lambda: not wounds(machine))


async def are_trees_equal(one: Machine, other: Machine, table: Table) -> bool:
    """Compare the partition of the key by the trees alone, which no row is read for."""
    roots = set()
    for machine in (one, other):
        trees, partition = member(machine).trees, partition_of(machine)
        await machine.spawn(trees.ready(table, partition, deadline=now_s() + 5))
        roots.add(trees.nodes(table.id, partition, 0, (0,)))
    return len(roots) == 1


def partition_of(machine: Machine) -> PartitionId:
    return member(machine).topology.ring.partition_of(token_of(NAME))


@simulated()
async def test_a_damaged_row_that_is_read_becomes_what_the_others_hold_byte_for_byte(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    victim, other, _ = replicas_of(world, table, NAME)
    damage(victim, table, NAME)
    assert await get(victim, table, NAME) == b"v"  # from the others
    await ask_for(victim, table)
    await healed(victim)
    assert stored(victim, table) == stored(other, table)
    assert victim.engine.is_durable(key_of(table, NAME))
    assert member(victim).healing.healed == 1
    assert await are_trees_equal(victim, other, table)


@simulated()
async def test_a_write_that_meets_a_damaged_row_is_refused_and_has_it_healed(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"old", level=ALL)
    victim, other, _ = replicas_of(world, table, NAME)
    damaged = damage(victim, table, NAME)
    await put(other, table, NAME, b"new")
    assert stored(victim, table) == damaged
    await until(lambda: stored(victim, table) != damaged)
    assert stored(victim, table) == stored(other, table)


@simulated()
async def test_a_range_that_meets_a_damaged_row_has_it_healed(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    victim, other, _ = replicas_of(world, table, NAME)
    damaged = damage(victim, table, NAME)
    key = key_of(table, NAME)
    with pytest.raises(CorruptionError):
        member(victim).replica._page(ReadRange(0, table.id, key, key + b"\x00", False, 10, 1000), ())
    await until(lambda: stored(victim, table) != damaged)
    assert stored(victim, table) == stored(other, table)


@simulated()
async def test_with_one_replica_away_the_row_stays_refused_and_never_becomes_an_older_one(world: World) -> None:
    table = await started(world)
    victim, away, stale = replicas_of(world, table, NAME)
    await put(victim, table, NAME, b"old", level=ALL)
    world.cut_off(stale)
    await put(victim, table, NAME, b"new")  # acknowledged by the two that see each other
    await settled(world)
    world.network.heal()
    world.cut_off(away)
    damaged = damage(victim, table, NAME)
    await ask_for(victim, table)
    await asyncio.sleep(60)
    assert stored(victim, table) == damaged
    (wound,) = wounds(victim)
    assert wound.tries > 2
    assert member(away).topology.node in wound.problem
    world.network.heal()
    await healed(victim)
    assert await get(victim, table, NAME, level=ALL) == b"new"
    assert stored(victim, table) == stored(away, table)


@simulated()
async def test_two_damaged_copies_of_one_row_stay_refused_rather_than_believe_the_third(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    one, other, _ = replicas_of(world, table, NAME)
    for machine in (one, other):
        damage(machine, table, NAME)
        await ask_for(machine, table)
    await asyncio.sleep(60)
    assert "damaged value" in wounds(one)[0].problem
    assert "damaged value" in wounds(other)[0].problem


@simulated()
async def test_a_write_under_way_when_the_damage_is_met_is_waited_for(world: World) -> None:
    """It was acked by the damaged replica, and will be by a second one within its deadline."""
    table = await started(world)
    await put(world.machines[0], table, NAME, b"old", level=ALL)
    victim, second, _ = replicas_of(world, table, NAME)
    await put(victim, table, NAME, b"new", level=ALL)
    row = held(victim, table, NAME)
    assert row is not None
    second.engine.commit(Batch().delete(key_of(table, NAME)))  # as if it were still on its way there
    damage(victim, table, NAME)
    await ask_for(victim, table)
    await asyncio.sleep(IN_FLIGHT_S - 0.5)
    second.engine.commit(Batch().put(key_of(table, NAME), encode_row(key_of(table, NAME), row)))
    await healed(victim)
    assert held(victim, table, NAME) == row


@simulated()
async def test_what_no_other_replica_holds_is_removed(world: World) -> None:
    table = await started(world)
    victim, other, third = replicas_of(world, table, NAME)
    await put(victim, table, NAME, b"v", level=ALL)
    for machine in (other, third):
        machine.engine.commit(Batch().delete(key_of(table, NAME)))
    damage(victim, table, NAME)
    await ask_for(victim, table)
    await healed(victim)
    assert stored(victim, table) is None


@simulated()
async def test_the_only_replica_of_a_row_says_why_it_cannot_be_healed(world: World) -> None:
    table = await started(world, n=1)
    (only,) = replicas_of(world, table, NAME)
    await put(only, table, NAME, b"v")
    damage(only, table, NAME)
    await ask_for(only, table)
    await until(lambda: wounds(only)[0].tries > 0)
    assert wounds(only)[0].problem == "no other replica holds it: it can only come back from a backup"


@simulated()
async def test_the_damage_of_a_dropped_table_is_forgotten(world: World) -> None:
    table = await started(world, n=1)
    (only,) = replicas_of(world, table, NAME)
    await put(only, table, NAME, b"v")
    damage(only, table, NAME)
    await ask_for(only, table)
    catalog = member(only).catalog
    await only.spawn(catalog.drop_table(table, deadline=now_s() + 10))
    await healed(only)


@simulated()
async def test_behind_an_authority_the_partition_answers_no_reads_until_it_is_level(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    victim, *others = replicas_of(world, table, NAME)
    partition = partition_of(victim)
    horizon_us = victim.wall_us() + 1
    for machine in others:  # a round that the victim did not hear of
        horizons = member(machine).horizons
        await machine.spawn(horizons.seal(table.id, partition, horizon_us))
        vow = horizons.vow(table.id, partition)
        await machine.spawn(horizons.complete(table.id, partition, horizon_us, vow=vow))
    damage(victim, table, NAME)
    await ask_for(victim, table)
    mine = member(victim).horizons
    await until(lambda: not mine.of(table.id, partition).is_whole)
    with pytest.raises(RefusedError, match="may have vanished"):
        mine.check_whole(table.id, partition)
    await until(lambda: mine.of(table.id, partition).is_whole, timeout_s=300)
    assert mine.of(table.id, partition) == Standing(horizon_us, horizon_us, mine.of(table.id, partition).purged_us)
    await healed(victim)
    assert stored(victim, table) == stored(others[0], table)
    assert await get(victim, table, NAME, level=ALL) == b"v"


@simulated()
async def test_only_so_much_damage_is_kept_in_mind_and_the_rest_is_counted(world: World) -> None:
    table = await started(world)
    found = member(world.machines[0]).damage
    for i in range(WAITING_MAX + 5):
        found.met_row(table.id, key_of(table, b"%d" % i))
        found.met_row(table.id, key_of(table, b"%d" % i))  # once is enough
    assert (len(found.wounds), found.found, found.overlooked) == (WAITING_MAX, WAITING_MAX, 10)


@simulated()
async def test_a_false_alarm_changes_nothing(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    machine = replicas_of(world, table, NAME)[0]
    before = stored(machine, table)
    member(machine).damage.met_row(table.id, key_of(table, NAME))
    await healed(machine)
    assert stored(machine, table) == before
    assert member(machine).healing.rows_put == 0
