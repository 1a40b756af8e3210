"""Key-value tables: what stands side by side, what takes whose place, who mints the dots, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import causality, siblings
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, WriteLevel, WriteQuorums
from merganser.model.errors import RequestError, UnavailableError
from merganser.model.row import CellWrite, Mutation, Row, Span
from merganser.service import key_values
from merganser.service.key_values import VALUE_BYTES_MAX, Values
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage.engine import Batch
from service.plays import (
    ALL,
    CELL,
    QUORUM,
    TIMEOUT_S,
    held,
    holders,
    key_of,
    member,
    now_s,
    plant,
    replicas_of,
    simulated,
    started,
    until,
)


async def made(world: World) -> Table:
    """A key-value table that all machines know."""
    await started(world)
    table = await world.table("values", conflicts="siblings")
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    return table


async def put(
    machine: Machine,
    table: Table,
    value: bytes | None,
    *,
    context: bytes = b"",
    level: WriteLevel = QUORUM,
    expires_at_s: int | None = None,
    name: bytes = b"k",
) -> bytes:
    values, key, deadline = member(machine).key_values, key_of(table, name), now_s() + TIMEOUT_S
    if value is None:
        return await machine.spawn(values.delete(table, key, context=context, level=level, deadline=deadline))
    return await machine.spawn(
        values.put(table, key, value, context=context, expires_at_s=expires_at_s, level=level, deadline=deadline)
    )


async def get(machine: Machine, table: Table, *, level: Consistency = QUORUM, name: bytes = b"k") -> Values:
    return await machine.spawn(
        member(machine).key_values.get(table, key_of(table, name), level=level, deadline=now_s() + TIMEOUT_S)
    )


async def get_from_all(machine: Machine, table: Table) -> Values:
    """As soon as all of them can be reached."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await get(machine, table, level=ALL)
            except UnavailableError:
                await asyncio.sleep(0.1)


def told(values: Values) -> list[bytes]:
    return [sibling.value for sibling in values.siblings]


def spans(row: Row | None) -> tuple[Span, ...]:
    return () if row is None else row.context


@simulated()
async def test_writers_who_do_not_know_of_one_another_leave_siblings_until_one_has_read_both(world: World) -> None:
    table = await made(world)
    one, other, third = world.machines
    await put(one, table, b"milk")
    await put(other, table, b"bread")
    read = await get(third, table)
    assert told(read) == [b"milk", b"bread"]
    await put(third, table, b"milk and bread", context=read.context)
    for machine in world.machines:
        assert told(await get(machine, table)) == [b"milk and bread"]


@simulated()
async def test_a_writer_replaces_its_own_value_with_the_context_it_was_given(world: World) -> None:
    table = await made(world)
    context = await put(world.machines[0], table, b"1")
    await put(world.machines[1], table, b"of another")
    context = await put(world.machines[2], table, b"2", context=context)
    await put(world.machines[0], table, b"3", context=context)
    assert told(await get(world.machines[1], table)) == [b"of another", b"3"]


@simulated()
async def test_a_delete_takes_what_was_seen_and_a_put_from_before_it_stays(world: World) -> None:
    table = await made(world)
    await put(world.machines[0], table, b"seen")
    read = await get(world.machines[0], table)
    await put(world.machines[1], table, b"not seen")
    await put(world.machines[2], table, None, context=read.context)
    read = await get(world.machines[0], table)
    assert told(read) == [b"not seen"]
    await put(world.machines[2], table, None, context=read.context)
    assert told(await get(world.machines[1], table)) == []


@simulated()
async def test_writers_in_a_partition_are_both_heard_and_no_replica_loses_either(world: World) -> None:
    table = await made(world)
    lonely, one, other = world.machines
    context = await put(one, table, b"before", level=ALL)
    world.cut_off(lonely)
    await put(one, table, b"majority", context=context)
    await put(lonely, table, b"minority", context=context, level=Consistency.ONE)
    world.network.heal()
    await until(lambda: all(len(spans(held(machine, table, b"k"))) == 2 for machine in world.machines))
    assert sorted(told(await get(other, table, level=ALL))) == [b"majority", b"minority"]


@simulated()
async def test_a_put_is_no_worse_for_a_later_one_that_it_does_not_know(world: World) -> None:
    table = await made(world)
    later_us = world.machines[1].wall_us() + 1_000_000
    plant(world.machines[1], table, b"k", siblings.put(Span(3, later_us, later_us, later_us), b"later"))
    await put(world.machines[0], table, b"earlier", level=ALL)
    assert told(await get(world.machines[2], table, level=ALL)) == [b"earlier", b"later"]


@simulated()
async def test_a_value_with_an_expiry_is_read_until_then(world: World) -> None:
    table = await made(world)
    wall_s = world.machines[0].wall_us() // 1_000_000
    await put(world.machines[0], table, b"short", expires_at_s=wall_s)
    await put(world.machines[0], table, b"long", expires_at_s=wall_s + 1000)
    assert told(await get(world.machines[0], table)) == [b"long"]


# Dots


