"""A node that lost what it had synced serves nobody until it is whole; one that is short of room takes no rows."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.register import NO_BALLOT
from merganser.core.token import token_of
from merganser.core.wholeness import LOST, SHORT
from merganser.model.consistency import Consistency
from merganser.model.errors import RefusedError, UnavailableError
from merganser.model.ids import PartitionId
from merganser.model.messages import Apply, Prepare, Read
from merganser.service.horizons import Horizons
from merganser.service.wholeness import NO_OTHER_VOTER, NOBODY_ELSE, Wholeness
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage.engine import Batch
from service.plays import ALL, QUORUM, damage, get, held, key_of, member, put, read, settled, simulated, started, until

EVERYTHING = 10_000


async def compare_with_nobody(*_of_the_partition: object, **_how: object) -> None:
    raise UnavailableError("this node compares with nobody")


async def lose(world: World, machine: Machine, batches: int = EVERYTHING, *, recovers: bool = True) -> None:
    machine.disk.cut_log(batches)
    machine.crash()
    machine.start()
    back = await world.up(machine)
    if not recovers:
        back.purger.synchronise = compare_with_nobody
    assert machine.engine.lost is not None


@simulated()
async def test_a_node_that_lost_its_log_comes_back_whole_with_all_that_was_acknowledged(world: World) -> None:
    table = await started(world)
    for number in range(20):
        await put(world.machines[number % 3], table, b"%d" % number, b"value", level=QUORUM)
    await lose(world, world.machines[1])
    assert world.machines[1].engine.lost is not None
    await until(lambda: world.machines[1].engine.lost is None)
    assert all(held(world.machines[1], table, b"%d" % number) is not None for number in range(20))
    assert member(world.machines[1]).wholeness.progress().partitions_left == 0
    assert await get(world.machines[1], table, b"7", level=ALL) == b"value"


@simulated()
async def test_while_it_is_not_whole_it_refuses_reads_and_clients_and_takes_repairs(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"value", level=ALL)
    key = key_of(table, b"k")
    row = world.machines[0].engine.get(key)
    assert row is not None
    await lose(world, world.machines[1], recovers=False)
    await until(lambda: not member(world.machines[1]).catalog.is_forgetful)
    await until(lambda: member(world.machines[1]).topology.table(table.id) is not None)
    victim, epoch = member(world.machines[1]), member(world.machines[0]).topology.map.epoch
    asker = member(world.machines[0]).topology.node
    for request in Read(epoch, table.id, key), Apply(epoch, table.id, key, row):
        with pytest.raises(RefusedError) as refusal:
            await world.machines[1].spawn(victim.serve(asker, request))
        assert refusal.value.code == LOST
    await world.machines[1].spawn(victim.serve(asker, Apply(epoch, table.id, key, row, vouched_us=0)))
    assert held(world.machines[1], table, b"k") is not None


@simulated()
async def test_its_coordinator_goes_on_through_the_other_replicas(world: World) -> None:
    table = await started(world)
    await lose(world, world.machines[1], recovers=False)
    await until(lambda: member(world.machines[1]).topology.table(table.id) is not None)
    await put(world.machines[1], table, b"k", b"value")
    assert await get(world.machines[1], table, b"k") == b"value"
    with pytest.raises(UnavailableError):
        await read(world.machines[1], table, b"k", level=ALL)


@simulated()
async def test_it_votes_again_only_once_it_has_heard_from_the_other_voters(world: World) -> None:
    await started(world)
    victim = world.machines[2]
    world.network.cut(victim.address, world.machines[0].address)
    await lose(world, victim, batches=1)
    for _ in range(3):
        with pytest.raises(RefusedError, match="voters"):
            await victim.spawn(member(victim).serve(member(victim).topology.node, Prepare(NO_BALLOT)))
    world.network.heal()
    await until(lambda: not member(victim).catalog.is_forgetful)
    await victim.spawn(member(victim).serve(member(victim).topology.node, Prepare(NO_BALLOT)))


@simulated()
async def test_it_mints_nothing_it_may_have_minted_before(world: World) -> None:
    table = await started(world)
    machine = world.machines[1]
    before = await put(machine, table, b"k", b"old")
    machine.skew_us = -5_000_000
    await lose(world, machine)
    await until(lambda: member(machine).topology.table(table.id) is not None)
    assert await put(machine, table, b"k", b"new") > before
    await settled(world)


@simulated()
async def test_rows_that_no_other_node_has_stay_lost_until_the_operator_accepts_it(world: World) -> None:
    table = await started(world, n=1)
    machine = world.machines[1]
    await lose(world, machine, batches=1)
    await until(lambda: NOBODY_ELSE in member(machine).wholeness.progress().in_the_way)
    assert "--accept-loss" in NOBODY_ELSE
    assert machine.engine.lost is not None
    machine.accepts_loss = True
    machine.crash()
    machine.start()
    await world.up(machine)
    await until(lambda: machine.engine.lost is None and not member(machine).catalog.is_forgetful)
    await put(machine, table, b"k", b"value")


@simulated(machines=1)
async def test_the_only_voter_stays_lost_until_the_operator_accepts_it(world: World) -> None:
    await started(world, n=1)
    machine = world.machines[0]
    await lose(world, machine, batches=1)
    await until(lambda: member(machine).wholeness.progress().in_the_way)
    assert NO_OTHER_VOTER.startswith("this node alone")
    machine.accepts_loss = True
    machine.crash()
    machine.start()
    await world.up(machine)
    await until(lambda: machine.engine.lost is None)
    await world.table("another", n=1)


@simulated(machines=4)
async def test_a_node_short_of_room_takes_no_rows_serves_reads_and_takes_rows_again_by_itself(world: World) -> None:
    table = await started(world)
    machine = world.machines[1]
    await put(machine, table, b"k", b"value", level=ALL)
    machine.disk.fill()
    await until(lambda: member(machine).wholeness.is_refusing)
    apply = Apply(1, table.id, key_of(table, b"k"), b"")
    with pytest.raises(RefusedError) as refusal:
        await machine.spawn(member(machine).serve(member(machine).topology.node, apply))
    assert refusal.value.code == SHORT
    assert await get(machine, table, b"k") == b"value"
    await put(machine, table, b"k", b"newer", level=QUORUM)
    deadline = world.loop.time() + 5.0
    await machine.spawn(member(machine).catalog.drop_table(table, deadline=deadline))
    machine.disk.free()
    await until(lambda: not member(machine).wholeness.is_refusing)


@simulated()
async def test_a_write_that_no_replica_has_room_for_is_unavailable_and_certainly_unwritten(world: World) -> None:
    table = await started(world)
    for machine in world.machines:
        machine.disk.fill()
    await until(lambda: all(member(machine).wholeness.is_refusing for machine in world.machines))
    with pytest.raises(UnavailableError, match="short of disk"):
        await put(world.machines[0], table, b"k", b"value", level=Consistency.ONE)
    await settled(world)
    assert all(held(machine, table, b"k") is None for machine in world.machines)


async def read_of_what_only_the_lost_node_and_one_away_acknowledged(world: World) -> bytes | None:
    """Acknowledged by 0 and 1; then 1 loses it, and a quorum of 1 and 2 is asked while 0 is away."""
    table = await started(world)
    holder, victim, ignorant = world.machines
    world.cut_off(ignorant)
    await put(holder, table, b"k", b"value")
    holder.crash()
    world.network.heal()
    await lose(world, victim, recovers=False)
    await until(lambda: member(ignorant).transport.is_reachable(member(victim).topology.node))
    return await get(ignorant, table, b"k")


def test_what_only_the_lost_node_and_one_that_is_away_acknowledged_is_not_called_absent() -> None:
    with pytest.raises(UnavailableError):
        World(1).run(read_of_what_only_the_lost_node_and_one_away_acknowledged)


def test_a_node_that_served_at_once_would_call_an_acknowledged_row_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wholeness, "check", lambda _self, _request: None)
    monkeypatch.setattr(Horizons, "check_whole", lambda _self, _table, _partition: None)
    assert World(1).run(read_of_what_only_the_lost_node_and_one_away_acknowledged) is None


@simulated()
async def test_a_damaged_row_elsewhere_does_not_keep_a_node_from_becoming_whole(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    well, other = sorted((world.machines[0], world.machines[2]), key=lambda machine: member(machine).topology.node)
    trees = member(other).trees  # of the one that is asked last, when the row is known
    damage(other, table, b"k")
    partition = member(other).topology.ring.partition_of(token_of(b"k"))
    trees.recount(table.id, partition, trees.leaf_of(table.id, partition, key_of(table, b"k")))
    await lose(world, world.machines[1])
    await until(lambda: world.machines[1].engine.lost is None, timeout_s=600.0)
    await until(lambda: not member(other).damage.wounds)
    assert held(other, table, b"k") == held(world.machines[1], table, b"k") == held(well, table, b"k")


@simulated()
async def test_recovery_believes_no_image_of_a_tree_that_the_loss_left_behind(world: World) -> None:
    table = await started(world)
    for number in range(20):
        await put(world.machines[0], table, b"%d" % number, b"v", level=ALL)
    victim = world.machines[1]
    await asyncio.sleep(5 * victim.trees_look_s)  # virtual: images are kept
    for number in range(20):  # what a newer log that is replayed without an older one leaves
        victim.engine.commit(Batch().delete(key_of(table, b"%d" % number)))
    await victim.spawn(victim.engine.mark_lost("an older file of the log is gone"))
    victim.crash()
    victim.start()
    await world.up(victim)
    await until(lambda: victim.engine.lost is None, timeout_s=600.0)
    assert all(held(victim, table, b"%d" % number) is not None for number in range(20))


@simulated()
async def test_a_loss_that_is_accepted_buries_nothing_on_the_others(world: World) -> None:
    table = await started(world)
    for number in range(20):
        await put(world.machines[0], table, b"%d" % number, b"v", level=ALL)
    victim = world.machines[1]
    horizons, now_us = member(victim).horizons, victim.wall_us()
    for partition in map(PartitionId, range(member(victim).topology.ring.partitions)):  # of a round that ended here
        await victim.spawn(horizons.seal(table.id, partition, now_us))
        vow = horizons.vow(table.id, partition)
        await victim.spawn(horizons.complete(table.id, partition, now_us, vow=vow))
    victim.accepts_loss = True
    await victim.spawn(victim.engine.mark_lost("some of it"))
    for number in range(20):
        victim.engine.commit(Batch().delete(key_of(table, b"%d" % number)))
    await victim.spawn(victim.engine.durable())
    victim.repair_interval_s = 5.0
    victim.crash()
    victim.start()
    await world.up(victim)
    await asyncio.sleep(60.0)  # virtual: all have been compared
    assert all(held(world.machines[0], table, b"%d" % number) is not None for number in range(20))
