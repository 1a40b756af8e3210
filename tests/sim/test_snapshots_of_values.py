"""Siblings, and values that merge themselves, come back from a snapshot as they were, and go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from merganser.core import snapshots
from merganser.core.crdt.types import RESET
from merganser.model import crdt
from merganser.model.cluster import KEY_VALUE_WIRE, ClusterMap, Conflicts, Table, conflicts_of
from merganser.model.consistency import Consistency
from merganser.model.crdt import Operation, OperationId, Shown
from merganser.model.ids import NodeId, PartitionId
from merganser.model.snapshot import WantedTable
from merganser.service.copies import Copies, Counted
from merganser.service.key_values import Values
from merganser.service.topology import load_map
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import QUORUM, TIMEOUT_S, key_of, member, now_s, until
from sim.snapshot_hunt import Image, moved

PARTITIONS = 4
KINDS: dict[str, Conflicts] = {"notes": "siblings", "pages": "crdt", "last": "lww"}


class Taken(NamedTuple):
    """A snapshot."""

    map: ClusterMap
    images: dict[NodeId, Image]
    tables: dict[str, Table]


async def get(machine: Machine, table: Table, name: bytes) -> Values:
    work = member(machine).key_values.get(table, key_of(table, name), level=QUORUM, deadline=now_s() + TIMEOUT_S)
    return await machine.spawn(work)


async def values(machine: Machine, table: Table, name: bytes) -> list[bytes]:
    return sorted(sibling.value for sibling in (await get(machine, table, name)).siblings)


async def put(machine: Machine, table: Table, name: bytes, value: bytes | None, context: bytes = b"") -> bytes:
    services, key, deadline = member(machine).key_values, key_of(table, name), now_s() + TIMEOUT_S
    if value is None:
        return await machine.spawn(services.delete(table, key, context=context, level=QUORUM, deadline=deadline))
    return await machine.spawn(services.put(table, key, value, context=context, level=QUORUM, deadline=deadline))


async def update(
    machine: Machine, table: Table, name: bytes, *operations: Operation, under: OperationId | None = None
) -> bool:
    work = member(machine).crdt_values.update(
        table,
        key_of(table, name),
        operations,
        update=under,
        level=Consistency.QUORUM,
        read_level=Consistency.QUORUM,
        deadline=now_s() + TIMEOUT_S,
    )
    return await machine.spawn(work)


async def shown(machine: Machine, table: Table, name: bytes) -> list[Shown]:
    work = member(machine).crdt_values.get(table, key_of(table, name), level=QUORUM, deadline=now_s() + TIMEOUT_S)
    return (await machine.spawn(work)).values


def count(amount: int) -> Operation:
    return Operation(crdt.COUNTER, "increment", amount)


def item(action: str, element: bytes) -> Operation:
    return Operation(crdt.SET, action, element)


async def written(world: World) -> Taken:
    """Write, with a replica away for some of it, and take what the nodes hold."""
    await world.start()
    tables = {name: await world.table(name, conflicts=kind, wire=KEY_VALUE_WIRE) for name, kind in KINDS.items()}
    await until(lambda: all(len(member(machine).topology.map.tables) >= 3 for machine in world.machines))
    one, other, away = world.machines
    notes, pages, last = tables["notes"], tables["pages"], tables["last"]
    context = await put(one, notes, b"deleted", b"x")
    await put(one, notes, b"siblings", b"a")
    session = await one.spawn(member(one).crdt_values.open_session(pages, b"", deadline=now_s() + TIMEOUT_S))
    await update(one, pages, b"hits", count(5), under=OperationId(session, 1))
    await update(other, pages, b"hits", count(2))
    await update(one, pages, b"cart", item("add", b"milk"), item("add", b"bread"))
    await update(one, pages, b"reset", count(7))
    await put(one, last, b"k", b"first")
    world.cut_off(away)
    await put(one, notes, b"siblings", b"b")
    await put(one, notes, b"deleted", None, context)
    await update(other, pages, b"hits", count(10), under=OperationId(session, 2))
    await update(one, pages, b"cart", item("remove", b"milk"))
    await update(one, pages, b"reset", Operation(crdt.ANY, RESET))
    await update(one, pages, b"most", Operation(crdt.MAXIMUM, "raise", 9))
    await put(other, last, b"k", b"second")
    for machine in world.machines:
        await machine.spawn(machine.engine.durable())
    images = {machine.node: Image(machine.image()) for machine in world.machines}
    current = snapshots.newest([found for image in images.values() if (found := load_map(image)) is not None])
    return Taken(current, images, tables)


async def restored(world: World, taken: Taken) -> dict[str, Table]:
    """Restore it into another cluster, as the command does."""
    await world.start()
    services = member(world.machines[0]).restored_rows
    before = list(taken.tables.values())
    wanted = [
        WantedTable(
            table.wire,
            table.name,
            snapshots.hidden_name("0" * 64, table.name),
            3,
            "leaderless",
            b"",
            conflicts=conflicts,
        )
        for table in before
        for conflicts in [conflicts_of(table.conflicts)]
    ]
    made = await services.make(wanted, [f"u{number}" for number in range(len(wanted))], deadline=now_s() + 20)
    copies = Copies(taken.map, taken.images, now_s=0)
    for old, new in zip(before, made, strict=True):
        for partition in range(PARTITIONS):
            chunk = list(moved(copies.of(old, PartitionId(partition), Counted()), new.id))
            await services.put(new.id, chunk, deadline=now_s() + 20)
    names = {new.id: old.name for old, new in zip(before, made, strict=True)}
    await services.reveal(names, deadline=now_s() + 20)
    await until(lambda: all(len(member(machine).catalog.tables(KEY_VALUE_WIRE)) == 3 for machine in world.machines))
    return {table.name: table for table in member(world.machines[0]).catalog.tables(KEY_VALUE_WIRE)}


def taken_and_restored() -> tuple[World, Taken]:
    taken: list[Taken] = []

    async def write(world: World) -> None:
        taken.append(await written(world))

    source = World(1, machines=3, partitions=PARTITIONS)
    source.run(write)
    assert source.errors() == []
    return World(2, machines=4, partitions=8), taken[0]


def test_values_come_back_and_go_on_from_there() -> None:
    target, taken = taken_and_restored()

    async def play(world: World) -> None:
        tables = await restored(world, taken)
        notes, pages, last = tables["notes"], tables["pages"], tables["last"]
        assert {name: table.conflicts for name, table in tables.items()} == KINDS
        any_node = world.machines[3]
        assert await values(any_node, notes, b"siblings") == [b"a", b"b"]
        assert await values(any_node, notes, b"deleted") == []
        assert await values(any_node, last, b"k") == [b"second"]
        await read_as_it_was(any_node, pages)

        context = (await get(any_node, notes, b"siblings")).context
        await put(any_node, notes, b"siblings", b"c", context)
        assert await values(any_node, notes, b"siblings") == [b"c"], "a put there replaces what it has seen"
        await put(any_node, last, b"k", b"third")
        assert await values(any_node, last, b"k") == [b"third"], "and is later than what was restored"
        for machine in world.machines:  # nodes of the numbers that those have had whose dots were restored
            await update(machine, pages, b"hits", count(100))
            await update(machine, pages, b"reset", count(1))
        assert await shown(any_node, pages, b"hits") == [Shown(crdt.COUNTER, 417)]
        assert await shown(any_node, pages, b"reset") == [Shown(crdt.COUNTER, 4)]
        await update(any_node, pages, b"cart", item("remove", b"bread"))
        assert await shown(any_node, pages, b"cart") == []

    target.run(play)
    assert target.errors() == []


async def read_as_it_was(machine: Machine, pages: Table) -> None:
    expected: Sequence[tuple[bytes, list[Shown]]] = (
        (b"hits", [Shown(crdt.COUNTER, 17)]),
        (b"cart", [Shown(crdt.SET, (b"bread",))]),
        (b"reset", []),
        (b"most", [Shown(crdt.MAXIMUM, 9)]),
    )
    for name, there in expected:
        assert await shown(machine, pages, name) == there, name
