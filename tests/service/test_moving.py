"""Partitions change hands: newcomers are given everything first, and nobody keeps what is no longer its own."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import reshaping
from merganser.core.repair_schedule import Pair
from merganser.core.rows import stamp
from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import PartitionId
from merganser.model.leader_messages import Replicate
from merganser.model.leadership import Epoch
from merganser.model.messages import Apply, AskMoves, Found, Moves, Read
from merganser.model.register import Content, Register, Version
from merganser.model.row import CellWrite, Mutation
from merganser.model.timestamp import Timestamp
from merganser.service.replica import NOT_A_REPLICA
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import encode_register
from merganser.storage.values import encode_row
from service.led import change, leading, payload_of, read, started_led
from service.moves import changed, moving, name_in
from service.plays import CELL, key_of, member, put, simulated, started, until

NAMES = [b"%d" % number for number in range(60)]


async def begin(world: World, **weights: float) -> None:
    """Give machines, named ``m0``, ``m1`` and so on, other weights."""
    nodes = {world.machines[int(name[1:])].node: weight for name, weight in weights.items()}
    current = member(world.machines[0]).topology.map
    plan = reshaping.planned(current, "weights", operation_id="op", now_us=EPOCH_US, weights=nodes)
    await changed(world, world.machines[0], lambda newest: reshaping.begun(newest, plan.operation, plan.weights))


async def ended(world: World) -> None:
    members = [member(machine) for machine in world.machines]
    await until(lambda: all(one.topology.map.operation is None for one in members))
    await until(lambda: all(one.moving.leftovers.count() == 0 for one in members))


def places(world: World, machine: Machine, table: Table) -> set[PartitionId]:
    """Where the machine holds rows."""
    ring = member(machine).topology.ring
    start, end = keys.table_range(table.id)
    return {ring.partition_of(keys.token_in(key)) for key, _ in machine.engine.scan(start, end)}


def held(world: World, machine: Machine, table: Table) -> set[PartitionId]:
    ring = member(machine).topology.ring
    return {p for p in map(PartitionId, range(ring.partitions)) if ring.holds(machine.node, p, table.n)}


def check_placed_rows(world: World, table: Table) -> None:
    """Every replica holds the same bytes under every key, and nobody else holds any."""
    ring = member(world.machines[0]).topology.ring
    for name in NAMES:
        key = key_of(table, name)
        replicas = ring.preference_list(ring.partition_of(keys.token_in(key)), table.n)
        found = {machine.node: machine.engine.get(key) for machine in world.machines}
        assert {node for node, row in found.items() if row is not None} == set(replicas)
        assert len({found[node] for node in replicas}) == 1


@simulated(machines=5)
async def test_rows_of_leaderless_tables_move_to_who_holds_them_and_leave_nothing_behind(world: World) -> None:
    table = await started(world)
    for name in NAMES:
        await put(world.machines[0], table, name, b"v")
    await begin(world, m4=0.0)
    await ended(world)
    assert held(world, world.machines[4], table) == set() == places(world, world.machines[4], table)
    check_placed_rows(world, table)
    await begin(world, m4=1.0)
    await ended(world)
    assert set() != places(world, world.machines[4], table) <= held(world, world.machines[4], table)
    check_placed_rows(world, table)


@simulated(machines=5)
async def test_items_move_under_their_leaders_which_hand_over_before_they_leave(world: World) -> None:
    table = await started_led(world)
    for name in NAMES:
        leader = leading(world, table, name)
        assert leader is not None
        await change(leader, table, name, payload_of("put", b"v" + name))
    await begin(world, m0=0.0)
    await ended(world)
    assert member(world.machines[0]).leader_tables.leadership.leading() == []
    check_placed_rows(world, table)
    assert sum(member(machine).moving.copying.rows for machine in world.machines) > 0
    await until(lambda: all(leading(world, table, name) for name in NAMES))
    for name in NAMES:
        leader = leading(world, table, name)
        assert leader is not None
        assert (await read(leader, table, name)).value == b"v" + name


@simulated(machines=7)
async def test_a_leader_that_goes_waits_for_nobody_who_stays_but_is_lost_for_good(world: World) -> None:
    table = await started_led(world)
    for name in NAMES:
        leader = leading(world, table, name)
        assert leader is not None
        await change(leader, table, name, payload_of("put", b"v" + name))
    first, lost = world.machines[0], world.machines[2]
    world.retire(lost)
    plan = reshaping.planned(member(first).topology.map, "remove", operation_id="op", now_us=EPOCH_US, gone=[lost.node])
    await changed(world, first, lambda newest: reshaping.begun(newest, plan.operation, plan.weights))
    await until(lambda: member(first).topology.map.pending is not None)
    ring = member(first).topology.ring
    holders = [ring.holders(PartitionId(partition), table.n) for partition in range(ring.partitions)]
    assert any(some.extra and some.staying == (lost.node,) for some in holders)  # else nothing is tried here
    await ended(world)
    check_placed_rows(world, table)
    await until(lambda: all(leading(world, table, name) for name in NAMES))
    for name in NAMES:
        leader = leading(world, table, name)
        assert leader is not None
        assert (await read(leader, table, name)).value == b"v" + name


@simulated(machines=5)
async def test_what_is_asked_by_an_older_placement_is_refused_and_says_which_is_known(world: World) -> None:
    table = await started(world)
    old = member(world.machines[0]).topology.map.epoch
    partition = PartitionId(0)
    await moving(world, table, partition)
    name = name_in(world, table, partition)
    key = key_of(table, name)
    replica = next(m for m in world.machines if m.node in member(m).topology.replicas(table, key))
    row = encode_row(key, stamp(Mutation((CellWrite(CELL, b"v"),)), Timestamp(EPOCH_US, 1)))
    for request in Apply(old, table.id, key, row), Read(old, table.id, key):
        with pytest.raises(RefusedError) as refusal:
            await replica.spawn(member(replica).serve(replica.node, request))
        assert refusal.value.code == NOT_A_REPLICA
        assert refusal.value.map_epoch > old


@simulated(machines=5)
async def test_a_newcomer_takes_what_leaders_send_and_answers_no_read_alone_until_it_holds_all(world: World) -> None:
    table, partition = await started_led(world), PartitionId(0)
    name = name_in(world, table, partition)
    key, leader = key_of(table, name), leading(world, table, name)
    assert leader is not None
    await change(leader, table, name, payload_of("put", b"v"))
    ring = member(leader).topology.ring
    other = next(machine for machine in world.machines if not ring.holds(machine.node, partition, table.n))
    world.network.cut(leader.address, other.address)  # so that the leader cannot bring it up
    newcomer = await moving(world, table, partition)
    assert newcomer is other
    assert member(newcomer).topology.map.pending is not None
    epoch = member(newcomer).topology.map.epoch
    register = encode_register(key, Register(Version(9, 1, 1), Content(b"w")))
    copy = Replicate(epoch, table.id, key, Epoch(9, 1), register, 0)
    await newcomer.spawn(member(newcomer).serve(newcomer.node, copy))
    assert newcomer.engine.get(key) == register
    with pytest.raises(RefusedError, match="holds no replica"):
        await newcomer.spawn(member(newcomer).serve(newcomer.node, Read(epoch, table.id, key)))
    world.network.mend(leader.address, other.address)
    await ended(world)
    found = await newcomer.spawn(member(newcomer).serve(newcomer.node, Read(epoch + 9, table.id, key)))
    assert isinstance(found, Found)


@simulated(machines=5)
async def test_a_newcomer_is_given_items_and_compared_with_by_no_repair_until_it_serves(world: World) -> None:
    table, partition = await started_led(world), PartitionId(0)
    leader = leading(world, table, name_in(world, table, partition))
    assert leader is not None
    ring = member(leader).topology.ring
    other = next(machine for machine in world.machines if not ring.holds(machine.node, partition, table.n))
    world.network.cut(leader.address, other.address)  # so that it is brought nothing, and all stays as it is
    await moving(world, table, partition, other)
    repair = member(leader).leader_repair.led_repair
    await until(lambda: not repair._is_stale)
    compared = {peer for _, place, peer in planned(leader) if place == partition}
    assert compared == {*ring.preference_list(partition, table.rule)} - {leader.node}
    world.network.mend(leader.address, other.address)
    await ended(world)
    await until(lambda: any(place == partition for _, place, _ in planned(other)))  # whoever owns it leads it


def planned(machine: Machine) -> list[Pair]:
    """Whom a leader compares itself with."""
    schedule = member(machine).leader_repair.led_repair._schedule
    return [pair for node in member(machine).topology.map.nodes for pair in schedule.pairs_with(node.id)]


@simulated(machines=3)
async def test_a_node_tells_how_far_it_is(world: World) -> None:
    await started(world)
    (one, *_) = world.machines
    await until(lambda: member(one).moving.leftovers.count() == 0)
    told = await one.spawn(member(one).serve(one.node, AskMoves()))
    assert told == Moves(0, (), 0, 0, 0, True, "")


@simulated(machines=5)
async def test_a_driver_that_is_cut_off_from_the_voters_changes_nothing_and_the_others_go_on(world: World) -> None:
    table = await started(world)
    for name in NAMES:
        await put(world.machines[1], table, name, b"v")
    driver, *others = world.machines
    assert member(driver).rebalancer.driver() == driver.node
    await begin(world, m4=0.0)
    await until(lambda: all(member(machine).topology.map.pending for machine in world.machines))
    for other in others:
        world.network.cut(driver.address, other.address)
        world.network.cut(other.address, driver.address)
    stopped_at = member(driver).topology.map.epoch
    await asyncio.sleep(60.0)
    alone = member(driver)
    assert alone.topology.map.epoch == stopped_at
    assert alone.rebalancer.driver() == driver.node  # it would drive, if it could
    assert alone.rebalancer.progress() is not None
    ahead = member(others[0]).topology.map
    assert ahead.epoch > stopped_at
    assert ahead.pending is None  # it was given up, as one who gives is away
    assert member(others[0]).rebalancer.driver() == others[0].node
    world.network.heal()
    await ended(world)
    check_placed_rows(world, table)
