"""The ring is cut on a running cluster: what nodes keep by partition goes over to the parts, at once and durably."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from merganser.core import reshaping
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RefusedError
from merganser.model.ids import PartitionId
from merganser.model.leader_messages import Campaign, Confirm, Pulse, Pulsed
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Complete, Request
from merganser.service.replica import NOT_A_REPLICA
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.led import change, leading, payload_of, read, started_led
from service.plays import ALL, get, key_of, member, now_s, put, simulated, started, started_with_leaders, until
from service.purges import past_the_margin, purge_round, up_again

N = 3


def begun(current: ClusterMap) -> ClusterMap:
    plan = reshaping.planned(current, "split", operation_id=f"split-{current.partitions}", now_us=EPOCH_US)
    return reshaping.begun(current, plan.operation, plan.weights)


async def split(world: World) -> None:
    """Have the ring cut, and wait until every machine that is up knows it."""
    up = [machine for machine in world.machines if machine.member is not None]
    wanted = 2 * member(up[0]).topology.ring.partitions
    await up[0].spawn(member(up[0]).catalog.change(begun, deadline=now_s() + 10.0))
    await until(lambda: all(is_cut(machine, wanted) for machine in up))


def is_cut(machine: Machine, partitions: int) -> bool:
    current = member(machine).topology.map
    return current.partitions == partitions and current.operation is None


def has_all_trees(machine: Machine) -> bool:
    trees = member(machine).trees
    return all(trees.is_ready(table.id, partition) for table, partition in member(machine).topology.held())


def epochs(world: World) -> dict[Group, Epoch]:
    """Return what is led, and since when."""
    found: dict[Group, Epoch] = {}
    for machine in world.machines:
        found.update((led.group, led.epoch) for led in member(machine).leader_tables.leadership.leading())
    return found


def promised(machine: Machine, partition: int) -> Epoch:
    return member(machine).leader_tables.promises.of(Group(N, PartitionId(partition)))


async def all_led(world: World) -> None:
    await until(lambda: len(epochs(world)) == member(world.machines[0]).topology.ring.partitions)


@simulated()
async def test_both_halves_inherit_what_was_promised_over_a_crash_and_are_led_in_later_epochs(world: World) -> None:
    await started_with_leaders(world)
    await all_led(world)
    before = epochs(world)
    kept = {machine.address: [promised(machine, p) for p in range(16)] for machine in world.machines}
    await split(world)
    for machine in world.machines:
        machine.crash()
    await world.start()
    for machine in world.machines:
        for partition in range(32):
            assert promised(machine, partition) >= kept[machine.address][partition // 2]
    await all_led(world)
    for group, epoch in epochs(world).items():
        assert epoch > before[Group(N, PartitionId(group.partition // 2))]


@simulated()
async def test_items_and_rows_are_there_and_trees_tell_of_them(world: World) -> None:
    led = await started_led(world)
    rows = await world.table(name="rows")
    await until(lambda: all(member(machine).topology.table(rows.id) for machine in world.machines))
    names = [b"%d" % number for number in range(40)]
    for name in names:
        leader = leading(world, led, name)
        assert leader is not None
        await change(leader, led, name, payload_of("put", b"v" + name))
        await put(world.machines[0], rows, name, b"v" + name, level=ALL)
    await split(world)
    await all_led(world)
    for name in names:
        leader = leading(world, led, name)
        assert leader is not None
        assert (await read(leader, led, name)).value == b"v" + name
        assert await get(world.machines[1], rows, name) == b"v" + name
    for machine in world.machines:
        trees = member(machine).trees
        await until(partial(has_all_trees, machine))
        counts = [trees.count(led.id, PartitionId(partition)) for partition in range(32)]
        assert sum(count.items for count in counts if count is not None) == len(names)


@simulated()
async def test_a_node_that_was_away_takes_several_splits_at_once(world: World) -> None:
    await started_with_leaders(world)
    await all_led(world)
    away = world.machines[2]
    kept = [promised(away, partition) for partition in range(16)]
    away.crash()
    await split(world)
    await split(world)
    await world.start()
    await until(lambda: member(away).topology.ring.partitions == 64)
    assert all(promised(away, partition) >= kept[partition // 4] for partition in range(64))
    await all_led(world)


@simulated()
async def test_both_halves_inherit_the_horizon_and_no_round_of_before_completes(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"name", b"value", level=ALL)
    await past_the_margin()
    assert (await purge_round(machine, table, b"name")).problem is None
    topology, horizons = member(machine).topology, member(machine).horizons
    place = topology.partitions_between(table, key_of(table, b"name"), key_of(table, b"name") + b"\0")[0]
    raised, vow = horizons.of(table.id, place), horizons.vow(table.id, place)
    assert raised.horizon_us > 0
    await split(world)
    for one in world.machines:
        one.crash()
    await up_again(world)
    for half in (2 * place, 2 * place + 1):
        assert member(machine).horizons.of(table.id, PartitionId(half)).horizon_us == raised.horizon_us
    complete = Complete(member(machine).topology.map.epoch, table.id, PartitionId(2 * place), now_us(), vow)
    with pytest.raises(RefusedError, match="has restarted, or lost rows"):
        await machine.spawn(member(machine).serve(topology.node, complete))


def now_us() -> int:
    return EPOCH_US + int(now_s() * 1e6)


@simulated()
async def test_what_is_said_by_a_map_of_before_is_refused_and_pulses_only_tell_of_life(world: World) -> None:
    await started_with_leaders(world)
    await all_led(world)
    one, other = world.machines[0], world.machines[1]
    before, leads = member(one).topology.map.epoch, Group(N, PartitionId(3))
    await split(world)
    await all_led(world)
    sender, epoch = member(one).topology.node, Epoch(99, member(one).topology.me.number)

    async def asked(request: Request) -> object:
        return await other.spawn(member(other).serve(sender, request))

    stale: list[Request] = [
        Campaign(before, N, ((leads.partition, 99),), is_poll=False, is_handover=True),
        Confirm(before, ((N, leads.partition, epoch),)),
    ]
    for request in stale:
        with pytest.raises(RefusedError) as refusal:
            await asked(request)
        assert refusal.value.code == NOT_A_REPLICA
    leadership = member(other).leader_tables.leadership
    known = leadership.known(leads)
    assert await asked(Pulse(((N, leads.partition, 99),), (), False, 16)) == Pulsed(())
    assert leadership.known(leads) == known
    await asked(Pulse(((N, leads.partition, 99),), (), False, 32))
    assert leadership.known(leads) == epoch


@simulated()
async def test_reads_of_a_range_that_is_cut_meanwhile_tell_each_item_once(world: World) -> None:
    table = await started_led(world)
    names = [b"%d" % number for number in range(60)]
    for name in names:
        leader = leading(world, table, name)
        assert leader is not None
        await change(leader, table, name, payload_of("put", name))
    low, high = key_of(table, b"")[:4], (table.id + 1).to_bytes(4, "big")
    reader = member(world.machines[1]).leader_tables.leader_based

    async def scan(*, reverse: bool) -> list[bytes]:
        start, end, found = low, high, list[bytes]()
        while True:
            page = await reader.read_range(
                table,
                start,
                end,
                reverse=reverse,
                is_consistent=True,
                rows_max=4,
                bytes_max=10_000,
                deadline=now_s() + 60.0,
            )
            found += [key for key, _ in page.rows]
            if page.resume is None:
                return found
            start, end = (start, page.resume) if reverse else (page.resume, end)
            await asyncio.sleep(0.02)

    scans = [world.machines[1].spawn(scan(reverse=reverse)) for reverse in (False, True) for _ in range(3)]
    await asyncio.sleep(0.05)
    await split(world)
    wanted = sorted(key_of(table, name) for name in names)
    for number, one in enumerate(scans):
        assert await one == (wanted if number < 3 else wanted[::-1])
