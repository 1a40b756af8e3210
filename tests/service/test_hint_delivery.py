"""Hinted handoff: what is handed over to whom, in which order, and when it is given up."""

from __future__ import annotations

import asyncio

import msgspec

from merganser.core import hint_policy
from merganser.core.placement import spread
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RefusedError
from merganser.model.messages import Apply
from merganser.net.transport import Traffic
from merganser.sim.world import World
from merganser.storage import keys
from service.hints import drained, hint, keep, kept, noted, number, refusing, row
from service.plays import (
    ALL,
    ONE,
    damage,
    held,
    holders,
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


@simulated()
async def test_hints_are_delivered_when_their_target_is_back_without_a_read(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    away.crash()
    for i in range(50):
        await put(coordinator, table, b"%d" % i, b"v")
    await put(coordinator, table, b"0", None)
    await settled(world)
    away.start()
    await world.up(away)
    await drained(world)
    for i in range(50):
        name = b"%d" % i
        assert held(away, table, name) == held(coordinator, table, name)
    assert member(coordinator).handoff.delivered == 50


@simulated()
async def test_hints_go_in_the_order_of_their_keys_as_bulk_and_a_few_at_a_time(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    away.crash()
    for i in range(300):
        await put(coordinator, table, b"%d" % i, b"v", level=ONE)
    await settled(world)
    sent = noted(coordinator, Apply)
    under_way: list[int] = []
    away.start()
    await world.up(away)
    seen = refusing(away, lambda _: under_way.append(len(sent) - len(seen)))
    await drained(world)
    delivered = [request.key for _, request, traffic in sent if traffic is Traffic.BULK and isinstance(request, Apply)]
    assert delivered == sorted(delivered)
    assert len(delivered) == 300
    assert max(under_way) < hint_policy.WINDOW_MAX


@simulated()
async def test_an_overloaded_target_is_left_alone_for_a_while(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    away.crash()
    for i in range(40):
        await put(coordinator, table, b"%d" % i, b"v", level=ONE)
    await settled(world)
    away.start()
    await world.up(away)
    seen = refusing(away, lambda _: RefusedError("overloaded", "later") if now_s() < until_s else None)
    until_s = now_s() + 10.0
    await asyncio.sleep(9.9)
    assert 0 < len(seen) <= 5 * hint_policy.WINDOW_MIN
    await drained(world)
    assert len(holders(world, table, b"39")) == 3


@simulated()
async def test_a_hint_that_is_refused_stays_and_the_others_go(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    away.crash()
    for name in (b"a", b"b", b"c"):
        await put(coordinator, table, name, b"v")
    await settled(world)
    away.start()
    await world.up(away)
    refused = key_of(table, b"b")
    refusing(away, lambda apply: RefusedError("clock_skew", "") if apply.key == refused and now_s() < until_s else None)
    until_s = now_s() + 30.0
    await until(lambda: kept(coordinator, away) == [b"b"])
    await asyncio.sleep(10.0)
    assert kept(coordinator, away) == [b"b"]
    await drained(world)
    assert held(away, table, b"b") is not None


@simulated()
async def test_hints_survive_a_crash_of_their_keeper_and_of_their_target_at_any_moment(world: World) -> None:
    table = await started(world)
    keeper, _, target = world.machines
    target.crash()
    names = [b"%d" % i for i in range(200)]
    for name in names:
        await put(keeper, table, name, b"v", level=ONE)
    await settled(world)
    for victim in (keeper, target, keeper, target):
        await world.start()
        await asyncio.sleep(world.rng.uniform(0.8, 1.3))
        victim.crash()
    await world.start()
    await drained(world)
    for name in names:
        assert held(target, table, name) is not None


@simulated()
async def test_no_hint_is_given_up_before_its_target_has_acked_it(world: World) -> None:
    table = await started(world)
    keeper, _, target = world.machines
    target.crash()
    await put(keeper, table, b"k", b"v")
    await settled(world)
    target.start()
    await world.up(target)
    world.network.cut(target.address, keeper.address)  # it takes the row and is not heard
    await until(lambda: held(target, table, b"k"))
    await asyncio.sleep(20.0)
    assert kept(keeper, target) == [b"k"]
    world.network.heal()
    await drained(world)


@simulated()
async def test_a_target_with_a_damaged_row_keeps_its_hint_waiting(world: World) -> None:
    table = await started(world)
    keeper, _, target = world.machines
    await put(keeper, table, b"k", b"old", level=ALL)
    damaged = damage(target, table, b"k")
    asked = refusing(target, lambda _request: None)
    await keep(keeper, hint(table, b"k", row(b"new", 10**7), number(target)))
    await until(lambda: len(asked) > 1)
    assert target.engine.get(key_of(table, b"k")) == damaged, "the first was refused for that"
    assert kept(keeper, target) == [b"k"]
    await drained(world)
    assert held(target, table, b"k") == row(b"new", 10**7)


@simulated(machines=5, partitions=16)
async def test_when_the_target_holds_the_key_no_more_those_that_do_get_the_hint(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    outsiders = [machine for machine in world.machines if machine not in replicas]
    keeper = outsiders[0]
    for machine in replicas:
        world.network.cut(keeper.address, machine.address)
    await keep(keeper, hint(table, b"k", row(), number(replicas[2])))
    newer = without_ownership(member(keeper).topology.map, number(replicas[2]))
    world.network.heal()
    for machine in world.machines:
        await machine.spawn(member(machine).topology.learn(newer))
    now = replicas_of(world, table, b"k")
    assert replicas[2] not in now
    await drained(world)
    assert sorted(holders(world, table, b"k")) == sorted(machine.address for machine in now)
    assert member(keeper).handoff.moved == 1


@simulated(machines=5, partitions=16)
async def test_a_keeper_that_missed_the_move_learns_of_it_from_the_target(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (keeper, *_) = [machine for machine in world.machines if machine not in replicas]
    newer = without_ownership(member(keeper).topology.map, number(replicas[2]))
    for machine in world.machines:
        if machine is not keeper:
            await machine.spawn(member(machine).topology.learn(newer))
    await keep(keeper, hint(table, b"k", row(), number(replicas[2])))
    await drained(world)
    assert sorted(holders(world, table, b"k")) == sorted(m.address for m in replicas_of(world, table, b"k"))


def without_ownership(current: ClusterMap, without: int) -> ClusterMap:
    """Return the next map, in which the node with that number owns nothing."""
    owning = [node for node in current.nodes if node.number != without]
    owners = spread(owning, current.partitions)
    return msgspec.structs.replace(current, epoch=current.epoch + 1, owners=owners)


@simulated()
async def test_hints_for_a_table_that_is_dropped_while_their_target_is_away_are_given_up(world: World) -> None:
    table = await started(world)
    keeper, other, target = world.machines
    target.crash()
    await put(keeper, table, b"k", b"v")
    await settled(world)
    await other.spawn(member(other).catalog.drop_table(table, deadline=now_s() + 30.0))
    await until(lambda: not list(keeper.engine.scan(*keys.all_hints_range())))


@simulated()
async def test_a_keeper_whose_disk_has_failed_loses_no_hint(world: World) -> None:
    table = await started(world)
    keeper, _, target = world.machines
    target.crash()
    await put(keeper, table, b"k", b"v")
    await settled(world)
    keeper.engine._group.fail("the disk is full")
    target.start()
    await world.up(target)
    await until(lambda: held(target, table, b"k"))
    assert kept(keeper, target) == [b"k"], "it cannot be deleted, and will be delivered again"
    keeper.crash()
    await world.start()
    await drained(world)
