"""Replicas that compare what they hold become equal, without any read."""

from __future__ import annotations

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import PartitionId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.anti_entropy import Comparison
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage.values import encode_row
from service.plays import CELL, held, holders, key_of, member, now_s, simulated, started


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


def row_of(value: bytes, *, micros: int = EPOCH_US, writer: int = 1) -> Row:
    return Row((Cell(CELL, Timestamp(micros, writer), value),))


def keep(machine: Machine, table: Table, name: bytes, row: Row | None) -> None:
    """Let ``machine`` alone hold ``row``, or nothing, as if what else there was had been lost on its way."""
    key = key_of(table, name)
    encoded = None if row is None else encode_row(key, row)
    member(machine).trees.write([(table.id, key, machine.engine.get(key), encoded)])


@simulated()
async def test_what_one_replica_alone_holds_is_on_both_after_a_comparison(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    keep(one, table, b"k", row_of(b"v"))
    compared = await compare(one, other, table, b"k")
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 1, 0, 1)
    assert holders(world, table, b"k") == [one.address, other.address]
    assert held(other, table, b"k") == row_of(b"v")
    compared = await compare(third, other, table, b"k")
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 1, 1, 0)
    assert await compare(one, third, table, b"k") == Comparison(0, 0, 0, 0, 0, (), 8, 12, None)
