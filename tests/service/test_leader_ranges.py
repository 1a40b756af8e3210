"""Consistent reads of ranges at a leader: what they know, what they wait for, where they go on."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, RefusedError, UnavailableError
from merganser.model.leader_messages import LedRows, ReadRangeLed
from merganser.model.leadership import Epoch
from merganser.model.register import Version
from merganser.service.replica import NOT_A_REPLICA
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import (
    change,
    epoch_of,
    others_than,
    payload_of,
    plant,
    register_at,
    started_led,
    take_over,
    the_leader,
)
from service.plays import damage, key_of, member, now_s, simulated, until


def names(table: Table, world: World, count: int) -> list[bytes]:
    """Return partition keys whose rows lie in one partition, in the order of their rows."""
    ring = member(world.machines[0]).topology.ring
    found = [b"%d" % n for n in range(40 * count)]
    found = [name for name in found if ring.partition_of(token_of(name)) == 3][:count]
    return sorted(found, key=lambda name: key_of(table, name))


async def read_range(
    machine: Machine,
    table: Table,
    name: bytes,
    *,
    reverse: bool = False,
    rows_max: int = 1000,
    start: bytes | None = None,
    end: bytes | None = None,
    epoch: Epoch | None = None,
) -> LedRows:
    """Read the whole partition of ``name``, or from ``start`` or to ``end``, at the leader that ``machine`` is."""
    topology = member(machine).topology
    partition = topology.ring.partition_of(keys.token_in(key_of(table, name)))
    low, high = topology.partition_range(table, partition, partition)
    request = ReadRangeLed(
        0,
        table.id,
        low if start is None else start,
        high if end is None else end,
        epoch_of(machine, table, name) if epoch is None else epoch,
        reverse,
        rows_max,
        1_000_000,
    )
    reply = await machine.spawn(member(machine).serve(topology.node, request))
    assert isinstance(reply, LedRows)
    return reply


async def filled(world: World, table: Table, count: int) -> list[bytes]:
    """Put items into one partition; returns their names in order, once all replicas hold them."""
    put = names(table, world, count)
    leader = the_leader(world, table, put[0])
    for name in put:
        await change(leader, table, name, payload_of("put", b"value of " + name))
    await until(lambda: all(register_at(machine, table, name).value for machine in world.machines for name in put))
    return put


def rows_of(table: Table, put: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((key_of(table, name), b"value of " + name) for name in put)


@simulated()
async def test_a_range_is_read_in_either_order_and_in_pages(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 7)
    leader = the_leader(world, table, put[0])
    assert await read_range(leader, table, put[0]) == LedRows(rows_of(table, put), None)
    assert await read_range(leader, table, put[0], reverse=True) == LedRows(rows_of(table, put[::-1]), None)
    for reverse in False, True:
        ordered = put[::-1] if reverse else put
        found: list[tuple[bytes, bytes]] = []
        bound: bytes | None = None
        while True:
            start, end = (None, bound) if reverse else (bound, None)
            page = await read_range(leader, table, put[0], reverse=reverse, rows_max=2, start=start, end=end)
            found += page.rows
            bound = page.resume
            if bound is None:
                break
        assert tuple(found) == rows_of(table, ordered)


@simulated()
async def test_deleted_items_are_left_out(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 3)
    leader = the_leader(world, table, put[0])
    await change(leader, table, put[1], payload_of("put", None))
    assert (await read_range(leader, table, put[0])).rows == rows_of(table, [put[0], put[2]])


@simulated()
async def test_a_range_that_is_not_known_is_compared_with_a_majority_before_it_is_told(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 5)
    first = the_leader(world, table, put[0])
    heir, *others = others_than(world, first)
    later = epoch_of(first, table, put[0])
    for number, machine in enumerate(world.machines):  # so that all trees differ
        plant(machine, table, put[0], Version(*later, 90 + number), b"left on machine %d" % number)
    plant(heir, table, put[4], Version(*later, 99), b"left behind")
    for reverse in False, True:
        await take_over(heir, table, put[0])
        page = await read_range(heir, table, put[0], reverse=reverse)
        values = [value for _, value in (page.rows[::-1] if reverse else page.rows)]
        assert values[1:] == [b"value of " + name for name in put[1:4]] + [b"left behind"]
        assert values[0].startswith(b"left on machine")
        held = [register_at(machine, table, put[4]).value for machine in world.machines]
        assert held.count(b"left behind") >= 2
        heir = others[0]


@simulated()
async def test_a_range_waits_for_the_writes_whose_values_it_would_tell(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 3)
    leader = the_leader(world, table, put[0])
    for other in others_than(world, leader):
        other.disk.slow((0.5, 0.5))
    writing = asyncio.create_task(change(leader, table, put[1], payload_of("put", b"new")))
    await until(lambda: register_at(leader, table, put[1]).value == b"new")
    began = now_s()
    page = await read_range(leader, table, put[0])
    assert now_s() - began > 0.4
    await writing
    assert [value for _, value in page.rows][1] == b"new"


@simulated()
async def test_a_damaged_register_in_a_range_is_written_anew(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 4)
    leader = the_leader(world, table, put[0])
    damage(leader, table, put[0])
    damage(leader, table, put[2])
    assert (await read_range(leader, table, put[0])).rows == rows_of(table, put)


@simulated()
async def test_a_leader_that_is_cut_off_tells_no_range(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 2)
    leader = the_leader(world, table, put[0])
    world.cut_off(leader)
    with pytest.raises(MerganserError) as refused:
        await read_range(leader, table, put[0])
    assert isinstance(refused.value, RefusedError | UnavailableError)


@simulated()
async def test_a_range_of_several_partitions_is_refused(world: World) -> None:
    table = await started_led(world)
    put = await filled(world, table, 1)
    leader = the_leader(world, table, put[0])
    start, end = keys.table_range(table.id)
    with pytest.raises(RefusedError) as refused:
        await read_range(leader, table, put[0], start=start, end=end)
    assert refused.value.code == NOT_A_REPLICA
