"""Keys are listed without their values, and what replicas differ in is looked at."""

from __future__ import annotations

import pytest

from merganser.model.cluster import KEY_VALUE_WIRE, Table
from merganser.model.consistency import Consistency
from merganser.model.crdt import COUNTER, Operation
from merganser.model.errors import RequestError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import ReadRange, Reply, Rows
from merganser.model.value_messages import ListRange
from merganser.service.key_lists import KeyPage
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import (
    ALL,
    ONE,
    QUORUM,
    TIMEOUT_S,
    key_of,
    member,
    now_s,
    replicas_of,
    serve_instead,
    simulated,
    started_with_values,
    until,
)

NAMES = [b"k%d" % number for number in range(12)]


async def put(
    machine: Machine, table: Table, name: bytes, *, expires_at_s: int | None = None, level: Consistency = ALL
) -> bytes:
    key_values, deadline = member(machine).key_values, now_s() + TIMEOUT_S
    work = key_values.put(
        table, key_of(table, name), b"v" * 500, expires_at_s=expires_at_s, level=level, deadline=deadline
    )
    return await machine.spawn(work)


async def page(
    machine: Machine, table: Table, resume: bytes | None = None, *, most: int = 1000, level: Consistency = QUORUM
) -> KeyPage:
    work = member(machine).key_lists.page(table, resume=resume, most=most, level=level, deadline=now_s() + TIMEOUT_S)
    return await machine.spawn(work)


async def listed(machine: Machine, table: Table, *, most: int = 1000, level: Consistency = QUORUM) -> list[bytes]:
    found, resume = list[bytes](), None
    while True:
        told = await page(machine, table, resume, most=most, level=level)
        assert len(told.keys) <= most
        found += told.keys
        resume = told.resume
        if resume is None:
            return found


def in_order(table: Table, names: list[bytes]) -> list[bytes]:
    return sorted(names, key=lambda name: key_of(table, name))


@simulated(machines=5)
async def test_each_key_is_told_once_in_the_order_of_the_ring_through_any_node(world: World) -> None:
    table = await started_with_values(world)
    for name in NAMES:
        await put(world.machines[0], table, name)
    for machine in world.machines:
        for most in 1, 5, 1000:
            assert await listed(machine, table, most=most) == in_order(table, NAMES)


@simulated(machines=5)
async def test_no_value_goes_from_node_to_node(world: World) -> None:
    table = await started_with_values(world)
    for name in NAMES:
        await put(world.machines[0], table, name)
    sent: list[int] = []

    for machine in world.machines:
        real = member(machine).key_lists.answer

        async def answer(sender: NodeId, request: ListRange, real=real) -> Reply:  # type: ignore[no-untyped-def]
            rows: Rows = await real(sender, request)
            sent.extend(len(told) for _, told in rows.rows)
            return rows

        async def rows_instead(_sender: NodeId, _request: ReadRange) -> Reply:
            raise AssertionError("a page of rows is asked for")

        serve_instead(machine, ListRange, answer)
        serve_instead(machine, ReadRange, rows_instead)
    assert await listed(world.machines[4], table) == in_order(table, NAMES)
    assert sent
    assert max(sent) <= 16


@simulated()
async def test_what_was_deleted_has_expired_or_counts_nothing_is_no_key(world: World) -> None:
    table, machine = await started_with_values(world), world.machines[0]
    context = await put(machine, table, b"deleted")
    await put(machine, table, b"there")
    now = member(machine).coordinator.wall_us() // 1_000_000
    await put(machine, table, b"expires", expires_at_s=now + 5)
    deadline = now_s() + TIMEOUT_S
    await machine.spawn(
        member(machine).key_values.delete(
            table, key_of(table, b"deleted"), context=context, level=ALL, deadline=deadline
        )
    )
    assert await listed(machine, table) == in_order(table, [b"there", b"expires"])
    until_s = now_s() + 6
    await until(lambda: now_s() > until_s)
    assert await listed(machine, table) == [b"there"]

    counters = await world.table("counters", conflicts="crdt", wire=KEY_VALUE_WIRE)
    for name, actions in ((b"kept", ("increment",)), (b"reset", ("increment", "reset"))):
        for action in actions:
            work = member(machine).crdt_values.update(
                counters,
                key_of(counters, name),
                (Operation(COUNTER, action, 1 if action == "increment" else None),),
                level=ALL,
                read_level=QUORUM,
                deadline=now_s() + TIMEOUT_S,
            )
            await machine.spawn(work)
    assert await listed(machine, counters) == [b"kept"]


@simulated()
async def test_a_key_that_one_replica_lacks_is_looked_at_and_brought_there(world: World) -> None:
    table = await started_with_values(world)
    behind = replicas_of(world, table, b"k")[0]
    world.cut_off(behind)
    others = [machine for machine in world.machines if machine is not behind]
    await put(others[0], table, b"k", level=QUORUM)
    world.network.heal()
    member(behind).coordinator.hinting.close()
    assert await listed(behind, table) == [b"k"]
    assert await listed(behind, table, level=ONE) == [b"k"], "the read has repaired it"


@simulated()
async def test_with_too_few_replicas_nothing_is_told(world: World) -> None:
    table = await started_with_values(world)
    await put(world.machines[0], table, b"k")
    for machine in world.machines[1:]:
        world.cut_off(machine)
    with pytest.raises(UnavailableError):
        await page(world.machines[0], table)
    assert await listed(world.machines[0], table, level=ONE) == [b"k"]


@simulated()
async def test_a_place_of_another_table_and_a_page_of_nothing_are_refused(world: World) -> None:
    table = await started_with_values(world)
    for resume in (b"", key_of(table, b"k")[:3], b"\xff" * 12):
        with pytest.raises(RequestError, match="from must be what the page before told"):
            await page(world.machines[0], table, resume)
    for most in (0, 1001):
        with pytest.raises(RequestError, match="limit must be 1 to 1000"):
            await page(world.machines[0], table, most=most)


@simulated()
async def test_while_an_older_node_is_a_member_rows_are_asked_for(
    world: World,
) -> None:
    table, machine = await started_with_values(world), world.machines[0]
    await put(machine, table, b"k")

    async def none(_sender: NodeId, _request: ListRange) -> Reply:
        raise AssertionError("an older node would not know this")

    for one in world.machines:
        serve_instead(one, ListRange, none)
    topology = member(machine).topology
    patched = pytest.MonkeyPatch()
    patched.setattr("merganser.service.key_lists.LISTS_SINCE", topology.map.version + 1)
    try:
        assert await listed(machine, table) == [b"k"]
    finally:
        patched.undo()
