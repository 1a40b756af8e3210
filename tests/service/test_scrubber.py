"""The scrub finds what rots unread, goes on where it was, and counts leaves that no longer tell what is stored."""

from __future__ import annotations

import asyncio

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import PartitionId
from merganser.service.scrubber import SLICE_ROWS
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import ALL, damage, key_of, member, now_s, put, simulated, started, until

NAME = b"k"
INTERVAL_S = 160.0


async def started_scrubbing(world: World) -> Table:
    """Start a cluster whose scrubs take a few minutes."""
    for machine in world.machines:
        machine.scrub_interval_s = INTERVAL_S
    return await started(world)


def partition_of(machine: Machine, name: bytes = NAME) -> PartitionId:
    return member(machine).topology.ring.partition_of(token_of(name))


@simulated()
async def test_a_row_that_rots_unread_is_found_within_an_interval_and_healed(world: World) -> None:
    table = await started_scrubbing(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    victim, other, _ = world.machines
    key = key_of(table, NAME)
    victim.engine.rot(key, bit=99)
    assert victim.engine.get(key) != other.engine.get(key)
    began_s = now_s()
    await until(lambda: member(victim).damage.found, timeout_s=2 * INTERVAL_S)
    assert now_s() - began_s <= 1.3 * INTERVAL_S
    await until(lambda: not member(victim).damage.wounds)
    assert victim.engine.get(key) == other.engine.get(key)


@simulated()
async def test_every_row_of_every_partition_is_looked_at_once_a_pass(world: World) -> None:
    table = await started_scrubbing(world)
    machine = world.machines[0]
    for i in range(100):
        await put(machine, table, b"%d" % i, b"v", level=ALL)
    scrubber = member(machine).scrubber
    await until(lambda: scrubber.passes == 1, timeout_s=2 * INTERVAL_S)
    seen, began_s = scrubber.rows, now_s()
    await until(lambda: scrubber.passes == 2, timeout_s=2 * INTERVAL_S)
    assert scrubber.rows - seen == 100
    assert 0.8 * INTERVAL_S < now_s() - began_s < 1.2 * INTERVAL_S
    assert scrubber.leaves_wrong == 0


@simulated()
async def test_a_partition_of_many_slices_is_seen_to_its_end(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    names = [name for i in range(20_000) if partition_of(machine, name := b"%d" % i) == 3][: 3 * SLICE_ROWS + 1]
    for name in names:
        await put(machine, table, name, b"v")
    await asyncio.sleep(1)
    last = max(names, key=lambda name: key_of(table, name))
    damage(machine, table, last)
    seen = await machine.spawn(member(machine).scrubber.scrub(table, PartitionId(3)))
    assert (seen.rows, seen.damaged, seen.unreadable) == (len(names), 1, 0)


@simulated()
async def test_a_leaf_that_no_longer_tells_what_is_stored_is_counted_anew(world: World) -> None:
    table = await started(world)
    machine, other, _ = world.machines
    await put(machine, table, NAME, b"v", level=ALL)
    partition = partition_of(machine)
    for one in (machine, other):
        await one.spawn(member(one).trees.ready(table, partition, deadline=now_s() + 5))
    machine.engine.rot(key_of(table, NAME), bit=77)
    roots = [member(one).trees.nodes(table.id, partition, 0, (0,)) for one in (machine, other)]
    assert roots[0] == roots[1]  # nobody but a scrub would find out
    seen = await machine.spawn(member(machine).scrubber.scrub(table, partition))
    assert (seen.damaged, seen.leaves_wrong) == (1, 1)
    assert member(machine).trees.nodes(table.id, partition, 0, (0,)) != roots[1]
    await until(lambda: not member(machine).damage.wounds)
    assert member(machine).trees.nodes(table.id, partition, 0, (0,)) == roots[1]


@simulated()
async def test_a_dry_run_notes_nothing_and_changes_nothing(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, NAME, b"v", level=ALL)
    damaged = damage(machine, table, NAME)
    seen = await machine.spawn(member(machine).scrubber.scrub(table, partition_of(machine), is_dry_run=True))
    assert seen.damaged == 1
    await asyncio.sleep(60)
    assert member(machine).damage.found == 0
    assert machine.engine.get(key_of(table, NAME)) == damaged


@simulated()
async def test_a_restart_goes_on_where_the_pass_was(world: World) -> None:
    table = await started_scrubbing(world)
    machine = world.machines[0]
    await until(lambda: member(machine).scrubber.position.partition == 7, timeout_s=2 * INTERVAL_S)
    position = member(machine).scrubber.position
    await machine.spawn(machine.engine.durable())
    machine.crash()
    machine.start()
    await world.up(machine)
    assert member(machine).scrubber.position == position
    began_s = now_s()
    await until(lambda: member(machine).scrubber.passes == 1, timeout_s=2 * INTERVAL_S)
    assert now_s() - began_s < 0.6 * INTERVAL_S
    assert table.id == position.table


@simulated()
async def test_a_damaged_position_means_the_beginning(world: World) -> None:
    await started_scrubbing(world)
    machine = world.machines[0]
    await until(lambda: member(machine).scrubber.position.partition == 2, timeout_s=2 * INTERVAL_S)
    await machine.spawn(machine.engine.durable())
    machine.crash()
    machine.engine.rot(b"\x00\x00\x00\x00scrub", bit=60)
    machine.start()
    await world.up(machine)
    assert member(machine).scrubber.position.partition == -1
