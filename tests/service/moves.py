"""Partitions that a test has change hands."""

from __future__ import annotations

import msgspec

from merganser.core import reshaping
from merganser.model.cluster import ClusterMap, Move, Pending, Table
from merganser.model.ids import PartitionId
from merganser.service.catalog import Change
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import key_of, member, until

TIMEOUT_S = 5.0


async def changed(world: World, machine: Machine, change: Change) -> ClusterMap:
    catalog = member(machine).catalog
    deadline = world.loop.time() + TIMEOUT_S
    return await machine.spawn(catalog.change(change, deadline=deadline))


async def moving(world: World, table: Table, partition: PartitionId, to: Machine | None = None) -> Machine:
    """Begin to give a partition to a machine that does not hold it, or to ``to``; returns that."""
    current = member(world.machines[0]).topology.map
    ring = member(world.machines[0]).topology.ring
    newcomer = to or next(machine for machine in world.machines if not ring.holds(machine.node, partition, table.n))
    number = member(newcomer).topology.me.number
    owners = tuple(number if p == partition else owner for p, owner in enumerate(current.owners))
    plan = reshaping.planned(current, "rebalance", operation_id="op", now_us=EPOCH_US)
    operation = msgspec.structs.replace(plan.operation, owners=owners)

    def pending(newest: ClusterMap) -> ClusterMap:
        begun = reshaping.begun(newest, operation, {})
        return reshaping.with_pending(begun, Pending((Move(partition, number),)))

    newer = await changed(world, world.machines[0], pending)
    await until(lambda: all(member(machine).topology.map.placed >= newer.placed for machine in world.machines))
    return newcomer


def name_in(world: World, table: Table, partition: PartitionId) -> bytes:
    ring = member(world.machines[0]).topology.ring
    names = (b"%d" % number for number in range(10_000))
    return next(name for name in names if ring.partition_of(keys.token_in(key_of(table, name))) == partition)
