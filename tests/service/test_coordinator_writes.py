"""Writes of leaderless tables: what is acknowledged, what is refused, and what is not known."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.consistency import Consistency
from merganser.model.errors import RequestError, TableNotFoundError, UnavailableError, UnknownOutcomeError
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage.engine import Batch
from service.plays import (
    ALL,
    ANY_CLOCK_S,
    ONE,
    QUORUM,
    get,
    held,
    holders,
    key_of,
    member,
    now_s,
    plant,
    put,
    replicas_of,
    settled,
    simulated,
    started,
)

MINUTE_US = 60_000_000


@simulated()
async def test_a_write_reaches_every_replica_though_fewer_must_ack(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ONE)
    await settled(world)
    assert len(holders(world, table, b"k")) == 3


@simulated(machines=5)
async def test_a_node_that_is_no_replica_coordinates_as_well(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    await put(outsider, table, b"k", b"v", level=ALL)
    assert sorted(holders(world, table, b"k")) == sorted(machine.address for machine in replicas)


@simulated()
async def test_a_level_that_the_live_replicas_cannot_meet_is_refused_and_nothing_is_written(world: World) -> None:
    table = await started(world)
    world.machines[1].crash()
    with pytest.raises(UnavailableError, match="ALL needs 3 of 3 replicas and 2 can be reached"):
        await put(world.machines[0], table, b"k", b"v", level=ALL)
    world.machines[2].crash()
    with pytest.raises(UnavailableError, match="QUORUM needs 2 of 3 replicas and 1 can be reached"):
        await put(world.machines[0], table, b"k", b"v")
    await world.start()
    await settled(world)
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_level_above_n_is_the_clients_mistake_and_nothing_is_written(world: World) -> None:
    table = await started(world, n=2)
    with pytest.raises(RequestError, match="consistency THREE needs 3 replicas and the table has 2"):
        await put(world.machines[0], table, b"k", b"v", level=Consistency.THREE)
    await settled(world)
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_quorum_of_acks_is_enough_while_a_replica_is_down(world: World) -> None:
    table = await started(world)
    world.machines[2].crash()
    await put(world.machines[0], table, b"k", b"v")
    assert await get(world.machines[1], table, b"k") == b"v"


@simulated()
async def test_a_quorum_of_acks_is_enough_while_a_replica_is_silent(world: World) -> None:
    table = await started(world)
    world.cut_off(world.machines[2])
    before = now_s()
    await put(world.machines[0], table, b"k", b"v")
    assert now_s() - before < 1.0, "nobody waits for the silent one"


@simulated()
async def test_too_few_acks_by_the_deadline_are_an_unknown_outcome(world: World) -> None:
    table = await started(world)
    world.cut_off(world.machines[0])
    with pytest.raises(UnknownOutcomeError, match="1 of 2 replicas acknowledged"):
        await put(world.machines[0], table, b"k", b"v")
    assert holders(world, table, b"k") == [world.machines[0].address]


@simulated()
async def test_lost_acks_are_an_unknown_outcome_for_the_replicas_have_it(world: World) -> None:
    table = await started(world)
    for other in world.machines[1:]:
        world.network.cut(other.address, world.machines[0].address)
    with pytest.raises(UnknownOutcomeError):
        await put(world.machines[0], table, b"k", b"v")
    assert len(holders(world, table, b"k")) == 3


@simulated(machines=5)
async def test_refusals_by_all_replicas_are_unavailable_for_nothing_was_written(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    outsider.skew_us = 2 * MINUTE_US
    with pytest.raises(UnavailableError, match=r"0 of 1 replicas acknowledged.*nothing was written"):
        await put(outsider, table, b"k", b"v", level=ONE)
    assert holders(world, table, b"k") == []


@simulated()
async def test_one_ack_among_refusals_is_an_unknown_outcome(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    world.machines[0].skew_us = 2 * MINUTE_US  # its own replica takes what the others refuse
    with pytest.raises(UnknownOutcomeError, match="1 of 2 replicas acknowledged"):
        await put(world.machines[0], table, b"k", b"v")
    assert holders(world, table, b"k") == [world.machines[0].address]


@simulated()
async def test_a_write_to_a_dropped_table_is_told_so(world: World) -> None:
    table = await started(world)
    await world.machines[1].spawn(member(world.machines[1]).catalog.drop_table(table, deadline=now_s() + 10.0))
    with pytest.raises(TableNotFoundError, match="table t was dropped"):
        await put(world.machines[0], table, b"k", b"v")


@simulated(machines=5)
async def test_replicas_that_have_not_heard_of_a_table_do_not_make_it_a_dropped_one(world: World) -> None:
    await world.start()
    author, second, *ignorant = world.machines
    for machine in ignorant[:2]:
        world.cut_off(machine)
    table = await world.table()
    names = (b"k%d" % number for number in range(1000))
    name = next(name for name in names if {*ignorant[:2]} < {*replicas_of(world, table, name)})
    world.network.heal()
    for machine in ignorant[:2]:  # they can be reached, and ask for the map in vain
        for informed in author, second, ignorant[2]:
            world.network.cut(machine.address, informed.address)
    writing = asyncio.ensure_future(put(author, table, name, b"v", timeout_s=5.0))
    await asyncio.sleep(0.99)
    world.network.heal()
    with pytest.raises(UnknownOutcomeError, match="no table with id 1 at epoch 1"):
        await writing


@simulated()
async def test_a_coordinator_whose_disk_hangs_answers_by_the_deadline(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    machine = world.machines[0]
    hang(machine)
    machine.skew_us = 30_000_000  # beyond the ceiling: the next timestamp waits for the disk
    with pytest.raises(UnavailableError, match="nothing was written"):
        async with asyncio.timeout(10.0):
            await put(machine, table, b"k", b"v")
    assert holders(world, table, b"k") == []


def hang(machine: Machine) -> None:
    """Let no fsync of ``machine`` end any more."""

    async def forever() -> None:
        await asyncio.Event().wait()

    machine.engine._group._sync = forever


@simulated()
async def test_concurrent_writes_through_all_nodes_leave_one_winner_everywhere(world: World) -> None:
    table = await started(world)
    stamps = await asyncio.gather(
        *(put(world.machines[i % 3], table, b"k", b"v%d" % i, level=QUORUM) for i in range(12))
    )
    await settled(world)
    assert len(set(stamps)) == 12
    assert len({machine.engine.get(key_of(table, b"k")) for machine in world.machines}) == 1
    assert await get(world.machines[0], table, b"k") == b"v%d" % stamps.index(max(stamps))


@simulated()
async def test_a_replica_with_a_damaged_row_does_not_ack(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"old", level=ALL)
    key = key_of(table, b"k")
    for machine in world.machines[1:]:
        machine.engine.commit(Batch().put(key, b"\x01rubbish"))
    with pytest.raises(UnknownOutcomeError, match="1 of 2"):
        await put(world.machines[0], table, b"k", b"new")
    assert world.machines[1].engine.get(key) == b"\x01rubbish"
    assert held(world.machines[0], table, b"k") is not None


@simulated()
async def test_a_write_from_a_slow_clock_outranks_what_was_acknowledged_before_it(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    ahead, behind, _ = world.machines
    ahead.skew_us = 20_000_000
    first = await put(ahead, table, b"k", b"first")
    behind.skew_us = -20_000_000
    second = await put(behind, table, b"k", b"second")
    assert second > first
    assert await get(ahead, table, b"k") == b"second"


@simulated()
async def test_a_write_under_one_from_beyond_the_clock_bound_is_of_unknown_outcome(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    ahead, behind, _ = world.machines
    ahead.skew_us = 50_000_000
    await put(ahead, table, b"k", b"first", level=ALL)
    behind.crash()
    behind.skew_us = -50_000_000
    behind.start()
    await world.up(behind)
    with pytest.raises(UnknownOutcomeError, match="may never be seen"):
        await put(behind, table, b"k", b"second")


@simulated(machines=5)
async def test_a_second_attempt_that_is_refused_does_not_undo_the_first(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    newer = Timestamp(outsider.wall_us() + MINUTE_US - 1_000_000, 9)
    for replica in replicas:
        plant(replica, table, b"k", Row((Cell(b"value", newer, b"newer"),)))
        replica.skew_us = -5_000_000  # so that what the outsider mints after it is too far ahead for them
    with pytest.raises(UnknownOutcomeError, match="may never be seen"):
        await put(outsider, table, b"k", b"v", level=ONE)


@simulated()
async def test_a_coordinator_that_missed_a_drop_knows_the_newer_map_when_it_says_so(world: World) -> None:
    old = await started(world)
    *others, away = world.machines
    world.cut_off(away)
    deadline = now_s() + 60
    catalog = member(others[0]).catalog
    await others[0].spawn(catalog.drop_table(old, deadline=deadline))
    new = await others[0].spawn(
        catalog.create_table(wire=old.wire, name=old.name, definition=b"", unique_id="new", deadline=deadline)
    )
    assert member(away).topology.table(old.id) is not None
    world.network.heal()
    with pytest.raises(TableNotFoundError):
        await put(away, old, b"k", b"v", level=ALL)
    assert member(away).topology.table(new.id) == new
