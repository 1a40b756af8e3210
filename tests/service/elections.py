"""What the tests of leadership ask of a cluster and wait for."""

from __future__ import annotations

from collections import Counter

from merganser.model.ids import PartitionId
from merganser.model.leadership import Group
from merganser.service.leadership import Leadership, Led
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import member, now_s, until

GROUPS = [Group(3, PartitionId(p)) for p in range(16)]
GROUP = GROUPS[0]
TAKE_OVER_S = 2.0
"""From a fault until somebody else leads."""
SETTLED_S = 6.0
"""From the end of a fault until leaders are spread evenly again."""


def leadership(machine: Machine) -> Leadership:
    return member(machine).leader_tables.leadership


def leaders(world: World, group: Group) -> list[Machine]:
    """Return the machines that run and believe that they lead ``group``."""
    return [
        machine
        for machine in world.machines
        if machine.member is not None and not machine.is_paused and leadership(machine).led(group)
    ]


def has_leaders(world: World) -> bool:
    return all(len(leaders(world, group)) == 1 for group in GROUPS)


def spread(world: World) -> list[int]:
    return sorted(Counter(leaders(world, group)[0].address for group in GROUPS).values())


async def led_evenly(world: World, *, timeout_s: float = SETTLED_S) -> None:
    await until(lambda: has_leaders(world) and spread(world) == [5, 5, 6], timeout_s=timeout_s)


def leader(world: World, group: Group = GROUP) -> Machine:
    (found,) = leaders(world, group)
    return found


def term(machine: Machine, group: Group = GROUP) -> Led:
    led = leadership(machine).led(group)
    assert led is not None
    return led


async def confirmed(machine: Machine, led: Led, *, timeout_s: float = 1.0) -> None:
    await machine.spawn(leadership(machine).confirm(led, deadline=now_s() + timeout_s))
