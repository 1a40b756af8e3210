"""Reads never go back in time: what one read returned, as many replicas hold as the next read asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from merganser.model.errors import MerganserError, RefusedError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Read, Reply
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.service import coordinator
from merganser.service.coordinator import Coordinator
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import (
    ALL,
    CELL,
    ONE,
    QUORUM,
    damage,
    get,
    held,
    key_of,
    member,
    now_s,
    page,
    plant,
    put,
    read,
    serve_instead,
    settled,
    simulated,
    started,
)


def row(value: bytes, micros: int) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US + micros, 1), value),))


def refuse_writes(machine: Machine, code: str) -> None:
    async def refuse(_sender: NodeId, _request: Apply) -> Reply:
        raise RefusedError(code, "refused by the test")

    serve_instead(machine, Apply, refuse)


@simulated()
async def test_the_replicas_that_were_read_hold_what_is_returned_before_it_is_returned(world: World) -> None:
    table = await started(world)
    fresh, stale, away = world.machines
    away.crash()
    plant(stale, table, b"k", row(b"old", 1))
    plant(fresh, table, b"k", row(b"new", 2))
    assert await get(stale, table, b"k") == b"new"
    assert held(stale, table, b"k") == row(b"new", 2)
    stale.crash()
    stale.start()
    await world.up(stale)
    assert held(stale, table, b"k") == row(b"new", 2), "durably"


@simulated()
async def test_a_read_that_cannot_bring_a_quorum_up_to_date_is_unavailable(world: World) -> None:
    table = await started(world)
    fresh, stale, away = world.machines
    plant(fresh, table, b"k", row(b"new", 2))
    away.crash()
    refuse_writes(stale, "overloaded")
    with pytest.raises(UnavailableError, match="the replicas differ, and 1 of 2 hold the newest row in time"):
        await get(fresh, table, b"k")


@simulated()
async def test_a_replica_that_was_not_read_is_brought_up_in_place_of_one_that_refuses(world: World) -> None:
    table = await started(world)
    fresh, stale, spare = world.machines
    plant(fresh, table, b"k", row(b"new", 2))
    asker = member(fresh).coordinator._asker
    asker.note_silence(member(spare).topology.node)  # so that it is asked last
    refuse_writes(stale, "overloaded")
    assert await get(fresh, table, b"k") == b"new"
    assert held(spare, table, b"k") == row(b"new", 2)


@simulated()
async def test_a_replica_that_was_not_read_is_brought_up_in_place_of_one_that_is_silent(world: World) -> None:
    table = await started(world)
    fresh, stale, spare = world.machines
    plant(fresh, table, b"k", row(b"new", 2))
    member(fresh).coordinator._asker.note_silence(member(spare).topology.node)

    async def never(_sender: NodeId, _request: Apply) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    serve_instead(stale, Apply, never)
    began_s = now_s()
    assert await get(fresh, table, b"k") == b"new"
    assert now_s() - began_s < 0.5
    assert held(spare, table, b"k") == row(b"new", 2)


@simulated()
async def test_a_replica_that_holds_something_newer_by_now_counts_as_holding_it(world: World) -> None:
    table = await started(world)
    fresh, stale, away = world.machines
    away.crash()
    plant(fresh, table, b"k", row(b"new", 2))
    serve = member(stale).replica.apply

    async def overtaken(sender: NodeId, request: Apply) -> Reply:
        plant(stale, table, b"k", row(b"newer", 3))
        return await serve(sender, request)

    serve_instead(stale, Apply, overtaken)
    assert await get(fresh, table, b"k") == b"new"
    assert held(stale, table, b"k") == row(b"newer", 3)


@simulated()
async def test_a_mismatch_has_the_others_looked_at_and_repaired_as_well(world: World) -> None:
    table = await started(world)
    fresh, stale, unread = world.machines
    plant(fresh, table, b"k", row(b"new", 2))
    plant(unread, table, b"k", Row((Cell(b"other", Timestamp(EPOCH_US + 3, 1), b"x"),)))
    member(fresh).coordinator._asker.note_silence(member(unread).topology.node)
    await get(fresh, table, b"k")
    await settled(world)
    everything = Row((Cell(b"other", Timestamp(EPOCH_US + 3, 1), b"x"), *row(b"new", 2).cells))
    assert {held(machine, table, b"k") for machine in (fresh, stale, unread)} == {everything}


@simulated()
async def test_now_and_then_a_read_of_one_has_the_others_looked_at(world: World) -> None:
    table = await started(world)
    fresh, *stale = world.machines
    plant(fresh, table, b"k", row(b"v", 1))
    before, coordinator.LOOK_CHANCE = coordinator.LOOK_CHANCE, 0.2
    try:
        for _ in range(50):
            assert await get(fresh, table, b"k", level=ONE) == b"v"
    finally:
        coordinator.LOOK_CHANCE = before
    await settled(world)
    assert [held(machine, table, b"k") for machine in stale] == [row(b"v", 1)] * 2


@simulated()
async def test_equal_answers_cost_no_repair(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    for _ in range(100):
        await get(world.machines[0], table, b"k")
    await settled(world)
    assert member(world.machines[0]).coordinator.repairs.sent == 0


@simulated()
async def test_a_range_read_brings_every_row_of_its_page_up_before_it_answers(world: World) -> None:
    table = await started(world)
    fresh, stale, away = world.machines
    names = [b"%d" % i for i in range(40)]
    for name in names:
        plant(fresh, table, name, row(name, 1))
    away.crash()
    start, end = keys.table_range(table.id)
    while start is not None:
        found = await page(stale, table, start, end)
        for key, _ in found.rows:
            assert stale.engine.get(key) is not None
        start = found.resume  # type: ignore[assignment]
    assert all(held(stale, table, name) == row(name, 1) for name in names)


@simulated()
async def test_a_range_read_that_cannot_bring_a_quorum_up_to_date_is_unavailable(world: World) -> None:
    table = await started(world)
    fresh, stale, away = world.machines
    plant(fresh, table, b"k", row(b"new", 2))
    away.crash()
    refuse_writes(stale, "overloaded")
    key = key_of(table, b"k")
    with pytest.raises(UnavailableError, match="the replicas differ"):
        await page(fresh, table, key, keys.after(key))


@simulated()
async def test_a_damaged_replica_does_not_stop_a_repair_of_the_others(world: World) -> None:
    table = await started(world)
    fresh, stale, damaged = world.machines
    await put(fresh, table, b"k", b"old", level=ALL)
    damage(damaged, table, b"k")
    plant(fresh, table, b"k", row(b"new", 10_000_000))
    assert await get(fresh, table, b"k") == b"new"
    assert held(stale, table, b"k") == row(b"new", 10_000_000)


# Under faults


async def reads_in_turn(world: World) -> list[str]:
    """Write and read one key while messages are lost and machines crash; return reads that went back in time."""
    table = await started(world)
    rng = world.rng
    newest = BEGINNING
    told: list[str] = []

    async def write_on(machine: Machine) -> None:
        for i in range(25):
            await asyncio.sleep(rng.expovariate(30.0))
            if machine.member is not None:
                writing = machine.spawn(_write(machine, b"%d" % i))
                await asyncio.wait([writing], timeout=1.0)

    async def _write(machine: Machine, value: bytes) -> None:
        try:
            await put(machine, table, b"k", value, timeout_s=0.5)
        except MerganserError:
            pass

    writers = [asyncio.ensure_future(write_on(machine)) for machine in world.machines]
    while not all(task.done() for task in writers):
        await asyncio.sleep(rng.uniform(0.0, 0.1))
        world.network.conditions.loss = rng.choice([0.0, 0.2, 0.4])
        reader = rng.choice(world.machines)
        try:
            found = await read(reader, table, b"k", level=QUORUM, timeout_s=0.5)
        except MerganserError:
            continue
        seen = max((cell.written_at for cell in found.cells), default=BEGINNING) if found else BEGINNING
        if seen < newest:
            told.append(f"{reader.address} read {seen} after {newest} was read")
        newest = max(newest, seen)
    return told


def hunt(seeds: range) -> Iterator[str]:
    """Tell what went back in time, seed by seed."""
    for seed in seeds:
        world = World(seed)
        yield from world.run(reads_in_turn)
        assert world.errors() == []


def test_reads_that_follow_one_another_never_go_back_in_time() -> None:
    assert list(hunt(range(30))) == []


def test_they_do_when_repair_does_not_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Coordinator._bring_up

    async def later(self: Coordinator, *of_the_read: object) -> None:
        asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(bring_up(self, *of_the_read)))

    async def bring_up(self: Coordinator, *of_the_read: object) -> None:
        try:
            await real(self, *of_the_read)  # type: ignore[arg-type]
        except MerganserError:
            pass

    monkeypatch.setattr(Coordinator, "_bring_up", later)
    assert next(hunt(range(60)), None)


@simulated()
async def test_a_look_at_replicas_that_do_not_answer_is_given_up(world: World) -> None:
    table = await started(world)
    fresh, *others = world.machines
    await put(fresh, table, b"k", b"v", level=ALL)
    world.cut_off(fresh)
    unasked = [member(machine).topology.node for machine in others]
    repairs = member(fresh).coordinator.repairs
    question = Read(1, table.id, key_of(table, b"k"))
    row, holders = held(fresh, table, b"k"), [member(fresh).topology.node]
    repairs.look(question, row, holders=holders, unasked=unasked, vouched_us=0)
    await repairs.idle()
    assert repairs.sent == 0
