"""What merges, seals or purges leaves leader-based tables alone: only their leaders change what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import PartitionId
from merganser.model.messages import Apply, Complete, Hint, Level, Meet, ReadHint, Request, Seal
from merganser.model.register import Content, Register, Version
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.replica import OTHER_PROTOCOL
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.registers import encode_register
from merganser.storage.values import encode_row
from service.plays import CELL, key_of, member, now_s, replicas_of, simulated, started_with_leaders


def partition_of(machine: Machine, key: bytes) -> PartitionId:
    return member(machine).topology.ring.partition_of(keys.token_in(key))


def requests_that_merge(machine: Machine, table: Table, key: bytes) -> Sequence[Request]:
    topology = member(machine).topology
    epoch, partition = topology.map.epoch, partition_of(machine, key)
    row = encode_row(key, Row((Cell(CELL, Timestamp(EPOCH_US, 9), b"v"),)))
    return (
        Apply(epoch, table.id, key, row),
        Hint(epoch, table.id, key, row, topology.me.number),
        ReadHint(epoch, table.id, key),
        Meet(epoch, table.id, partition, 0, ((key, row),)),
        Seal(epoch, table.id, partition, EPOCH_US),
        Complete(epoch, table.id, partition, EPOCH_US, 0),
        Level(epoch, table.id, partition, EPOCH_US, (), 1000),
    )


@simulated()
async def test_whoever_asks_to_merge_into_a_leader_based_table_is_refused(world: World) -> None:
    table = await started_with_leaders(world)
    key = key_of(table, b"k")
    replica, other, _ = replicas_of(world, table, b"k")
    for request in requests_that_merge(replica, table, key):
        with pytest.raises(RefusedError) as refusal:
            await replica.spawn(member(replica).serve(member(other).topology.node, request))
        assert refusal.value.code == OTHER_PROTOCOL
    assert replica.engine.get(key) is None


@simulated()
async def test_no_round_seals_or_purges_a_leader_based_table(world: World) -> None:
    for machine in world.machines:
        machine.purge_interval_s, machine.purge_margin_us = 5.0, 1_000_000
    table = await started_with_leaders(world)
    await asyncio.sleep(60.0)
    for machine in world.machines:
        places = [(t.id, p) for t, p in member(machine).topology.held()]
        standings = {place: member(machine).horizons.known(*place) for place in places}
        assert {standings[place] for place in places if place[0] == table.id} == {None}
        assert all(standing is not None for place, standing in standings.items() if place[0] != table.id)


@simulated()
async def test_a_register_passes_the_scrub_and_a_damaged_one_does_not(world: World) -> None:
    table = await started_with_leaders(world)
    machine, *_ = replicas_of(world, table, b"k")
    key = key_of(table, b"k")
    partition = partition_of(machine, key)
    stored = encode_register(key, Register(Version(1, 1, 1), Content(b"v")))
    scrubber = member(machine).scrubber
    member(machine).trees.write([(table.id, key, None, stored)])
    assert (await machine.spawn(scrubber.scrub(table, partition))).damaged == 0
    machine.engine.commit(Batch().put(key, stored[:-1] + b"?"))
    assert (await machine.spawn(scrubber.scrub(table, partition))).damaged == 1


@simulated()
async def test_a_node_holds_the_places_that_its_map_gives_it(world: World) -> None:
    table = await started_with_leaders(world)
    topology = member(world.machines[0]).topology
    before = topology.held()
    assert [partition for held, partition in before if held.id == table.id] == list(range(topology.ring.partitions))
    await world.machines[0].spawn(member(world.machines[0]).catalog.drop_table(table, deadline=now_s() + 60.0))
    assert [place for place in before if place[0].id != table.id] == list(topology.held())
