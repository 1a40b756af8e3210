"""Indexes that are added to a table with items, and dropped, while it is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from merganser.core import cluster_map
from merganser.model.cluster import Table
from merganser.model.errors import RefusedError, TableChangedError
from merganser.model.index import IndexRequest
from merganser.model.leader_messages import Campaign, Promised
from merganser.sim import indexes
from merganser.sim.indexes import value_of
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import group_of
from service.plays import member, now_s, simulated, until
from service.test_indexer import begun, put, settled, shown

TIMEOUT_S = 5.0
ITEMS = 40
RED = value_of(b"red", b"round", b"0")


async def filled(world: World) -> Table:
    table = await begun(world, names=[])
    for number in range(ITEMS):
        await put(world.machines[number % 3], table, b"%d" % number, value_of(b"red", b"", b"%d" % number))
    return table


async def add(machine: Machine, table: Table, name: str) -> Table:
    work = member(machine).catalog.add_index(
        table, IndexRequest(name), unique_id=f"of {name}", deadline=now_s() + TIMEOUT_S
    )
    return await machine.spawn(work)


def known_to(machine: Machine, table: Table) -> Table:
    known = member(machine).topology.table(table.id)
    assert known is not None
    return known


def all_know(world: World, table: Table, is_so: Callable[[Table], bool]) -> bool:
    return all(is_so(known_to(machine, table)) for machine in world.machines)


def is_active(table: Table) -> bool:
    return bool(table.indexes) and all(index.state == "active" for index in table.indexes)


@simulated()
async def test_index_holds_what_was_there_before_it_and_what_came_meanwhile(world: World) -> None:
    table = await filled(world)
    table = await add(world.machines[0], table, indexes.BY_COLOR)
    assert [index.state for index in table.indexes] == ["creating"]
    await put(world.machines[1], table, b"0", value_of(b"blue", b"", b"moved"))
    await put(world.machines[2], table, b"1", None)
    await put(world.machines[0], table, b"new", value_of(b"blue", b"", b"new"))
    await until(lambda: all_know(world, table, is_active))
    table = known_to(world.machines[0], table)
    reds = {("red", value_of(b"red", b"", b"%d" % number)) for number in range(2, ITEMS)}
    blues = {("blue", value_of(b"blue", b"", name)) for name in (b"moved", b"new")}
    assert await settled(world, table) == reds | blues


@simulated()
async def test_index_is_filled_though_the_node_that_sees_to_it_dies(world: World) -> None:
    table = await filled(world)
    sees_to_it = min(world.machines, key=lambda machine: member(machine).topology.me.number)
    table = await add(world.machines[0], table, indexes.BY_COLOR)
    left = [machine for machine in world.machines if machine is not sees_to_it]
    await until(lambda: all(known_to(machine, table).indexes for machine in left))
    sees_to_it.crash()
    await until(lambda: all(is_active(known_to(machine, table)) for machine in left))
    table = known_to(left[0], table)
    await until(lambda: len(shown(world, table)) == ITEMS)


@simulated()
async def test_index_and_definition_asked_for_at_the_same_time_come_one_after_the_other(world: World) -> None:
    table = await begun(world, names=[])
    index, deadline = IndexRequest(indexes.BY_COLOR), now_s() + TIMEOUT_S
    adding = member(world.machines[0]).catalog.add_index(
        table, index, unique_id="index", definition=b"with the index", deadline=deadline
    )
    others = [
        member(machine).catalog.redefine_table(table, machine.address.encode(), deadline=deadline)
        for machine in world.machines[1:]
    ]
    attempts = await asyncio.gather(
        *(machine.spawn(work) for machine, work in zip(world.machines, (adding, *others), strict=True)),
        return_exceptions=True,
    )
    (won,) = (attempt for attempt in attempts if isinstance(attempt, Table))
    assert sum(isinstance(attempt, TableChangedError) for attempt in attempts) == 2
    assert bool(won.indexes) == (won.definition == b"with the index")


@simulated()
async def test_dropped_index_leaves_no_entries_and_no_outboxes(world: World) -> None:
    table = await filled(world)
    table = await add(world.machines[0], table, indexes.BY_COLOR)
    await until(lambda: all_know(world, table, is_active))
    table = known_to(world.machines[0], table)
    entries = table.indexes[0].table
    work = member(world.machines[0]).catalog.drop_index(table, indexes.BY_COLOR, deadline=now_s() + TIMEOUT_S)
    table = await world.machines[0].spawn(work)
    assert [index.state for index in table.indexes] == ["deleting"]
    await put(world.machines[0], table, b"0", RED)
    await until(lambda: all_know(world, table, lambda known: not known.indexes))
    assert not any(list(machine.engine.scan(*keys.table_range(entries))) for machine in world.machines)
    assert await settled(world, table) == set()
    table = known_to(world.machines[0], table)
    table = await add(world.machines[0], table, indexes.BY_COLOR)  # as a new one, under the old name
    await until(lambda: all_know(world, table, is_active))
    table = known_to(world.machines[0], table)
    assert len(await settled(world, table)) == ITEMS


@simulated()
async def test_replica_that_knows_of_an_index_promises_nothing_to_who_may_not_know_of_it(world: World) -> None:
    table = await begun(world, names=[])
    candidate, voter = world.machines[:2]
    before = member(voter).topology.map
    index = IndexRequest(indexes.BY_COLOR)
    newer = cluster_map.with_index(
        before, before=table, index=index, unique_id="known to one", definition=table.definition
    )
    await voter.spawn(member(voter).topology.learn(newer))
    bids = ((group_of(candidate, table, b"a").partition, 1_000),)
    bid = Campaign(before.epoch, table.n, bids, is_poll=True, is_handover=True)
    with pytest.raises(RefusedError, match="lacks an index"):
        await voter.spawn(member(voter).serve(candidate.node, bid))
    of_newer = msgspec.structs.replace(bid, map_epoch=newer.epoch)
    answer = await voter.spawn(member(voter).serve(candidate.node, of_newer))
    assert isinstance(answer, Promised)
