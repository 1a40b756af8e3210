"""The simplest way to make two replicas of a partition equal: compare every row, straight on their disks."""

from __future__ import annotations

import asyncio

from merganser.core import horizon
from merganser.model.cluster import Table
from merganser.model.errors import PeerUnreachableError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.row import Row
from merganser.service.purge_round import Synchronise
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import decode_row, encode_row

TURN_S = (0.0, 0.02)


def compare_in_full(world: World) -> None:
    """Let every machine that is up synchronise this way, until its next life."""
    for machine in world.machines:
        if machine.member is not None:
            machine.member.purger.synchronise = _synchroniser(world, machine)


def _synchroniser(world: World, machine: Machine) -> Synchronise:
    async def synchronise(table: Table, partition: PartitionId, peer: NodeId, /, *, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            other = _reached(world, machine, peer)
            for key in sorted({*_keys(machine, table, partition), *_keys(other, table, partition)}):
                await asyncio.sleep(world.rng.uniform(*TURN_S))
                other = _reached(world, machine, peer)
                _meet(machine, other, table, partition, key)
            await machine.engine.durable()
            await _reached(world, machine, peer).spawn(other.engine.durable())

    return synchronise


def _reached(world: World, machine: Machine, peer: NodeId) -> Machine:
    for other in world.machines:
        if other.member is not None and other.member.topology.node == peer:
            links = ((machine.address, other.address), (other.address, machine.address))
            if not any(world.network.is_cut(*link) for link in links):
                return other
    raise PeerUnreachableError(f"{peer} is away")


def _keys(machine: Machine, table: Table, partition: PartitionId) -> list[bytes]:
    assert machine.member is not None
    first, last = machine.member.topology.ring.token_range(partition)
    return [key for key, _ in machine.engine.scan(*keys.token_range(table.id, first, last))]


def _meet(one: Machine, other: Machine, table: Table, partition: PartitionId, key: bytes) -> None:
    assert one.member is not None
    assert other.member is not None
    mine, theirs = _row(one, key), _row(other, key)
    sides = ((one, one.member.horizons, mine, theirs), (other, other.member.horizons, theirs, mine))
    horizons = {side[0].address: side[1].horizon_us(table.id, partition) for side in sides}
    for machine, standings, held, met in sides:
        wanted = horizon.met(
            held,
            met,
            horizon_us=horizons[machine.address],
            floor_us=standings.floor_us(table.id, partition),
            other_us=horizons[other.address if machine is one else one.address],
        )
        if wanted != held:
            after = None if wanted is None else encode_row(key, wanted)
            assert machine.member is not None
            machine.member.trees.write([(table.id, key, machine.engine.get(key), after)])


def _row(machine: Machine, key: bytes) -> Row | None:
    stored = machine.engine.get(key)
    return None if stored is None else decode_row(key, stored)
