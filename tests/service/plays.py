"""What the tests of the services do with a simulated cluster, in their words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from merganser.core import rows
from merganser.core.token import token_of
from merganser.model.cluster import KEY_VALUE_WIRE, Conflicts, Table
from merganser.model.consistency import Consistency, ReadLevel, WriteLevel
from merganser.model.ids import NodeId
from merganser.model.messages import Reply
from merganser.model.row import CellWrite, Mutation, Row
from merganser.model.timestamp import Timestamp
from merganser.service.member import CLOCK_SKEW_MAX_S, Member
from merganser.service.range_merge import RangePage
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import decode_row, encode_row

ONE, QUORUM, ALL = Consistency.ONE, Consistency.QUORUM, Consistency.ALL
CELL = b"value"
TIMEOUT_S = 2.0
ANY_CLOCK_S = 1e6
"""As the bound on skew: nodes mint whatever their clocks show."""

Script = Callable[[World], Coroutine[Any, Any, None]]


def play(script: Script, *, seed: int = 1, machines: int = 3, partitions: int = 16, data_centers: int = 0) -> World:
    """Run ``script`` on a fresh cluster; nothing may fail behind its back."""
    world = World(seed, machines=machines, partitions=partitions, data_centers=data_centers)
    world.run(script)
    assert world.errors() == []
    return world


def simulated(
    *, seed: int = 1, machines: int = 3, partitions: int = 16, data_centers: int = 0
) -> Callable[[Script], Callable[[], None]]:
    """Make a test of a script that is given a cluster."""

    def decorate(script: Script) -> Callable[[], None]:
        def test() -> None:
            play(script, seed=seed, machines=machines, partitions=partitions, data_centers=data_centers)

        test.__name__, test.__doc__ = script.__name__, script.__doc__
        return test

    return decorate


async def started(world: World, *, n: int = 3, clock_skew_max_s: float = CLOCK_SKEW_MAX_S) -> Table:
    """Start every machine; return a table that all of them know."""
    for machine in world.machines:
        machine.clock_skew_max_s = clock_skew_max_s
    await world.start()
    table = await world.table(n=n)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    return table


async def started_with_leaders(world: World, *, n: int = 3, name: str = "led") -> Table:
    """Start every machine and make a leader-based table."""
    await started(world)
    return await made_with_leaders(world, n=n, name=name)


async def made_with_leaders(world: World, *, n: int = 3, name: str = "led") -> Table:
    """Return a new leader-based table that all machines know."""
    catalog = member(world.machines[0]).catalog
    work = catalog.create_table(
        wire="sim", name=name, n=n, definition=b"", unique_id=name, deadline=now_s() + 60.0, replication="leader"
    )
    table = await world.machines[0].spawn(work)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    return table


async def started_with_values(world: World, conflicts: Conflicts = "siblings") -> Table:
    """Start every machine; return a table of values that all of them know."""
    await started(world)
    table = await world.table("values", conflicts=conflicts, wire=KEY_VALUE_WIRE)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    return table


async def until(is_so: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
    """Return once ``is_so()``."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110  # any condition, on virtual time
            await asyncio.sleep(0.001)


def member(machine: Machine) -> Member:
    """Return the member that runs on ``machine``."""
    assert machine.member is not None, f"{machine.address} is not up"
    return machine.member


def serve_instead(machine: Machine, kind: type, serve: Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]) -> None:
    """Have ``machine`` answer requests of one kind with ``serve``."""
    member(machine)._beginners.pop(kind, None)
    member(machine)._serve[kind] = serve


def key_of(table: Table, name: bytes) -> bytes:
    """Return the key of the row of partition key ``name``."""
    return keys.row_key(table.id, token_of(name), name)


def machine_of(world: World, node: NodeId) -> Machine:
    """Return the machine that ``node`` runs on."""
    return next(machine for machine in world.machines if member(machine).topology.node == node)


def replicas_of(world: World, table: Table, name: bytes) -> list[Machine]:
    """Return the machines that keep ``name``, in the order of its preference list."""
    nodes = member(world.machines[0]).topology.replicas(table, key_of(table, name))
    return [machine_of(world, node) for node in nodes]


async def put(
    machine: Machine,
    table: Table,
    name: bytes,
    value: bytes | None,
    *,
    level: WriteLevel = QUORUM,
    expires_at_s: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Timestamp:
    """Write through ``machine``; None deletes the row."""
    mutation = Mutation(deletes_row=True) if value is None else Mutation((CellWrite(CELL, value, expires_at_s),))
    return await machine.spawn(
        member(machine).coordinator.write(
            table, key_of(table, name), mutation, level=level, deadline=now_s() + timeout_s
        )
    )


async def read(
    machine: Machine,
    table: Table,
    name: bytes,
    *,
    level: ReadLevel = QUORUM,
    timeout_s: float = TIMEOUT_S,
) -> Row | None:
    """Read through ``machine``."""
    return await machine.spawn(
        member(machine).coordinator.read(table, key_of(table, name), level=level, deadline=now_s() + timeout_s)
    )


async def get(machine: Machine, table: Table, name: bytes, *, level: ReadLevel = QUORUM) -> bytes | None:
    """Return the value that a client of ``machine`` sees."""
    row = await read(machine, table, name, level=level)
    return None if row is None else rows.live_value(row, CELL, member(machine).coordinator.wall_us() // 1_000_000)


async def page(
    machine: Machine,
    table: Table,
    start: bytes,
    end: bytes,
    *,
    reverse: bool = False,
    rows_max: int = 1000,
    bytes_max: int = 1_000_000,
    level: ReadLevel = QUORUM,
    timeout_s: float = TIMEOUT_S,
) -> RangePage:
    """Return one page of a range, read through ``machine``."""
    return await machine.spawn(
        member(machine).coordinator.read_range(
            table,
            start,
            end,
            reverse=reverse,
            level=level,
            rows_max=rows_max,
            bytes_max=bytes_max,
            deadline=now_s() + timeout_s,
        )
    )


def now_s() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def held(machine: Machine, table: Table, name: bytes) -> Row | None:
    """Return what ``machine`` itself keeps of ``name``."""
    key = key_of(table, name)
    stored = machine.engine.get(key)
    return None if stored is None else decode_row(key, stored)


def holders(world: World, table: Table, name: bytes) -> list[str]:
    """Return the addresses of the machines that keep anything of ``name``."""
    return [machine.address for machine in world.machines if machine.engine.get(key_of(table, name)) is not None]


def plant(machine: Machine, table: Table, name: bytes, row: Row) -> None:
    """Store ``row`` on ``machine`` alone, as a write that reached no other replica."""
    key = key_of(table, name)
    member(machine).trees.write([(table.id, key, machine.engine.get(key), encode_row(key, row))])


def damage(machine: Machine, table: Table, name: bytes) -> bytes:
    """Flip a bit of what ``machine`` keeps of ``name``; return the damaged bytes."""
    key = key_of(table, name)
    stored = machine.engine.get(key)
    assert stored is not None
    damaged = stored[:-1] + bytes((stored[-1] ^ 1,))
    machine.engine.commit(Batch().put(key, damaged))
    return damaged


async def settled(world: World) -> None:
    """Return when no write, no hint to a keeper and no repair is on its way any more."""
    for machine in world.machines:
        if machine.member is not None:
            await machine.spawn(machine.member.coordinator.hinting.idle())
            await machine.spawn(machine.member.coordinator.repairs.idle())
    await asyncio.sleep(0.1)
