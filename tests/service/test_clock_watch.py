"""A node whose clock is off mints nothing and says so; the others go on, and so does it once the clock is right."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import ClockSkewError, UnavailableError
from merganser.service.clock_watch import INTERVAL_S
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from service.plays import ALL, get, held, holders, member, now_s, put, simulated, started, until

HOUR_US = 3_600_000_000
OFF = r"this node's clock is 3600\.\d s {} the median of the 3 clocks it knows, more than the 10 s allowed"


async def compared(world: World) -> None:
    """Let every machine hear the clocks of all others."""
    await until(
        lambda: all(len(member(m).clock_watch.standing().peers_s) == len(world.machines) - 1 for m in world.machines)
    )


def is_refusing(machine: Machine) -> bool:
    return member(machine).clock_watch.standing().refusal is not None


@simulated()
async def test_a_node_an_hour_ahead_refuses_to_mint_and_its_timestamps_never_enter_the_others(world: World) -> None:
    table = await started(world)
    await compared(world)
    wrong, *others = world.machines
    wrong.skew_us = HOUR_US
    with pytest.raises(UnavailableError, match=OFF.format("ahead of") + ".*nothing was written"):
        await put(wrong, table, b"k", b"v")
    await asyncio.sleep(10.0)
    with pytest.raises(UnavailableError, match="nothing was written"):
        await put(wrong, table, b"k", b"v")
    assert holders(world, table, b"k") == []
    for machine in others:
        written = await put(machine, table, b"k", b"v", level=ALL)
        assert abs(written.micros - machine.wall_us()) < 1_000_000
    assert await get(wrong, table, b"k") == b"v"


@simulated()
async def test_a_node_an_hour_behind_refuses_as_well(world: World) -> None:
    table = await started(world)
    await compared(world)
    world.machines[0].skew_us = -HOUR_US
    with pytest.raises(UnavailableError, match=OFF.format("behind")):
        await put(world.machines[0], table, b"k", b"v")


@simulated()
async def test_a_node_that_starts_with_a_wrong_clock_compares_before_it_mints(world: World) -> None:
    table = await started(world)
    wrong, other, _ = world.machines
    wrong.crash()
    wrong.skew_us = HOUR_US
    wrong.start()
    await world.up(wrong)
    with pytest.raises(UnavailableError, match=OFF.format("ahead of")):
        await put(wrong, table, b"k", b"v")
    assert held(wrong, table, b"k") is None
    await put(other, table, b"k", b"v")


@simulated()
async def test_a_node_that_starts_alone_mints_without_waiting_for_peers_that_are_down(world: World) -> None:
    await started(world)
    for machine in world.machines:
        machine.crash()
    alone = world.machines[0]
    alone.start()
    await world.up(alone)
    began = now_s()
    await alone.spawn(member(alone).timestamps.mint(began + 60.0))
    assert now_s() < began + 0.1


@simulated()
async def test_a_node_whose_clock_is_set_right_mints_again_at_once(world: World) -> None:
    table = await started(world)
    await compared(world)
    machine = world.machines[0]
    machine.skew_us = HOUR_US
    with pytest.raises(UnavailableError):
        await put(machine, table, b"k", b"v")
    machine.skew_us = 0
    written = await put(machine, table, b"k", b"v")
    assert abs(written.micros - machine.wall_us()) < 1_000_000


@simulated()
async def test_a_clock_that_drifts_is_refused_once_it_is_beyond_the_bound(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for _ in range(9):
        machine.skew_us += 1_000_000
        await asyncio.sleep(INTERVAL_S)
        await put(machine, table, b"k", b"v")
    machine.skew_us += 2_000_000
    with pytest.raises(UnavailableError, match=r"11\.\d s ahead"):
        await put(machine, table, b"k", b"v")


@simulated()
async def test_right_clocks_are_believed_through_a_storm_of_delays(world: World) -> None:
    await started(world)
    world.network.conditions = Conditions(delay_s=(0.001, 0.9), loss=0.3)
    for _ in range(100):
        await asyncio.sleep(0.5)
        assert not any(map(is_refusing, world.machines))


@simulated()
async def test_the_majority_is_believed_when_it_is_set_and_the_one_that_was_right_refuses(world: World) -> None:
    await started(world)
    await compared(world)
    stays, *others = world.machines
    for machine in others:
        machine.skew_us = HOUR_US
    await until(lambda: is_refusing(stays))
    for machine in others:
        machine.skew_us = 0
    await until(lambda: not any(map(is_refusing, world.machines)), timeout_s=2 * INTERVAL_S)


@simulated(machines=2)
async def test_of_two_nodes_both_mint_for_neither_can_tell_who_is_wrong(world: World) -> None:
    await started(world, n=2)
    world.machines[0].skew_us = HOUR_US
    await asyncio.sleep(10.0)
    first, second = (member(machine).clock_watch.standing() for machine in world.machines)
    assert (first.refusal, second.refusal) == (None, None)
    assert round(first.ahead_s) == 1800
    assert round(second.ahead_s) == -1800


@simulated(machines=9)
async def test_one_wrong_clock_among_many_is_found_though_few_are_asked_at_a_time(world: World) -> None:
    await world.start()
    world.machines[4].skew_us = -HOUR_US
    await until(lambda: is_refusing(world.machines[4]))
    await asyncio.sleep(30.0)
    assert [is_refusing(machine) for machine in world.machines] == [number == 4 for number in range(9)]


@simulated()
async def test_refusing_and_minting_again_are_told_once_each(world: World) -> None:
    await started(world)
    await compared(world)
    machine = world.machines[0]
    watch = member(machine).clock_watch
    told: list[str | None] = []
    watch._on_change = told.append
    machine.skew_us = HOUR_US
    for _ in range(3):
        with pytest.raises(ClockSkewError):
            watch.check()
        await asyncio.sleep(INTERVAL_S)
    machine.skew_us = 0
    await asyncio.sleep(2 * INTERVAL_S)
    assert [reason is None for reason in told] == [False, True]
