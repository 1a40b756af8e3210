"""The coordinating side of leader-based tables in a simulated cluster: through any node, through a take-over."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.leadership import PULSE_S, PULSES_LOST
from merganser.model.cluster import Table
from merganser.model.errors import UnavailableError, UnknownOutcomeError
from merganser.model.leader_messages import Changed
from merganser.net.deadlines import TICK_S
from merganser.service.leader_asking import PATIENCE_S
from merganser.service.leader_based import LeaderBased
from merganser.service.steps import WIRES
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import evaluate, leading, others_than, payload_of, the_leader
from service.plays import key_of, member, now_s, replicas_of, simulated, started_with_leaders, until

TIMEOUT_S = 5.0


async def started(world: World) -> Table:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    return await started_with_leaders(world)


def coordinator(machine: Machine) -> LeaderBased:
    return member(machine).leader_tables.leader_based


async def change(machine: Machine, table: Table, name: bytes, payload: bytes, timeout_s: float = TIMEOUT_S) -> Changed:
    work = coordinator(machine).change(table, key_of(table, name), WIRES, payload, deadline=now_s() + timeout_s)
    return await machine.spawn(work)


async def get(machine: Machine, table: Table, name: bytes, *, is_consistent: bool = True) -> bytes | None:
    work = coordinator(machine).read(
        table, key_of(table, name), is_consistent=is_consistent, deadline=now_s() + TIMEOUT_S
    )
    return (await machine.spawn(work)).value


async def scan(machine: Machine, table: Table, *, is_consistent: bool, reverse: bool = False) -> list[bytes]:
    start, end = keys.table_range(table.id)
    values: list[bytes] = []
    while True:
        work = coordinator(machine).read_range(
            table,
            start,
            end,
            reverse=reverse,
            is_consistent=is_consistent,
            rows_max=7,
            bytes_max=10_000,
            deadline=now_s() + TIMEOUT_S,
        )
        page = await machine.spawn(work)
        values += [value for _, value in page.rows]
        if page.resume is None:
            return values
        start, end = (start, page.resume) if reverse else (page.resume, end)


@simulated(machines=5)
async def test_what_one_node_wrote_any_other_reads(world: World) -> None:
    table = await started(world)
    for number, machine in enumerate(world.machines):
        await change(machine, table, b"%d" % number, payload_of("put", b"v%d" % number))
    for number in range(5):
        assert {await get(machine, table, b"%d" % number) for machine in world.machines} == {b"v%d" % number}


@simulated(machines=5)
async def test_whoever_holds_an_item_gives_its_value_at_once_and_nobody_else_does(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"there", payload_of("put", b"v"))
    await change(world.machines[0], table, b"gone", payload_of("put", b"v"))
    await change(world.machines[0], table, b"gone", payload_of("put"))
    await asyncio.sleep(1.0)  # so that every replica has everything, durably
    for name, value in (b"there", b"v"), (b"gone", b""), (b"never", b""):
        holders = replicas_of(world, table, name)
        for machine in world.machines:
            key = key_of(table, name)
            assert coordinator(machine).value_at_once(table, key, is_consistent=True) is None  # others have to be asked
            found = coordinator(machine).value_at_once(table, key, is_consistent=False)
            assert found == (value if machine in holders else None)


@simulated(machines=5)
async def test_a_range_is_read_from_all_its_leaders_or_from_replicas(world: World) -> None:
    table = await started(world)
    for number in range(60):
        await change(world.machines[number % 5], table, b"%d" % number, payload_of("put", b"%d" % number))
    await change(world.machines[0], table, b"7", payload_of("put"))
    expected = {b"%d" % number for number in range(60) if number != 7}
    forward = await scan(world.machines[0], table, is_consistent=True)
    assert (len(forward), set(forward)) == (59, expected)
    assert await scan(world.machines[1], table, is_consistent=True, reverse=True) == forward[::-1]
    await asyncio.sleep(1.0)  # so that every replica has everything
    assert await scan(world.machines[2], table, is_consistent=False) == forward


@simulated()
async def test_requests_are_carried_over_the_death_of_a_leader(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"k", payload_of("put", b"before"))
    victim = leading(world, table, b"k")
    assert victim is not None
    victim.crash()
    other = next(machine for machine in world.machines if machine is not victim)
    began = now_s()
    await change(other, table, b"k", payload_of("put", b"after"))
    assert now_s() - began < PATIENCE_S
    assert await get(other, table, b"k") == b"after"


@simulated()
async def test_a_node_that_is_cut_off_shows_nothing_stale_and_does_nothing(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"k", payload_of("put", b"old"))
    lonely = leading(world, table, b"k")
    assert lonely is not None
    world.cut_off(lonely)
    other = next(machine for machine in world.machines if machine is not lonely)
    await until(lambda: leading(world, table, b"k") not in (None, lonely))
    await change(other, table, b"k", payload_of("put", b"new"))
    with pytest.raises(UnavailableError):
        await get(lonely, table, b"k")
    with pytest.raises((UnavailableError, UnknownOutcomeError)):
        await change(lonely, table, b"k", payload_of("put", b"lost"))
    assert await get(lonely, table, b"k", is_consistent=False) == b"old"
    world.network.heal()
    assert await get(lonely, table, b"k") == b"new"


@simulated(seed=5)
async def test_what_is_added_while_leaders_die_is_counted_once_if_it_was_acknowledged(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"k", payload_of("add", 0))
    acknowledged = unknown = 0

    async def add(machine: Machine) -> None:
        nonlocal acknowledged, unknown
        for _ in range(40):
            if not machine.is_up:
                return
            try:
                await change(machine, table, b"k", payload_of("add", 1), timeout_s=2.0)
                acknowledged += 1
            except UnknownOutcomeError:
                unknown += 1
            except UnavailableError:
                continue

    first, second, third = replicas_of(world, table, b"k")
    adding = [asyncio.ensure_future(add(machine)) for machine in (second, third)]
    await asyncio.sleep(0.2)
    first.crash()
    await asyncio.sleep(3.0)
    await world.start()
    await asyncio.gather(*adding)
    total = int(await get(third, table, b"k") or b"0")
    assert acknowledged <= total <= acknowledged + unknown
    assert acknowledged > 40


@simulated()
async def test_a_change_at_the_leader_on_the_same_node_ends_at_its_deadline(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"k", payload_of("put", b"v"))
    leader = the_leader(world, table, b"k")
    for machine in others_than(world, leader):
        machine.disk.slow((60.0, 60.0))
    began = now_s()
    with pytest.raises(UnknownOutcomeError):
        await change(leader, table, b"k", payload_of("put", b"w"), timeout_s=0.7)
    assert 0.7 <= now_s() - began <= 0.7 + 3 * TICK_S


@simulated()
async def test_a_change_whose_client_has_gone_ends_at_once_and_is_done_all_the_same(world: World) -> None:
    table = await started(world)
    await change(world.machines[0], table, b"k", payload_of("put", b"v"))
    leader = the_leader(world, table, b"k")
    for machine in others_than(world, leader):
        machine.disk.slow((0.5, 0.5))
    writing = asyncio.create_task(change(leader, table, b"k", payload_of("put", b"w")))
    await asyncio.sleep(0.1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await get(leader, table, b"k") == b"w"


@simulated()
async def test_a_leader_that_is_out_of_earshot_is_not_asked_to_do_what_nobody_would_know_of(world: World) -> None:
    table = await started(world)
    here, _, _ = world.machines
    names = [b"%d" % number for number in range(100)]
    await until(lambda: all(leading(world, table, name) for name in names))
    leader, name = next((led, name) for name in names if (led := leading(world, table, name)) not in (here, None))
    world.network.cut(here.address, leader.address)
    world.network.cut(leader.address, here.address)
    await asyncio.sleep(2 * PULSES_LOST * PULSE_S)
    began_s = now_s()
    with pytest.raises(UnavailableError, match="not been heard"):
        await change(here, table, name, payload_of("put", b"v"))
    assert now_s() < began_s + PATIENCE_S + 0.5
    assert leading(world, table, name) is leader
    world.network.heal()
    await until(lambda: not member(here).leader_tables.leadership.is_silent(member(leader).topology.me.number))
    await change(here, table, name, payload_of("put", b"w"))
    assert await get(leader, table, name) == b"w"


@simulated()
async def test_no_change_has_an_unknown_outcome_because_a_node_is_closed(world: World) -> None:
    table = await started(world)
    await until(lambda: leading(world, table, b"k") is not None)
    leader = leading(world, table, b"k")
    assert leader is not None
    others = [machine for machine in world.machines if machine is not leader]
    await change(others[0], table, b"k", payload_of("put", b"0"))
    closing = leader.spawn(member(leader).close())
    changes = []
    while not closing.done():
        changes += [asyncio.create_task(change(other, table, b"k", payload_of("add", 1))) for other in others]
        await asyncio.sleep(0.0005)
    leader.crash()
    await asyncio.gather(*changes)
    assert await get(others[0], table, b"k") == b"%d" % len(changes)
