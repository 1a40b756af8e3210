"""What the tests of purges do to a cluster, and how they wait."""

from __future__ import annotations

import asyncio

from merganser.core import horizon
from merganser.model.cluster import Table
from merganser.model.ids import PartitionId
from merganser.model.messages import Apply, Reply, Request
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.purger import MARGIN_US, Rounded
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import encode_row
from service.plays import ALL, CELL, holders, key_of, member, now_s, put, until

PAST_MARGIN_S = MARGIN_US / 1e6 + 1


def partition_of(machine: Machine, table: Table, name: bytes) -> PartitionId:
    return member(machine).topology.ring.partition_of(keys.token_in(key_of(table, name)))


async def purge_round(machine: Machine, table: Table, name: bytes, *, timeout_s: float = 30.0) -> Rounded:
    """Let ``machine`` lead a round for the partition of ``name``."""
    return await machine.spawn(
        member(machine).purger.round(table, partition_of(machine, table, name), deadline=now_s() + timeout_s)
    )


async def purged(world: World) -> None:
    """Return when every machine that is up has purged up to its horizons."""
    await until(lambda: not any(m.member.horizons.unpurged() for m in world.machines if m.member is not None))


async def past_the_margin() -> None:
    await asyncio.sleep(PAST_MARGIN_S)


async def up_again(world: World) -> None:
    """Start what is down; return when everyone reaches everyone."""
    await world.start()
    nodes = [member(machine).topology.node for machine in world.machines]
    await until(
        lambda: all(
            member(machine).transport.is_reachable(node)
            for machine in world.machines
            for node in nodes
            if node != member(machine).topology.node
        )
    )


async def bury(world: World, table: Table, name: bytes, *, by: Machine | None = None) -> None:
    """Write and delete ``name``, and have it purged everywhere."""
    machine = by or world.machines[0]
    await put(machine, table, name, b"v", level=ALL)
    await put(machine, table, name, None, level=ALL)
    await past_the_margin()
    assert (await purge_round(machine, table, name)).problem is None
    await purged(world)
    assert holders(world, table, name) == []


async def ask(machine: Machine, request: Request) -> Reply:
    peer = member(machine).topology.map.nodes[0].id
    return await machine.spawn(member(machine).serve(peer, request))


def epoch(machine: Machine) -> int:
    return member(machine).topology.map.epoch


def standing(machine: Machine, table: Table, name: bytes) -> horizon.Standing:
    return member(machine).horizons.of(table.id, partition_of(machine, table, name))


def old_value(machine: Machine, *, seconds_ago: float) -> Row:
    return Row((Cell(CELL, Timestamp(machine.wall_us() - int(seconds_ago * 1e6), 1), b"v"),))


def repair(table: Table, name: bytes, row: Row, *, vouched_us: int = 0) -> Apply:
    key = key_of(table, name)
    return Apply(0, table.id, key, encode_row(key, row), vouched_us)
