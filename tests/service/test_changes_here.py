"""Changes of items that the node leads which is asked: begun at once, counted, and given up in time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from merganser.core.admission import TICK_S
from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, OverloadedError, RequestError, UnknownOutcomeError
from merganser.model.leader_messages import Changed
from merganser.model.register import NO_VERSION
from merganser.service.steps import INDEXES, WIRES
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.led import leader_of, others_than, payload_of, read, register_at, started_led, the_leader
from service.plays import key_of, member, simulated, until

K = b"k"


async def changed(
    machine: Machine, table: Table, payload: bytes, *, kind: int = WIRES, timeout_s: float = 5.0
) -> Changed:
    """Have a client of ``machine`` change the item."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    items = member(machine).leader_tables.leader_based
    return await machine.spawn(items.change(table, key_of(table, K), kind, payload, deadline=deadline))


async def ready(world: World) -> tuple[Table, Machine]:
    """Return a table, and the leader of an item that is known."""
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    return table, leader


@simulated()
async def test_nobody_is_asked_to_lead_what_is_led_here(world: World) -> None:
    table, leader = await ready(world)
    remembered = len(leader_of(leader)._requests)  # by the ids of those that came as a `Change`
    done = await changed(leader, table, payload_of("put", b"v"))
    assert len(leader_of(leader)._requests) == remembered
    assert register_at(leader, table, K).version == done.version > NO_VERSION
    await until(lambda: all(register_at(machine, table, K).value == b"v" for machine in world.machines))


@simulated()
async def test_a_change_that_reaches_no_majority_is_unknown_at_its_deadline(world: World) -> None:
    table, leader = await ready(world)
    for machine in others_than(world, leader):
        world.network.cut(leader.address, machine.address)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(UnknownOutcomeError):
        await changed(leader, table, payload_of("put", b"v"), timeout_s=0.3)
    assert 0.3 <= loop.time() - began < 0.5
    assert member(leader).admission.load().led == 0


@simulated()
async def test_a_change_is_counted_until_it_ends(world: World) -> None:
    table, leader = await ready(world)
    admission = member(leader).admission
    writing = asyncio.create_task(changed(leader, table, payload_of("put", b"v" * 1000)))
    await until(lambda: admission.load().led == 1)
    assert admission.load().served_bytes >= 1000
    await writing
    assert admission.load().led == 0
    assert admission.load().most_led >= 1
    await until(lambda: admission.load().served_bytes == 0)


@simulated()
async def test_what_the_background_changes_through_leaders_is_not_asked_for(world: World) -> None:
    table, leader = await ready(world)
    for machine in leader, others_than(world, leader)[0]:
        await asyncio.sleep(5.0)
        for kind, is_asked in (INDEXES, False), (WIRES, True):
            for _ in range(40):
                with contextlib.suppress(RequestError):  # the table is not one of entries
                    await changed(machine, table, payload_of("put", b"v"), kind=kind)
            await asyncio.sleep(2 * TICK_S)
            assert [member(one).admission.is_asked for one in (machine, leader)] == [is_asked, is_asked]


@simulated()
async def test_what_writes_nothing_is_answered_all_the_same(world: World) -> None:
    table, leader = await ready(world)
    await changed(leader, table, payload_of("put", b"v"))
    rejected = await changed(leader, table, payload_of("compare_and_set", b"other", b"w"))
    assert (rejected.is_rejected, rejected.answer) == (True, b"v")
    done = await changed(leader, table, payload_of("compare_and_set", b"v", b"w"))
    assert not done.is_rejected
    assert register_at(leader, table, K).value == b"w"


@simulated()
async def test_without_room_to_lead_it_is_refused_as_any_other(world: World) -> None:
    table, leader = await ready(world)
    admission = member(leader).admission
    admission.begin_leading(32 * 2**20)
    with pytest.raises(OverloadedError, match="no more are taken"):
        await changed(leader, table, payload_of("put", b"v"))
    admission.end_leading(32 * 2**20, 0.0, is_asked=True)
    assert not (await changed(leader, table, payload_of("put", b"v"))).is_rejected


@simulated()
async def test_several_are_begun_together_and_each_ends_by_itself(world: World) -> None:
    table, leader = await ready(world)
    names = [b"%d" % number for number in range(40)]
    assert {the_leader(world, table, name) is leader for name in names} == {True, False}
    changes = [(table, key_of(table, name), payload_of("put", name)) for name in names]
    changes.append((table, key_of(table, K), payload_of("nothing of the kind")))
    done = await together(leader, changes)
    assert [type(one) for one in done] == [Changed] * len(names) + [RequestError]
    for name in names:
        assert register_at(the_leader(world, table, name), table, name).value == name
    load = member(leader).admission.load()
    assert (load.led, load.operations) == (0, 0)


@simulated()
async def test_several_that_are_given_up_leave_their_places(world: World) -> None:
    table, leader = await ready(world)
    for machine in others_than(world, leader):
        world.network.cut(leader.address, machine.address)
    names = [b"%d" % number for number in range(40)]
    changes = [(table, key_of(table, name), payload_of("put", name)) for name in names]
    giving_up = asyncio.create_task(together(leader, changes))
    admission = member(leader).admission
    await until(lambda: admission.load().operations == len(names))
    giving_up.cancel()
    await asyncio.wait([giving_up])
    await until(lambda: (admission.load().led, admission.load().operations) == (0, 0))


async def together(machine: Machine, changes: list[tuple[Table, bytes, bytes]]) -> list[Changed | MerganserError]:
    deadline = asyncio.get_running_loop().time() + 5.0
    items = member(machine).leader_tables.leader_based
    return await machine.spawn(items.change_all(changes, WIRES, deadline=deadline))