@simulated(machines=5)
async def test_only_replicas_become_actors_of_a_key_whoever_coordinates(world: World) -> None:
    table = await made(world)
    replicas = replicas_of(world, table, b"k")
    for machine in world.machines * 3:
        await put(machine, table, b"v", context=(await get(machine, table)).context)
    numbers = {member(machine).topology.me.number for machine in replicas}
    row = held(replicas[0], table, b"k")
    assert {span.number for span in spans(row)} <= numbers
    assert len(spans(row)) <= 3


@simulated(machines=5)
async def test_a_node_mints_by_itself_when_the_replica_it_asks_is_silent(world: World) -> None:
    table = await made(world)
    replicas = replicas_of(world, table, b"k")
    outsider = next(machine for machine in world.machines if machine not in replicas)
    replicas[0].pause()
    replicas[1].pause()
    await put(outsider, table, b"v", level=WriteQuorums(w=2))
    number = member(outsider).topology.me.number
    assert [span.number for span in spans(held(replicas[2], table, b"k"))] == [number]
    for machine in replicas[:2]:
        machine.resume()


@simulated()
async def test_a_node_that_comes_back_with_nothing_buries_nothing_that_it_has_forgotten(world: World) -> None:
    """What it minted before is on another replica alone, which it does not hear of before it mints again."""
    table = await made(world)
    forgetful, holder, third = world.machines
    world.cut_off(third)
    await put(forgetful, table, b"acknowledged")
    world.network.heal()
    forgetful.crash()
    forgetful.engine.commit(_without(table))
    forgetful.start()
    await world.up(forgetful)
    world.cut_off(holder)
    await put(forgetful, table, b"later", level=Consistency.ONE)
    world.network.heal()
    assert sorted(told(await get_from_all(third, table))) == [b"acknowledged", b"later"]


def _without(table: Table) -> Batch:
    return Batch().delete(key_of(table, b"k"))


# What is refused


@simulated()
async def test_a_context_of_another_key_is_refused_and_nothing_is_written(world: World) -> None:
    table = await made(world)
    context = await put(world.machines[0], table, b"v", name=b"other")
    with pytest.raises(RequestError, match="belongs to another key"):
        await put(world.machines[0], table, b"v", context=context)
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_context_of_a_time_to_come_is_refused(world: World) -> None:
    table = await made(world)
    far_us = world.machines[0].wall_us() + 3_600_000_000
    context = causality.encode(key_of(table, b"k"), (Span(1, far_us, far_us, far_us),))
    with pytest.raises(RequestError, match="of a time to come"):
        await put(world.machines[0], table, b"v", context=context)
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_value_too_large_is_refused(world: World) -> None:
    table = await made(world)
    with pytest.raises(RequestError, match=r"1,048,577 bytes, of 1,048,576 at most: split it"):
        await put(world.machines[0], table, bytes(VALUE_BYTES_MAX + 1))


@simulated(machines=4)
async def test_a_key_with_too_many_siblings_takes_no_blind_put_and_can_be_resolved(world: World) -> None:
    table = await made(world)
    replicas = replicas_of(world, table, b"k")
    outsider = next(machine for machine in world.machines if machine not in replicas)
    for _ in range(key_values.SIBLINGS_MAX):
        await put(replicas[0], table, b"v", level=ALL)
    for machine in replicas[0], outsider:
        with pytest.raises(
            RequestError,
            match=r"has 100 siblings, of [0-9,]+ bytes together, and may have 100, or 8,388,608 bytes: read it",
        ):
            await put(machine, table, b"one more")
    await put(outsider, table, b"resolved", context=(await get(outsider, table)).context)
    assert told(await get(outsider, table)) == [b"resolved"]


@simulated()
async def test_a_key_with_too_large_siblings_takes_no_blind_put_and_can_be_resolved(world: World) -> None:
    table = await made(world)
    machine = world.machines[0]
    for _ in range(9):
        await put(machine, table, bytes(VALUE_BYTES_MAX - 1000), level=ALL)
    with pytest.raises(RequestError, match="and may have 100, or 8,388,608 bytes: read it"):
        await put(machine, table, b"one more")
    await put(machine, table, b"resolved", context=(await get(machine, table)).context)
    assert told(await get(machine, table)) == [b"resolved"]


@simulated()
async def test_rows_of_the_other_kind_are_refused_whole(world: World) -> None:
    table = await made(world)
    plain = await world.table("plain")
    await until(lambda: all(member(machine).topology.table(plain.id) for machine in world.machines))
    machine = world.machines[0]
    mutation = Mutation((CellWrite(CELL, b"v"),))
    with pytest.raises(UnavailableError, match="table values holds rows with a causal context"):
        await machine.spawn(
            member(machine).coordinator.write(
                table, key_of(table, b"k"), mutation, level=QUORUM, deadline=now_s() + TIMEOUT_S
            )
        )
    with pytest.raises(RequestError, match="table plain keeps no siblings"):
        await put(machine, plain, b"v")
    with pytest.raises(RequestError, match="table plain keeps no siblings"):
        await get(machine, plain)
    assert holders(world, table, b"k") == holders(world, plain, b"k") == []
