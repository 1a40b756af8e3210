"""Leaders of a simulated cluster: one for each group, spread evenly, soon replaced when it is gone."""

from __future__ import annotations

import asyncio
from collections import Counter

from merganser.model.ids import PartitionId
from merganser.model.leadership import Group
from merganser.service.leadership import Leadership, Led
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import member, now_s, simulated, started, started_with_leaders, until

GROUPS = [Group(3, PartitionId(p)) for p in range(16)]


def leadership(machine: Machine) -> Leadership:
    return member(machine).leader_tables.leadership


def leaders(world: World, group: Group) -> list[Machine]:
    """Return the machines that run and believe that they lead ``group``."""
    return [
        machine
        for machine in world.machines
        if machine.member is not None and not machine.is_paused and leadership(machine).led(group)
    ]


def has_one_leader(world: World, groups: list[Group] = GROUPS) -> bool:
    return all(len(leaders(world, group)) == 1 for group in groups)


def led_counts(world: World) -> list[int]:
    return sorted(Counter(leaders(world, group)[0].address for group in GROUPS).values())


async def led_evenly(world: World, *, timeout_s: float = 20.0) -> None:
    await until(lambda: has_one_leader(world) and led_counts(world) == [5, 5, 6], timeout_s=timeout_s)


def led(world: World, group: Group = GROUPS[0]) -> Led:
    """Return the term of the one leader."""
    (leader,) = leaders(world, group)
    found = leadership(leader).led(group)
    assert found is not None
    return found


@simulated()
async def test_every_group_has_exactly_one_leader_and_they_are_spread_evenly(world: World) -> None:
    await started_with_leaders(world)
    began = now_s()
    await led_evenly(world)
    assert now_s() - began < 0.1  # some round trips and fsyncs
    for group in GROUPS:
        epoch = led(world, group).epoch
        await until(lambda: all(leadership(machine).known(group) == epoch for machine in world.machines))  # noqa: B023


@simulated()
async def test_without_a_table_that_has_leaders_nobody_sends_anything_for_elections(world: World) -> None:
    await started(world)
    await asyncio.sleep(5.0)
    for machine in world.machines:
        assert not member(machine).leader_tables._background
        assert not leadership(machine).leading()
