"""The power of a machine is cut at every moment of a write: what was acknowledged stays, what was seen stays seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, UnknownOutcomeError
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.led import can_evaluate, change, leading, payload_of, read, started_led, the_leader, values_at
from service.plays import now_s, play, until

MOMENTS = 30
STEP_S = 0.0008
"""A write takes some 20 ms: two messages of up to 10 ms, and an fsync of up to 5 at each replica."""


async def written(world: World, machine: Machine, table: Table, name: bytes, victim: Machine, after_s: float) -> str:
    """Write, cut the power of ``victim`` meanwhile, and tell what came of the write."""
    writing = asyncio.ensure_future(change(machine, table, name, payload_of("put", b"new")))
    crash_at = now_s() + after_s
    await asyncio.sleep(STEP_S / 8)
    while now_s() < crash_at and not writing.done():  # noqa: ASYNC110
        await asyncio.sleep(STEP_S / 8)
    victim.crash()
    async with asyncio.timeout(10.0):
        while not writing.done() and victim is not machine:  # noqa: ASYNC110
            await asyncio.sleep(STEP_S)
    if not writing.done():  # its task died with the machine, and will never tell
        return "unknown"
    error = writing.exception()
    assert error is None or isinstance(error, MerganserError)
    return "acknowledged" if error is None else "unknown" if isinstance(error, UnknownOutcomeError) else "not done"


async def seen(world: World, table: Table, name: bytes) -> bytes | None:
    """Return what a consistent read tells, from whoever leads."""
    async with asyncio.timeout(20.0):
        while True:
            leader = leading(world, table, name)
            if leader is not None:
                try:
                    return (await read(leader, table, name)).value
                except MerganserError:
                    pass
            await asyncio.sleep(0.02)


def is_leader(machine: Machine, leader: Machine) -> bool:
    return machine is leader


def is_follower(machine: Machine, leader: Machine) -> bool:
    return machine is not leader


@pytest.mark.parametrize("is_victim", [is_leader, is_follower])
@pytest.mark.parametrize("offset", range(3))
def test_what_was_acknowledged_survives_a_power_cut_at_every_moment(
    is_victim: Callable[[Machine, Machine], bool], offset: int
) -> None:
    outcomes: list[str] = []

    async def script(world: World) -> None:
        table = await started_led(world)
        for moment in range(MOMENTS // 3):
            name = b"%d" % moment
            await until(lambda: leading(world, table, name) is not None, timeout_s=20.0)  # noqa: B023
            leader = the_leader(world, table, name)
            await change(leader, table, name, payload_of("put", b"old"))
            await until(lambda: values_at(world, table, name) == [b"old"] * 3, timeout_s=30.0)  # noqa: B023
            victim = next(machine for machine in world.machines if is_victim(machine, leader))
            outcome = await written(world, leader, table, name, victim, (3 * moment + offset) * STEP_S)
            outcomes.append(outcome)
            first = await seen(world, table, name)
            assert first in {"acknowledged": (b"new",), "not done": (b"old",)}.get(outcome, (b"old", b"new"))
            victim.start()
            await world.up(victim)
            can_evaluate(victim)
            assert await seen(world, table, name) == first
            await until(lambda: values_at(world, table, name) == [first] * 3, timeout_s=30.0)  # noqa: B023

    play(script, seed=offset, partitions=8)
    assert "acknowledged" in outcomes
