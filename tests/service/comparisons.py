"""What the tests of anti-entropy do to replicas and look at."""

from __future__ import annotations

from itertools import islice

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import NodeId, PartitionId
from merganser.model.messages import Meet, Reply, Request
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.anti_entropy import Comparison
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.plays import CELL, key_of, member, now_s


def partition_of(machine: Machine, table: Table, name: bytes) -> PartitionId:
    return member(machine).topology.ring.partition_of(token_of(name))


async def compare(
    machine: Machine, other: Machine, table: Table, name: bytes, *, timeout_s: float = 60.0, is_dry_run: bool = False
) -> Comparison:
    """Let ``machine`` compare the partition of ``name`` with ``other``."""
    return await machine.spawn(
        member(machine).anti_entropy.compare(
            table,
            partition_of(machine, table, name),
            member(other).topology.node,
            deadline=now_s() + timeout_s,
            is_dry_run=is_dry_run,
        )
    )


async def synchronise(machine: Machine, other: Machine, table: Table, name: bytes, *, timeout_s: float = 60.0) -> None:
    await machine.spawn(
        member(machine).anti_entropy.synchronise(
            table, partition_of(machine, table, name), member(other).topology.node, deadline=now_s() + timeout_s
        )
    )


def row_of(value: bytes | None, *, seconds_ago: float = 0.0, writer: int = 1) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US - int(seconds_ago * 1e6), writer), value),))


def lose(machine: Machine, table: Table, name: bytes) -> None:
    """Let ``machine`` hold nothing, as if what there was had never come."""
    key = key_of(table, name)
    member(machine).trees.write([(table.id, key, machine.engine.get(key), None)])


def in_one_partition(machine: Machine, table: Table, count: int) -> list[bytes]:
    """Return names of ``count`` rows of one partition."""
    wanted = partition_of(machine, table, b"0")
    names = (b"%d" % number for number in range(100_000))
    return list(islice((name for name in names if partition_of(machine, table, name) == wanted), count))


def rows_met(machine: Machine) -> list[Meet]:
    """Return the list in which every request to meet that comes to ``machine`` is noted."""
    seen: list[Meet] = []
    serve = member(machine)._serve
    answer = serve[Meet]

    async def noted(sender: NodeId, request: Meet) -> Reply:
        seen.append(request)
        return await answer(sender, request)

    serve[Meet] = noted
    return seen


async def reach_horizon(machine: Machine, table: Table, name: bytes, horizon_us: int) -> None:
    horizons, place = member(machine).horizons, (table.id, partition_of(machine, table, name))
    await machine.spawn(horizons.seal(*place, horizon_us))
    await machine.spawn(horizons.complete(*place, horizon_us, vow=horizons.vow(*place)))


async def ask(machine: Machine, request: Request) -> Reply:
    return await machine.spawn(member(machine).serve(member(machine).topology.node, request))


def same_bytes(world: World, table: Table, names: list[bytes]) -> bool:
    return all(len({machine.engine.get(key_of(table, name)) for machine in world.machines}) == 1 for name in names)
