"""Sloppy quorums: explicit numbers count fallbacks, and ANY takes a write as long as one node can keep it."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, ReadQuorums, WriteQuorums
from merganser.model.errors import (
    CorruptionError,
    RefusedError,
    RequestError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, ReadHint, Reply
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.hints import drained, kept
from service.plays import (
    ALL,
    ONE,
    QUORUM,
    get,
    held,
    holders,
    key_of,
    member,
    now_s,
    put,
    replicas_of,
    serve_instead,
    settled,
    simulated,
    started,
)

ANY = Consistency.ANY
W1, W2 = WriteQuorums(w=1), WriteQuorums(w=2)
R1, R2 = ReadQuorums(r=1), ReadQuorums(r=2)


async def divided(world: World, name: bytes) -> tuple[Table, list[Machine], list[Machine]]:
    """Return a table, the replicas of ``name``, and all other machines, which hear nothing of them any more."""
    table = await started(world)
    primaries = replicas_of(world, table, name)
    others = [machine for machine in world.machines if machine not in primaries]
    for one in primaries:
        for other in others:
            world.network.cut(one.address, other.address)
            world.network.cut(other.address, one.address)
    return table, primaries, others


# Writes


@simulated(machines=5)
async def test_a_sloppy_write_succeeds_on_the_side_without_a_replica_and_its_reads_see_it(world: World) -> None:
    table, _, (one, other) = await divided(world, b"k")
    first = await put(one, table, b"k", b"first", level=W2)
    assert await get(one, table, b"k", level=R2) == b"first"
    assert await get(other, table, b"k", level=R2) == b"first"
    second = await put(other, table, b"k", b"second", level=W2)
    assert second > first
    for machine in (one, other):
        assert await get(machine, table, b"k", level=R2) == b"second"


@simulated(machines=5)
async def test_what_was_written_there_is_on_the_replicas_after_the_partition_without_a_read(world: World) -> None:
    table, primaries, (one, _) = await divided(world, b"k")
    await put(one, table, b"k", b"v", level=W2)
    assert holders(world, table, b"k") == []
    world.network.heal()
    await drained(world)
    assert sorted(holders(world, table, b"k")) == sorted(machine.address for machine in primaries)
    assert await get(primaries[0], table, b"k", level=ALL) == b"v"


@simulated(machines=5)
async def test_a_request_that_insists_on_primaries_is_refused_there(world: World) -> None:
    table, _, (one, _) = await divided(world, b"k")
    with pytest.raises(UnknownOutcomeError, match="of 2 replicas"):
        await put(one, table, b"k", b"v", level=WriteQuorums(w=2, pw=2))
    with pytest.raises(UnknownOutcomeError, match="of 2 nodes, 1 of them replicas,"):
        await put(one, table, b"k", b"v", level=WriteQuorums(w=2, pw=1))
    with pytest.raises(UnavailableError, match="0 of 2 replicas answered in time"):
        await get(one, table, b"k", level=ReadQuorums(r=2, pr=2))
    with pytest.raises(UnavailableError, match="of 2 nodes, 1 of them replicas, answered in time"):
        await get(one, table, b"k", level=ReadQuorums(r=2, pr=1))
    with pytest.raises(UnknownOutcomeError):
        await put(one, table, b"k", b"v", level=QUORUM)


@simulated(machines=5)
async def test_primaries_that_are_down_are_known_before_anything_is_written(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    (one, *_) = [machine for machine in world.machines if machine not in primaries]
    for machine in primaries[:2]:
        machine.crash()
    with pytest.raises(UnavailableError, match="w=2,pw=2 needs 2 of 3 replicas and 1 can be reached"):
        await put(one, table, b"k", b"v", level=WriteQuorums(w=2, pw=2))
    await put(one, table, b"k", b"v", level=WriteQuorums(w=2, pw=1))
    await settled(world)
    assert held(primaries[2], table, b"k") is not None


@simulated()
async def test_more_nodes_than_can_be_reached_are_unavailable_and_nothing_is_written(world: World) -> None:
    table = await started(world)
    coordinator, *others = world.machines
    for machine in others:
        machine.crash()
    with pytest.raises(UnavailableError, match="w=2,pw=0 needs 2 nodes and 1 can be reached"):
        await put(coordinator, table, b"k", b"v", level=W2)
    with pytest.raises(UnavailableError, match="r=2,pr=0 needs 2 nodes and 1 can be reached"):
        await get(coordinator, table, b"k", level=R2)
    await world.start()
    await settled(world)
    assert holders(world, table, b"k") == []


@simulated()
async def test_numbers_beyond_the_table_are_the_clients_mistake(world: World) -> None:
    table = await started(world)
    with pytest.raises(RequestError, match="w=4 and the table has 3 replicas"):
        await put(world.machines[0], table, b"k", b"v", level=WriteQuorums(w=4))
    with pytest.raises(RequestError, match="r=0 asks nobody"):
        await get(world.machines[0], table, b"k", level=ReadQuorums(r=0))
    with pytest.raises(RequestError, match="ANY is for writes"):
        await get(world.machines[0], table, b"k", level=ANY)


@simulated(machines=5)
async def test_a_silent_primary_is_stood_in_for_long_before_the_deadline(world: World) -> None:
    table, _, (one, _) = await divided(world, b"k")
    began_s = now_s()
    await put(one, table, b"k", b"v", level=W2)
    assert now_s() - began_s < 0.2
    await settled(world)
    began_s = now_s()
    await put(one, table, b"k", b"w", level=W2)
    assert now_s() - began_s < 0.05, "known to be silent by now"


@simulated(machines=5)
async def test_when_no_fallback_stores_a_hint_the_write_is_hopeless_before_the_deadline(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    one, other = [machine for machine in world.machines if machine not in primaries]
    for machine in primaries:
        machine.crash()
    for machine in (one, other):
        member(machine).hints._is_counted = False
    began_s = now_s()
    with pytest.raises(UnavailableError, match=r"0 of 1 nodes acknowledged the write.*nothing was written"):
        await put(one, table, b"k", b"v", level=W1)
    assert now_s() - began_s < 0.5


@simulated(machines=5)
async def test_a_sloppy_write_to_a_dropped_table_is_told_so(world: World) -> None:
    table = await started(world)
    await world.machines[1].spawn(member(world.machines[1]).catalog.drop_table(table, deadline=now_s() + 10.0))
    with pytest.raises(TableNotFoundError):
        await put(world.machines[0], table, b"k", b"v", level=W2)
    with pytest.raises(TableNotFoundError):
        await get(world.machines[0], table, b"k", level=R2)


@simulated(machines=5)
async def test_a_coordinator_behind_another_there_still_outranks_it(world: World) -> None:
    table, _, (one, other) = await divided(world, b"k")
    one.skew_us, other.skew_us = 4_000_000, -4_000_000
    first = await put(one, table, b"k", b"first", level=W2)
    second = await put(other, table, b"k", b"second", level=W2)
    assert second > first
    assert await get(one, table, b"k", level=R2) == b"second"


# ANY


@simulated(machines=5)
async def test_any_takes_a_write_with_all_primaries_down_and_it_is_read_when_they_are_up(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    (one, *_) = [machine for machine in world.machines if machine not in primaries]
    for machine in primaries:
        machine.crash()
    with pytest.raises(UnavailableError):
        await put(one, table, b"k", b"v", level=ONE)
    await put(one, table, b"k", b"v", level=ANY)
    await world.start()
    await drained(world)
    assert await get(primaries[0], table, b"k", level=ALL) == b"v"


@simulated(machines=5)
async def test_any_takes_a_write_on_a_node_that_is_alone(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    one, other = [machine for machine in world.machines if machine not in primaries]
    world.cut_off(one)
    began_s = now_s()
    await put(one, table, b"k", b"v", level=ANY)
    assert now_s() - began_s < 1.0
    await settled(world)
    assert all(kept(one, primary) == [b"k"] for primary in primaries)
    assert await get(one, table, b"k", level=R1) == b"v"
    one.crash()
    world.network.heal()
    await world.start()
    await drained(world)
    assert len(holders(world, table, b"k")) == 3
    assert held(other, table, b"k") is None


@simulated(machines=5)
async def test_any_counts_a_hint_of_a_coordinator_that_is_a_primary_which_cannot_take_the_row_itself(
    world: World,
) -> None:
    table = await started(world)
    one, *others = replicas_of(world, table, b"k")

    async def refuse(_sender: NodeId, _request: Apply) -> Reply:
        raise RefusedError("not_whole", "being made whole")

    serve_instead(one, Apply, refuse)
    for machine in world.machines:
        if machine is not one:
            machine.crash()
    await put(one, table, b"k", b"v", level=ANY)
    serve_instead(one, Apply, member(one).replica.apply)
    await world.start()
    await drained(world)
    assert await get(others[0], table, b"k", level=ALL) == b"v"


# Reads


@simulated(machines=5)
async def test_a_fallback_is_not_asked_while_primaries_answer(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in primaries]
    await put(outsider, table, b"k", b"v", level=ALL)
    for _ in range(50):
        assert await get(outsider, table, b"k", level=R1) == b"v"
        assert await get(outsider, table, b"k", level=ReadQuorums(r=3)) == b"v"


@simulated(machines=5)
async def test_a_read_whose_primaries_are_silent_turns_to_fallbacks(world: World) -> None:
    table, _, (one, other) = await divided(world, b"k")
    await put(other, table, b"k", b"v", level=W2)
    began_s = now_s()
    assert await get(one, table, b"k", level=R2) == b"v"
    assert now_s() - began_s < 1.0
    began_s = now_s()
    assert await get(one, table, b"k", level=R2) == b"v"
    assert now_s() - began_s < 0.1, "they are asked last for a while"


@simulated(machines=5)
async def test_a_stale_primary_that_a_sloppy_read_meets_is_brought_up_to_the_hint(world: World) -> None:
    table = await started(world)
    primaries = replicas_of(world, table, b"k")
    one, other = [machine for machine in world.machines if machine not in primaries]
    await put(one, table, b"k", b"old", level=ALL)
    for machine in primaries:
        machine.crash()
    await put(one, table, b"k", b"new", level=W2)
    await settled(world)
    lonely = primaries[0]
    lonely.start()
    await world.up(lonely)
    assert await get(other, table, b"k", level=R2) == b"new"


@simulated(machines=5)
async def test_a_damaged_hint_is_not_returned(world: World) -> None:
    table, _, (one, other) = await divided(world, b"k")
    await put(one, table, b"k", b"v", level=W2)

    async def damaged(_sender: NodeId, _request: ReadHint) -> Reply:
        raise CorruptionError("damaged value")

    for machine in (one, other):
        member(machine)._serve[ReadHint] = damaged
    with pytest.raises(UnavailableError, match="damaged value"):
        await get(one, table, b"k", level=R2)


@simulated(machines=5)
async def test_ranges_are_read_from_primaries_whatever_the_numbers_say(world: World) -> None:
    table, _, (one, _) = await divided(world, b"k")
    await put(one, table, b"k", b"v", level=W2)
    key = key_of(table, b"k")
    with pytest.raises(UnavailableError, match="0 of 1 replicas answered in time"):
        await one.spawn(
            member(one).coordinator.read_range(
                table, key, keys.after(key), level=R1, rows_max=10, bytes_max=1000, deadline=now_s() + 1.0
            )
        )


@simulated(machines=5)
async def test_many_writers_on_both_sides_of_a_partition_leave_one_winner_everywhere(world: World) -> None:
    table, primaries, others = await divided(world, b"k")
    stamps = await asyncio.gather(
        *(put(machine, table, b"k", machine.address.encode(), level=W2) for machine in world.machines for _ in range(3))
    )
    world.network.heal()
    await drained(world)
    assert {held(machine, table, b"k") for machine in primaries} == {held(primaries[0], table, b"k")}
    winner = world.machines[stamps.index(max(stamps)) // 3]
    assert await get(others[0], table, b"k") == winner.address.encode()
