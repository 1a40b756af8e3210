"""A write that was sent by the placement before, and is long on its way: it is refused, or it is not lost.

It comes once the newcomer has met everybody, and goes to one who leaves and to one who stays: both, of three, were a
quorum by the placement it was sent by. The next quorum is of the two others. Nobody brings the write to those in time,
as the one who has it and stays is cut off. Seeds alone hardly ever find such an order of events.
"""

from __future__ import annotations

import msgspec
import pytest

from merganser.core import reshaping
from merganser.core.rows import stamp
from merganser.model.cluster import ClusterMap, Move, Pending, Table
from merganser.model.errors import RefusedError
from merganser.model.ids import PartitionId
from merganser.model.messages import Apply
from merganser.model.row import CellWrite, Mutation
from merganser.model.timestamp import Timestamp
from merganser.service.replica import NOT_A_REPLICA
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import encode_row
from service.plays import CELL, get, key_of, machine_of, member, now_s, play, put, started, until

MACHINES = 7
LATE = b"late"


class Cast:
    """Who is who while a partition moves from one machine to another."""

    def __init__(self, world: World, table: Table) -> None:
        driver = world.machines[0]
        topology = member(driver).topology
        for partition in map(PartitionId, range(topology.ring.partitions)):
            listed = [machine_of(world, node) for node in topology.ring.preference_list(partition, table.n)]
            others = [machine for machine in world.machines[1:] if machine not in listed]
            if driver not in listed:
                self.partition = partition
                self.driver = driver
                self.leaves, self.stays, self.cut_off = listed
                self.newcomer, self.coordinator = others[:2]
                break
        names = (b"%d" % number for number in range(10_000))
        ring = topology.ring
        self.name = next(n for n in names if ring.partition_of(keys.token_in(key_of(table, n))) == self.partition)

    def owners(self, current: ClusterMap) -> tuple[int, ...]:
        number = member(self.newcomer).topology.me.number
        return tuple(number if at == self.partition else owner for at, owner in enumerate(current.owners))


async def pending(world: World, cast: Cast) -> None:
    """Begin to give the partition to the newcomer."""
    current = member(cast.driver).topology.map
    plan = reshaping.planned(current, "rebalance", operation_id="op", now_us=EPOCH_US)
    operation = msgspec.structs.replace(plan.operation, owners=cast.owners(current))
    move = Pending((Move(cast.partition, member(cast.newcomer).topology.me.number),))

    def changed(newest: ClusterMap) -> ClusterMap:
        return reshaping.with_pending(reshaping.begun(newest, operation, {}), move)

    await cast.driver.spawn(member(cast.driver).catalog.change(changed, deadline=now_s() + 5.0))
    await until(lambda: all(member(machine).topology.map.pending for machine in world.machines))


async def takes(machine: Machine, request: Apply) -> bool:
    """Tell whether a machine takes a write, and does not know of a newer placement."""
    try:
        await machine.spawn(member(machine).serve(machine.node, request))
    except RefusedError as refusal:
        return refusal.code != NOT_A_REPLICA
    return True


async def late_write(world: World) -> tuple[int, bytes | None]:
    """Return how many of the replicas by the old placement took the write, and what is read right after the flip."""
    table = await started(world)
    cast = Cast(world, table)
    key = key_of(table, cast.name)
    await put(cast.coordinator, table, cast.name, b"before")
    by_epoch = member(cast.coordinator).topology.map.epoch
    world.network.cut(cast.newcomer.address, cast.driver.address)  # it is ready, and cannot say so
    await pending(world, cast)
    place = (table.id, cast.partition)
    ready = (cast.newcomer, cast.stays, cast.cut_off)
    await until(lambda: all(place in member(machine).moving._done for machine in ready))
    row = encode_row(key, stamp(Mutation((CellWrite(CELL, LATE),)), Timestamp(EPOCH_US + 60_000_000, 1)))
    request = Apply(by_epoch, table.id, key, row)
    taken = [await takes(machine, request) for machine in (cast.leaves, cast.cut_off)]
    for other in (cast.newcomer, cast.stays, cast.coordinator):
        world.network.cut(other.address, cast.cut_off.address)
        world.network.cut(cast.cut_off.address, other.address)
    world.network.mend(cast.newcomer.address, cast.driver.address)
    nodes = (cast.newcomer.node, cast.stays.node, cast.cut_off.node)

    def is_flipped() -> bool:
        topologies = [member(machine).topology for machine in world.machines]
        return all(set(topology.replicas(table, key)) == set(nodes) for topology in topologies)

    await until(is_flipped)
    found = await get(cast.coordinator, table, cast.name)
    world.network.heal()
    return sum(taken), found


def played() -> tuple[int, bytes | None]:
    found: list[tuple[int, bytes | None]] = []

    async def script(world: World) -> None:
        found.append(await late_write(world))

    play(script, machines=MACHINES, partitions=8)
    return found[0]


def test_a_write_that_is_long_on_its_way_is_refused_by_those_who_know_the_next_placement() -> None:
    assert played() == (0, b"before")


def test_without_that_check_a_write_that_two_of_three_took_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merganser.service.replica.check_placed", lambda _topology, _map_epoch: None)
    assert played() == (2, b"before")
