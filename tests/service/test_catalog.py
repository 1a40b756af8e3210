"""Changes of the cluster map: made once, in one order, never lost, and known to whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from merganser.core import cluster_map
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import (
    CorruptionError,
    MerganserError,
    TableChangedError,
    TableExistsError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import ClusterId, NodeId
from merganser.model.messages import Accept, Adopt, Ballot, Prepare, Reply
from merganser.service.topology import load_map
from merganser.sim.machine import Machine
from merganser.sim.network import REOPENED_S, Conditions
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import ALL, get, holders, key_of, member, now_s, play, put, settled, simulated, started, until

CHANGE_S = 20.0


async def create(machine: Machine, name: str, *, by: str = "", timeout_s: float = CHANGE_S) -> Table:
    return await machine.spawn(
        member(machine).catalog.create_table(
            wire="sim", name=name, n=3, definition=b"", unique_id=by or f"id of {name}", deadline=now_s() + timeout_s
        )
    )


async def redefine(machine: Machine, table: Table, definition: bytes) -> Table:
    return await machine.spawn(member(machine).catalog.redefine_table(table, definition, deadline=now_s() + CHANGE_S))


async def drop(machine: Machine, table: Table) -> None:
    await machine.spawn(member(machine).catalog.drop_table(table, deadline=now_s() + CHANGE_S))


async def look_up(machine: Machine, name: str, *, timeout_s: float = 2.0) -> Table:
    return await machine.spawn(member(machine).catalog.table("sim", name, deadline=now_s() + timeout_s))


def current(machine: Machine) -> ClusterMap:
    return member(machine).topology.map


async def agreed(world: World) -> ClusterMap:
    """Return the one map that all machines come to know."""
    await until(lambda: len({current(machine).epoch for machine in world.machines}) == 1)
    assert all(current(machine) == current(world.machines[0]) for machine in world.machines)
    return current(world.machines[0])


@simulated(machines=5)
async def test_of_concurrent_requests_for_one_name_one_wins(world: World) -> None:
    await world.start()
    attempts = await asyncio.gather(
        *(create(machine, "t", by=machine.address) for machine in world.machines), return_exceptions=True
    )
    (made,) = (attempt for attempt in attempts if isinstance(attempt, Table))
    assert sum(isinstance(attempt, TableExistsError) for attempt in attempts) == 4
    assert (await agreed(world)).tables == (made,)


@simulated(machines=5)
async def test_concurrent_requests_for_different_names_are_all_granted_one_after_another(world: World) -> None:
    await world.start()
    made = await asyncio.gather(*(create(world.machines[i % 5], f"t{i}") for i in range(15)))
    final = await agreed(world)
    assert sorted(table.name for table in final.tables) == sorted(f"t{i}" for i in range(15))
    assert {table.id for table in made} == set(range(1, 16))
    assert final.epoch == 16


@simulated()
async def test_a_repeated_request_makes_no_second_table(world: World) -> None:
    await world.start()
    first, second = await asyncio.gather(create(world.machines[0], "t"), create(world.machines[1], "t"))
    assert first == second
    assert (await agreed(world)).epoch == 2


@simulated()
async def test_of_concurrent_redefinitions_one_wins_and_the_others_know_it(world: World) -> None:
    await world.start()
    made = await create(world.machines[0], "t")
    await agreed(world)
    attempts = await asyncio.gather(
        *(redefine(machine, made, machine.address.encode()) for machine in world.machines), return_exceptions=True
    )
    (won,) = (attempt for attempt in attempts if isinstance(attempt, Table))
    assert sum(isinstance(attempt, TableChangedError) for attempt in attempts) == 2
    for machine in world.machines:
        assert current(machine).tables == (won,)  # those that were refused know why
    with pytest.raises(TableChangedError):
        await drop(world.machines[0], made)
    await drop(world.machines[0], won)
    with pytest.raises(TableNotFoundError):
        await redefine(world.machines[1], won, b"late")


@simulated()
async def test_a_reported_redefinition_is_found_at_once_where_the_newest_is_asked_for(world: World) -> None:
    await world.start()
    made = await create(world.machines[0], "t")
    await agreed(world)
    other = world.machines[2]
    world.network.cut(world.machines[0].address, other.address)  # the push does not arrive
    redefined = await redefine(world.machines[0], made, b"new")
    assert await look_up(other, "t") == made
    work = member(other).catalog.table("sim", "t", deadline=now_s() + 2.0, is_newest=True)
    assert await other.spawn(work) == redefined


@simulated()
async def test_a_reported_change_is_found_through_every_node_at_once(world: World) -> None:
    await world.start()
    world.network.cut(world.machines[0].address, world.machines[2].address)  # the push does not arrive
    made = await create(world.machines[0], "t")
    assert await look_up(world.machines[2], "t") == made


@simulated()
async def test_a_table_that_does_not_exist_is_said_so_only_after_asking_a_majority(world: World) -> None:
    await world.start()
    with pytest.raises(TableNotFoundError, match="table t does not exist"):
        await look_up(world.machines[0], "t")
    world.cut_off(world.machines[0])
    with pytest.raises(UnavailableError):
        await look_up(world.machines[0], "t")


@simulated()
async def test_a_look_up_does_not_lean_on_a_round_that_began_before_it(world: World) -> None:
    await world.start()
    early, author, other = world.machines
    world.network.cut(early.address, other.address)
    world.network.conditions = Conditions(delay_s=(0.001, 0.001))
    first = asyncio.ensure_future(look_up(early, "t"))
    await asyncio.sleep(0.0005)
    world.network.conditions = Conditions(delay_s=(0.5, 0.5))  # for the answer that knows of no table
    await asyncio.sleep(0.001)
    world.network.conditions = Conditions(delay_s=(0.001, 0.001))
    world.network.cut(author.address, early.address)
    made = await create(author, "t")
    world.network.heal()
    assert not first.done()
    assert current(early).epoch == 1
    assert await look_up(early, "t") == made
    with pytest.raises(TableNotFoundError):
        await first


@simulated()
async def test_a_change_that_nobody_decided_is_no_reason_to_refuse_another(world: World) -> None:
    await world.start()
    machine, one, other = world.machines
    ghost = cluster_map.with_table(current(one), wire="sim", name="t", n=3, definition=b"", unique_id="ghost")
    await member(one).serve(current(one).nodes[0].id, Prepare(Ballot(1, 3)))
    await member(one).serve(current(one).nodes[0].id, Accept(Ballot(1, 3), ghost))  # its proposer died here
    other.crash()
    with pytest.raises(TableExistsError):
        await create(machine, "t")
    one.crash()
    other.start()
    await world.up(other)
    assert (await look_up(machine, "t")).unique_id == "ghost", "who was refused for it must find it"


@simulated(machines=5)
async def test_two_silent_voters_of_five_stop_no_change(world: World) -> None:
    await world.start()
    for silent in world.machines[1:3]:
        world.cut_off(silent)
    await create(world.machines[0], "t", timeout_s=5.0)


@simulated()
async def test_a_minority_changes_nothing_and_says_so(world: World) -> None:
    await world.start()
    for other in world.machines[1:]:
        other.crash()
    with pytest.raises(UnavailableError, match="nothing was changed"):
        await create(world.machines[0], "t", timeout_s=2.0)
    await world.start()
    assert (await agreed(world)).epoch == 1


Answer = Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]


@contextmanager
def _cut_off_when_accepted(world: World, machine: Machine) -> Iterator[None]:
    """Let others accept what ``machine`` proposes, and ``machine`` never hear of it."""
    others = [member(other)._serve for other in world.machines if other is not machine]
    answers = [serve[Accept] for serve in others]

    def lonely(answer: Answer) -> Answer:
        async def accept(sender: NodeId, request: Accept) -> Reply:
            reply = await answer(sender, request)
            world.cut_off(machine)
            return reply

        return accept

    for serve, answer in zip(others, answers, strict=True):
        serve[Accept] = lonely(answer)
    yield
    for serve, answer in zip(others, answers, strict=True):
        serve[Accept] = answer
    world.network.heal()


@simulated()
async def test_a_change_that_a_majority_may_have_accepted_is_of_unknown_outcome(world: World) -> None:
    await world.start()
    machine = world.machines[0]
    with _cut_off_when_accepted(world, machine), pytest.raises(UnknownOutcomeError):
        await create(machine, "t", timeout_s=2.0)
    assert (await create(machine, "t")).unique_id == "id of t"


@simulated()
async def test_a_dropped_table_takes_its_data_along_and_its_name_is_free(world: World) -> None:
    table = await started(world)
    away = world.machines[2]
    await put(world.machines[0], table, b"k", b"old", level=ALL)
    away.crash()
    await drop(world.machines[0], table)
    anew = await create(world.machines[1], "t", by="another")
    assert anew.id != table.id
    assert await get(world.machines[0], anew, b"k") is None
    assert away.engine.get(key_of(table, b"k")) is not None
    away.start()
    await world.up(away)
    await agreed(world)
    await settled(world)
    assert [list(machine.engine.scan(*keys.table_range(table.id))) for machine in world.machines] == [[]] * 3
    await put(away, anew, b"k", b"new", level=ALL)
    assert len(holders(world, anew, b"k")) == 3


@simulated()
async def test_dropping_a_table_spares_the_one_made_anew_under_its_name(world: World) -> None:
    await world.start()
    old = await create(world.machines[0], "t", by="first")
    await drop(world.machines[1], old)
    new = await create(world.machines[2], "t", by="second")
    await drop(world.machines[0], old)
    assert (await agreed(world)).tables == (new,)


@simulated()
async def test_a_request_whose_table_was_dropped_meanwhile_neither_makes_it_again_nor_calls_it_unmade(
    world: World,
) -> None:
    await world.start()
    table = await create(world.machines[0], "t", by="first")
    await drop(world.machines[1], table)
    with pytest.raises(UnknownOutcomeError, match="dropped by another request"):
        await create(world.machines[0], "t", by="first")
    await create(world.machines[2], "t", by="second")
    with pytest.raises(UnknownOutcomeError, match="dropped by another request"):
        await create(world.machines[0], "t", by="first")


@simulated()
async def test_gossip_brings_a_late_node_up_to_date(world: World) -> None:
    await world.start()
    late = world.machines[2]
    world.cut_off(late)
    for number in range(5):
        await create(world.machines[0], f"t{number}")
    await asyncio.sleep(10.0)
    assert current(late).epoch == 1
    world.network.heal()
    await until(lambda: current(late).epoch == 6, timeout_s=10.0)
    await asyncio.sleep(0.1)
    assert load_map(late.engine) == current(late)


@simulated()
async def test_maps_of_a_foreign_cluster_and_broken_maps_are_refused(world: World) -> None:
    await world.start()
    machine = world.machines[0]
    mine = current(machine)
    foreign = msgspec.structs.replace(mine, cluster_id=ClusterId("f" * 16), epoch=9)
    broken = msgspec.structs.replace(mine, epoch=9, owners=())
    for bad, why in ((foreign, "a map of cluster ffffffffffffffff reached"), (broken, "0 owners for 16 partitions")):
        with pytest.raises(CorruptionError, match=why):
            await machine.spawn(member(machine).serve(mine.nodes[1].id, Adopt(bad)))
    with pytest.raises(CorruptionError, match="0 owners"):
        await machine.spawn(member(machine).serve(mine.nodes[1].id, Accept(Ballot(9, 1), broken)))
    assert current(machine) == mine


@simulated()
async def test_an_older_map_changes_nothing(world: World) -> None:
    await world.start()
    founding = current(world.machines[0])
    await create(world.machines[0], "t")
    newest = await agreed(world)
    for machine in world.machines:
        await machine.spawn(member(machine).serve(newest.nodes[0].id, Adopt(founding)))
        assert current(machine) == newest


@simulated()
async def test_a_ballot_is_never_used_again_after_a_crash(world: World) -> None:
    await world.start()
    machine = world.machines[0]
    used: list[Ballot] = []
    for life in range(10):
        creating = asyncio.ensure_future(create(machine, f"t{life}"))
        await asyncio.sleep(world.rng.uniform(0.0, 0.05))
        catalog = member(machine).catalog
        heard = [m._acceptor._state.promised for other in world.machines if (m := other.member)]
        used += [ballot for ballot in heard if ballot.proposer == member(machine).topology.me.number]
        creating.cancel()
        machine.crash()
        machine.start()
        await world.up(machine)
        assert member(machine).catalog._highest_used >= max((ballot.round for ballot in used), default=0)
        assert catalog is not member(machine).catalog


def test_a_proposer_that_crashes_anywhere_leaves_one_map_and_no_reported_change_is_lost() -> None:
    """Clients create and drop while machines crash at random moments and messages are lost."""
    changes = 0

    async def script(world: World) -> None:
        await world.start()
        reported: dict[str, Table] = {}
        dropped: set[str] = set()
        world.network.conditions = Conditions(
            delay_s=(0.0002, world.rng.choice([0.01, 0.2])), loss=world.rng.choice([0.0, 0.1]), duplication=0.1
        )

        async def propose(machine: Machine, number: int) -> None:
            name = f"t{number}"
            reported[name] = await create(machine, name, timeout_s=2.0)
            if number % 3 == 0:
                dropped.add(name)
                await drop(machine, reported[name])

        async def propose_or_fail(machine: Machine, number: int) -> None:
            try:
                await propose(machine, number)
            except MerganserError:
                return

        proposing = []
        for number in range(8):
            machine = world.rng.choice([machine for machine in world.machines if machine.member])
            proposing.append(asyncio.ensure_future(propose_or_fail(machine, number)))
            await asyncio.sleep(world.rng.uniform(0.0, 0.3))
            if world.rng.random() < 0.6:
                world.rng.choice(world.machines).crash()
            if world.rng.random() < 0.2:
                world.rng.choice(world.machines).crash()
            await asyncio.sleep(world.rng.uniform(0.0, 0.3))
            await world.start()
        world.network.heal()
        await asyncio.wait(proposing, timeout=10.0)
        await asyncio.sleep(REOPENED_S[1])  # who has just started is connected by then
        await create(world.machines[0], "last")
        final = await agreed(world)
        lost = {name for name, table in reported.items() if table not in final.tables} - dropped
        assert lost == set()
        nonlocal changes
        changes += len(reported) + len(dropped)

    for seed in range(60):
        play(script, seed=seed)
    assert changes > 200, "too few changes went through for this to mean anything"


@simulated()
async def test_nodes_that_come_back_elsewhere_are_found_by_all(world: World) -> None:
    await world.start()
    for machine in world.machines:
        machine.wire_addresses = {"dynamodb": f"new-{machine.address}"}
        machine.crash()
    await world.start()
    await until(
        lambda: all(
            [node.wire_addresses for node in member(machine).topology.map.nodes]
            == [{"dynamodb": f"new-{node.peer_address}"} for node in member(machine).topology.map.nodes]
            for machine in world.machines
        )
    )


@simulated()
async def test_a_node_that_was_away_looks_for_news(world: World) -> None:
    table = await started(world)
    away = world.machines[2]
    away.crash()
    await drop(world.machines[0], table)
    away.start()
    catalog = (await world.up(away)).catalog
    await away.spawn(catalog.look_for_news())
    assert catalog.tables(table.wire) == []


@simulated()
async def test_a_node_that_reaches_no_majority_goes_on_without_news(world: World) -> None:
    await started(world)
    alone = world.machines[0]
    world.cut_off(alone)
    await alone.spawn(member(alone).catalog.look_for_news())


@simulated()
async def test_a_change_without_a_majority_in_reach_is_refused_at_once(world: World) -> None:
    await world.start()
    for machine in world.machines[1:]:
        machine.crash()
    began_s = now_s()
    with pytest.raises(UnavailableError, match="nothing was changed"):
        await create(world.machines[0], "t", timeout_s=30.0)
    assert now_s() - began_s < 1.0  # virtual seconds


@simulated()
async def test_an_answer_that_comes_while_the_newest_map_is_being_stored_does_no_harm(world: World) -> None:
    await world.start()
    behind, *others = world.machines
    world.cut_off(behind)
    table = await create(others[0], "t")
    world.network.heal()
    world.network.conditions = Conditions(delay_s=(0.15, 0.3))  # slower than the hedge, so that both others are asked
    behind.disk.slow((1.0, 1.0))
    assert await look_up(behind, "t", timeout_s=10.0) == table
