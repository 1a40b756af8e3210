"""Hedged reads: one more replica is asked once a read takes longer than the slowest of its replicas usually does."""

from __future__ import annotations

import pytest

from merganser.core.latency import SAMPLES_MIN
from merganser.model.cluster import Table
from merganser.service.hinting import LATENCY_SAMPLE
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import ALL, get, key_of, member, now_s, put, simulated, started

SILENT_S = 0.1


async def warmed_up(world: World) -> tuple[Table, Machine]:
    """Return a table with ``k`` everywhere, and a machine that knows how long its peers take."""
    table = await started(world)
    reader = world.machines[0]
    await put(reader, table, b"k", b"v", level=ALL)
    for _ in range(2 * SAMPLES_MIN * LATENCY_SAMPLE):
        await get(reader, table, b"k", level=ALL)
    return table, reader


async def latency_s(reader: Machine, table: Table) -> float:
    began_s = now_s()
    assert await get(reader, table, b"k") == b"v"
    return now_s() - began_s


@simulated()
async def test_a_slow_replica_costs_what_it_usually_takes_and_not_a_tenth_of_a_second(world: World) -> None:
    table, reader = await warmed_up(world)
    world.cut_off(world.machines[1])
    assert await latency_s(reader, table) < 0.06, "its 95th percentile is some 20 ms, and another takes as long"


@simulated()
async def test_a_hedge_in_time_marks_nobody_as_silent(world: World) -> None:
    table, reader = await warmed_up(world)
    world.cut_off(world.machines[1])
    await latency_s(reader, table)
    asker = member(reader).coordinator._asker
    assert asker.is_responsive(member(world.machines[1]).topology.node)


@simulated(machines=5)
async def test_a_replica_that_is_silent_for_a_tenth_of_a_second_is_asked_last_for_a_while(world: World) -> None:
    table = await started(world, n=5)
    reader = world.machines[0]
    await put(reader, table, b"k", b"v", level=ALL)
    replicas = member(reader).coordinator._asker.nearest_first(
        member(reader).topology.replicas(table, key_of(table, b"k"))
    )
    silent = [m for m in world.machines if member(m).topology.node in replicas[1:3]]
    for machine in silent:
        world.cut_off(machine)
    assert SILENT_S <= await latency_s(reader, table) < 2 * SILENT_S
    assert await latency_s(reader, table) < SILENT_S
    asker = member(reader).coordinator._asker
    assert not any(asker.is_responsive(member(machine).topology.node) for machine in silent)


@simulated()
async def test_without_measurements_a_hedge_waits_for_a_tenth_of_a_second(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    world.cut_off(world.machines[1])
    assert await latency_s(world.machines[0], table) == pytest.approx(SILENT_S, abs=0.03)


@simulated()
async def test_reads_of_healthy_replicas_are_hedged_seldom(world: World) -> None:
    table, reader = await warmed_up(world)
    sent = world.network.sent
    for _ in range(200):
        await get(reader, table, b"k")
    reads = (world.network.sent - sent) / 2  # gossip and clocks are among them
    assert reads < 200 * 1.25
