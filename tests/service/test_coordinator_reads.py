"""Reads of leaderless tables: who is asked, what is returned, and which replicas are repaired."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.consistency import Consistency
from merganser.model.errors import RequestError, TableNotFoundError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import Read, Reply, Request
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.net.transport import Traffic
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.plays import (
    ALL,
    CELL,
    ONE,
    damage,
    get,
    held,
    key_of,
    member,
    now_s,
    plant,
    put,
    read,
    replicas_of,
    settled,
    simulated,
    started,
)

HEDGE_S = 0.1


def row(value: bytes, micros: int) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US + micros, 1), value),))


def repairs(machine: Machine) -> int:
    return member(machine).coordinator.repairs.sent


@simulated()
async def test_a_key_never_written_reads_as_none_at_every_level(world: World) -> None:
    table = await started(world)
    for level in (ONE, Consistency.QUORUM, ALL):
        assert await read(world.machines[0], table, b"k", level=level) is None


@simulated()
async def test_a_read_meets_the_write_that_a_quorum_acknowledged_through_any_node(world: World) -> None:
    table = await started(world)
    for number, writer in enumerate(world.machines):
        await put(writer, table, b"k", b"v%d" % number)
        for reader in world.machines:
            assert await get(reader, table, b"k") == b"v%d" % number


@simulated()
async def test_a_read_without_enough_live_replicas_is_unavailable(world: World) -> None:
    table = await started(world)
    world.machines[1].crash()
    with pytest.raises(UnavailableError, match="ALL needs 3 of 3 replicas and 2 can be reached"):
        await read(world.machines[0], table, b"k", level=ALL)


@simulated()
async def test_a_read_without_enough_answers_by_the_deadline_is_unavailable(world: World) -> None:
    table = await started(world)
    world.cut_off(world.machines[0])
    with pytest.raises(UnavailableError, match="1 of 2 replicas answered in time"):
        await read(world.machines[0], table, b"k")


@simulated()
async def test_a_level_above_n_is_the_clients_mistake(world: World) -> None:
    table = await started(world, n=1)
    with pytest.raises(RequestError, match="the table has 1"):
        await read(world.machines[0], table, b"k", level=Consistency.TWO)


@simulated()
async def test_a_read_asks_another_replica_at_once_when_one_fails(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    damage(world.machines[0], table, b"k")
    before = now_s()
    assert await get(world.machines[0], table, b"k") == b"v"
    assert now_s() - before < HEDGE_S


@simulated()
async def test_a_read_asks_another_replica_after_the_hedge_delay_when_one_is_slow(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    world.cut_off(world.machines[1])
    before = now_s()
    assert await get(world.machines[0], table, b"k") == b"v"
    assert HEDGE_S <= now_s() - before < 2 * HEDGE_S


@simulated(machines=5)
async def test_a_read_goes_on_asking_while_replicas_are_slow(world: World) -> None:
    table = await started(world, n=5)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    first, second, *_ = (machine for machine in replicas_of(world, table, b"k") if machine is not world.machines[0])
    world.cut_off(first)
    world.cut_off(second)
    assert await get(world.machines[0], table, b"k") == b"v"


@simulated(machines=5)
async def test_a_read_that_was_given_up_asks_nobody_any_more(world: World) -> None:
    table = await started(world, n=5)
    world.cut_off(world.machines[0])
    asked: list[NodeId] = []
    asker = member(world.machines[0]).coordinator._asker
    ask = asker._transport.request

    def noted(
        node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        if isinstance(request, Read):
            asked.append(node)
            assert now_s() + timeout_s <= deadline + 1e-6
        return ask(node, request, timeout_s=timeout_s, traffic=traffic)

    asker._transport.request = noted  # type: ignore[method-assign]
    deadline = now_s() + 0.25
    with pytest.raises(UnavailableError):
        await read(world.machines[0], table, b"k", timeout_s=0.25)
    assert now_s() == pytest.approx(deadline)
    await asyncio.sleep(5.0)
    assert len(asked) == 4


@simulated()
async def test_a_read_returns_the_newest_value_and_repairs_exactly_the_stale_replicas(world: World) -> None:
    table = await started(world)
    fresh, stale, empty = world.machines
    plant(stale, table, b"k", row(b"old", 1))
    plant(fresh, table, b"k", row(b"new", 2))
    assert await get(fresh, table, b"k", level=ALL) == b"new"
    assert repairs(fresh) == 2
    await settled(world)
    assert held(stale, table, b"k") == held(empty, table, b"k") == row(b"new", 2)
    assert await get(fresh, table, b"k", level=ALL) == b"new"
    assert repairs(fresh) == 2, "nothing is stale any more"


@simulated()
async def test_a_read_merges_cells_that_lie_on_different_replicas(world: World) -> None:
    table = await started(world)
    one, other, empty = world.machines
    a, b = Cell(b"a", Timestamp(EPOCH_US, 1), b"1"), Cell(b"b", Timestamp(EPOCH_US + 1, 2), b"2")
    plant(one, table, b"k", Row((a,)))
    plant(other, table, b"k", Row((b,)))
    assert await read(empty, table, b"k", level=ALL) == Row((a, b))
    await settled(world)
    assert {held(machine, table, b"k") for machine in world.machines} == {Row((a, b))}


@simulated()
async def test_a_deleted_row_does_not_come_back_from_a_stale_replica(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    stale = world.machines[2]
    stale.crash()
    await put(world.machines[0], table, b"k", None)
    await world.start()
    assert await get(stale, table, b"k", level=ALL) is None
    await settled(world)
    buried = held(stale, table, b"k")
    assert buried is not None
    assert buried.cells == ()


@simulated()
async def test_a_damaged_row_is_never_returned_and_not_overwritten_by_repair(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    damaged = damage(world.machines[1], table, b"k")
    for reader in world.machines:
        for level in (ONE, Consistency.QUORUM):
            assert await get(reader, table, b"k", level=level) == b"v"
    await settled(world)
    assert world.machines[1].engine.get(key_of(table, b"k")) == damaged


@simulated()
async def test_a_level_that_needs_the_damaged_replica_is_unavailable_and_names_the_damage(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    damage(world.machines[1], table, b"k")
    with pytest.raises(UnavailableError, match="damaged value"):
        await read(world.machines[0], table, b"k", level=ALL)


@simulated()
async def test_a_read_of_a_dropped_table_is_told_so(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v")
    await world.machines[1].spawn(member(world.machines[1]).catalog.drop_table(table, deadline=now_s() + 10.0))
    with pytest.raises(TableNotFoundError, match="table t was dropped"):
        await read(world.machines[0], table, b"k")


@simulated()
async def test_an_expired_cell_reads_as_absent_and_stays_newer_than_what_it_replaced(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"old", level=ALL)
    soon_s = EPOCH_US // 1_000_000 + int(now_s()) + 5
    await put(world.machines[0], table, b"k", b"passing", level=ALL, expires_at_s=soon_s)
    assert await get(world.machines[0], table, b"k") == b"passing"
    await asyncio.sleep(10.0)
    assert await get(world.machines[0], table, b"k") is None
