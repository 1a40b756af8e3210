"""A replica whose disk lost promises and registers is silent until the leader has made it whole, group by group."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.wholeness import LOST
from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.leader_messages import (
    Campaign,
    Change,
    Confirm,
    Copies,
    Kept,
    MadeWhole,
    Promised,
    ReadLed,
    ReadRangeLed,
    Replicate,
    Restore,
    Standing,
    Touch,
    TouchRange,
)
from merganser.model.leadership import NO_EPOCH, Epoch
from merganser.model.messages import LookAgain, Request
from merganser.service.generations import NO_GENERATION
from merganser.service.restoring import TOO_EARLY, Rejoining
from merganser.service.wholeness import NOBODY_ELSE
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import (
    can_evaluate,
    change,
    epoch_of,
    group_of,
    leading,
    payload_of,
    read,
    register_at,
    started_led,
)
from service.plays import key_of, member, simulated, until

EVERYTHING = 10_000


async def put(world: World, table: Table, name: bytes, value: bytes) -> Machine:
    machine = leading(world, table, name)
    assert machine is not None
    await change(machine, table, name, payload_of("put", value))
    return machine


async def lose(world: World, machine: Machine, batches: int = EVERYTHING) -> None:
    """Cut the power and the log of a machine, and start it again."""
    machine.disk.cut_log(batches)
    machine.crash()
    machine.start()
    await world.up(machine)
    can_evaluate(machine)
    assert machine.engine.lost is not None


def followers(world: World, leader: Machine) -> list[Machine]:
    return [machine for machine in world.machines if machine is not leader]


def rejoining(machine: Machine) -> Rejoining:
    return member(machine).leader_repair.rejoining


def held_by(machine: Machine, table: Table) -> dict[bytes, bytes]:
    return dict(machine.engine.scan(*keys.table_range(table.id)))


async def fill(world: World, table: Table, count: int = 30) -> None:
    for number in range(count):
        await put(world, table, b"%d" % number, b"value %d" % number)


async def led_everywhere(world: World, table: Table) -> None:
    await until(lambda: all(leading(world, table, b"%d" % number) for number in range(100)))


@simulated()
async def test_a_node_that_lost_its_log_holds_all_that_was_acknowledged_when_it_is_whole(world: World) -> None:
    table = await started_led(world)
    await fill(world, table)
    victim = world.machines[1]
    await lose(world, victim)
    assert not held_by(victim, table)
    await until(lambda: victim.engine.lost is None)
    for number in range(30):
        assert register_at(victim, table, b"%d" % number).value == b"value %d" % number
    assert member(victim).wholeness.progress().groups_left == 0


@simulated()
async def test_what_only_the_leader_and_the_victim_acknowledged_survives(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"old")
    victim, third = followers(world, leader)
    await until(lambda: register_at(third, table, b"k").value == b"old")
    third.crash()
    await put(world, table, b"k", b"acknowledged")
    await until(lambda: register_at(victim, table, b"k").value == b"acknowledged")
    await lose(world, victim)
    await asyncio.sleep(5.0)
    assert victim.engine.lost is not None  # the third may have been promised something: it has to be heard
    third.start()
    await world.up(third)
    can_evaluate(third)
    await until(lambda: victim.engine.lost is None, timeout_s=120.0)
    assert register_at(victim, table, b"k").value == b"acknowledged"
    await led_everywhere(world, table)
    leader.crash()
    await until(lambda: leading(world, table, b"k") not in (None, leader))
    new = leading(world, table, b"k")
    assert new is not None
    assert (await read(new, table, b"k")).value == b"acknowledged"


@simulated()
async def test_until_then_it_answers_no_request_of_the_protocol(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    victim, third = followers(world, leader)
    third.crash()
    await lose(world, victim)
    await until(lambda: member(victim).topology.table(table.id) is not None)
    key, group, epoch = key_of(table, b"k"), group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    register = leader.engine.get(key)
    assert register is not None
    map_epoch, node = member(victim).topology.map.epoch, member(leader).topology.node
    start, end = keys.table_range(table.id)
    requests: list[Request] = [
        Touch(map_epoch, table.id, key, epoch),
        TouchRange(map_epoch, table.id, start, end, epoch, 10, 1000),
        Replicate(map_epoch, table.id, key, epoch, register),
        Change(map_epoch, table.id, key, epoch, b"r" * 16, 0, payload_of("put", b"v")),
        ReadLed(map_epoch, table.id, key, epoch),
        LookAgain(map_epoch, table.id, group.partition, (key,)),  # before tombstones are dropped
        ReadRangeLed(map_epoch, table.id, start, end, epoch, False, 10, 1000),
    ]
    for request in requests:
        with pytest.raises(RefusedError) as refusal:
            await victim.spawn(member(victim).serve(node, request))
        assert refusal.value.code == LOST
    copies = Copies((Replicate(map_epoch, table.id, key, epoch, register),) * 2)
    kept = await victim.spawn(member(victim).serve(node, copies))
    assert isinstance(kept, Kept)
    assert [(place, refused.code) for place, refused in kept.refused] == [(0, LOST), (1, LOST)]
    bid = Campaign(map_epoch, group.rule, ((group.partition, epoch.number + 7),), is_poll=False, is_handover=False)
    assert await victim.spawn(member(victim).serve(node, bid)) == Promised((NO_EPOCH,), ((),))
    claim = Confirm(map_epoch, ((group.rule, group.partition, epoch),))
    assert await victim.spawn(member(victim).serve(node, claim)) == Standing((NO_EPOCH,))
    assert register_at(victim, table, b"k").value is None
    assert not member(victim).leader_tables.leadership.leading()


@simulated()
async def test_groups_take_part_again_one_by_one(world: World) -> None:
    table = await started_led(world)
    await fill(world, table)
    victim = world.machines[0]
    await lose(world, victim)
    counts = set[int]()

    def note() -> bool:
        counts.add(len(rejoining(victim).left()))
        return victim.engine.lost is None

    await until(note)
    assert any(0 < count < member(victim).topology.ring.partitions for count in counts)


@simulated()
async def test_it_promises_the_epoch_in_which_it_was_made_whole(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    victim, _ = followers(world, leader)
    group = group_of(leader, table, b"k")
    await lose(world, victim)
    await until(lambda: member(victim).topology.table(table.id) is not None)
    await until(lambda: rejoining(victim).is_whole(group))
    promised = member(victim).leader_tables.promises.of(group)
    assert promised == max(member(machine).leader_tables.promises.of(group) for machine in world.machines)
    assert promised > NO_EPOCH


@simulated()
async def test_writes_go_on_meanwhile_and_none_is_missed(world: World) -> None:
    table = await started_led(world)
    await fill(world, table)
    victim = world.machines[2]
    await lose(world, victim)
    number = 0
    while victim.engine.lost is not None:
        machine = leading(world, table, b"%d" % (number % 30))
        if machine is not None:
            await change(machine, table, b"%d" % (number % 30), payload_of("put", b"later %d" % number))
        number += 1
        await asyncio.sleep(0.01)
    await until(lambda: len({frozenset(held_by(machine, table).items()) for machine in world.machines}) == 1)


@simulated()
async def test_what_an_earlier_life_was_given_or_comes_late_is_refused(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    victim, _ = followers(world, leader)
    key, group, epoch = key_of(table, b"k"), group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    register = leader.engine.get(key)
    await lose(world, victim)
    await until(lambda: member(victim).topology.table(table.id) is not None)
    map_epoch, node = member(victim).topology.map.epoch, member(leader).topology.node

    async def refused(token: int) -> None:
        for request in (
            Restore(map_epoch, table.id, group.partition, epoch, token, ((key, register),)),
            MadeWhole(map_epoch, group.rule, group.partition, epoch, token, NO_GENERATION),
        ):
            with pytest.raises(RefusedError) as refusal:
                await victim.spawn(member(victim).serve(node, request))
            assert refusal.value.code == TOO_EARLY

    await refused(12345)
    await until(lambda: rejoining(victim).is_whole(group))
    await refused(rejoining(victim)._token)


@simulated()
async def test_a_later_promise_keeps_an_earlier_leaders_gifts_out(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    victim, third = followers(world, leader)
    third.crash()
    key, group, epoch = key_of(table, b"k"), group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    await lose(world, victim)
    await until(lambda: member(victim).topology.table(table.id) is not None)
    later = Epoch(epoch.number + 5, member(leader).topology.me.number)
    back, token = member(victim), rejoining(victim)._token
    map_epoch, node = back.topology.map.epoch, member(leader).topology.node
    await victim.spawn(back.serve(node, Restore(map_epoch, table.id, group.partition, later, token, ())))
    gift = Restore(map_epoch, table.id, group.partition, epoch, token, ((key, leader.engine.get(key)),))
    with pytest.raises(RefusedError, match="has begun"):
        await victim.spawn(back.serve(node, gift))
    assert register_at(victim, table, b"k").value is None


@simulated()
async def test_damaged_registers_on_the_victim_are_replaced_too(world: World) -> None:
    table = await started_led(world)
    await fill(world, table)
    victim = world.machines[1]
    await until(lambda: all(register_at(victim, table, b"%d" % n).value for n in range(30)))
    await asyncio.sleep(2.0)
    for number in range(5):
        victim.disk.rot_row(key_of(table, b"%d" % number))
    await lose(world, victim, batches=1)
    await until(lambda: victim.engine.lost is None)
    for number in range(30):
        assert register_at(victim, table, b"%d" % number).value == b"value %d" % number


@simulated(machines=2)
async def test_of_two_replicas_the_other_one_makes_it_whole(world: World) -> None:
    table = await started_led(world, n=2)
    await fill(world, table)
    other, victim = world.machines  # the first votes on the map
    await lose(world, victim)
    await until(lambda: victim.engine.lost is None, timeout_s=120.0)
    assert held_by(victim, table) == held_by(other, table)
    await led_everywhere(world, table)
    for number in range(30):
        machine = leading(world, table, b"%d" % number)
        assert machine is not None
        assert (await read(machine, table, b"%d" % number)).value == b"value %d" % number


@simulated()
async def test_the_only_replica_stays_lost_until_the_operator_accepts_it_and_then_goes_on(world: World) -> None:
    table = await started_led(world, n=1)
    leader = await put(world, table, b"k", b"old")
    group, before = group_of(leader, table, b"k"), epoch_of(leader, table, b"k")
    await put(world, table, b"k", b"lost")
    await lose(world, leader, batches=1)
    await until(lambda: NOBODY_ELSE in member(leader).wholeness.progress().in_the_way)
    assert not member(leader).leader_tables.leadership.leading()
    leader.accepts_loss = True
    leader.crash()
    leader.start()
    await world.up(leader)
    can_evaluate(leader)
    await until(lambda: leading(world, table, b"k") is leader, timeout_s=120.0)
    assert epoch_of(leader, table, b"k").number > before.number + 1000
    await put(world, table, b"k", b"new")
    assert (await read(leader, table, b"k")).value == b"new"
    assert member(leader).leader_tables.promises.of(group) == epoch_of(leader, table, b"k")


@simulated()
async def test_with_an_accepted_loss_it_votes_at_once_and_the_leader_begins_a_new_epoch(world: World) -> None:
    table = await started_led(world)
    leader = await put(world, table, b"k", b"value")
    victim, _ = followers(world, leader)
    before = epoch_of(leader, table, b"k")
    victim.accepts_loss = True
    victim.disk.cut_log(EVERYTHING)
    victim.crash()
    victim.start()
    await world.up(victim)
    can_evaluate(victim)
    await until(lambda: register_at(victim, table, b"k").value == b"value", timeout_s=120.0)
    await led_everywhere(world, table)
    machine = leading(world, table, b"k")
    assert machine is not None
    assert (await read(machine, table, b"k")).value == b"value"
    assert epoch_of(machine, table, b"k") >= before
