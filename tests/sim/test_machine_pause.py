"""A machine that is stopped and goes on: nothing of it runs meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import InvariantError
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import get, member, now_s, play, put, started


async def _ticks(seen: list[float], count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(1.0)
        seen.append(now_s())


def test_a_paused_machine_does_nothing_and_its_timers_are_overdue_when_it_goes_on() -> None:
    seen: list[float] = []
    woken: list[float] = []

    async def script(world: World) -> None:
        machine = world.machines[0]
        machine.start()
        began_s = now_s()
        machine.spawn(_ticks(seen, 5))
        await asyncio.sleep(1.5)
        machine.pause()
        assert machine.is_paused
        await asyncio.sleep(10.0)
        assert seen == [began_s + 1.0]
        woken.append(now_s())
        machine.resume()
        assert not machine.is_paused
        await asyncio.sleep(5.0)

    play(script, machines=1)
    assert seen[1:] == [woken[0], woken[0] + 1.0, woken[0] + 2.0, woken[0] + 3.0]


def test_a_request_to_a_paused_machine_waits_and_is_answered_when_it_goes_on() -> None:
    async def script(world: World) -> None:
        table = await started(world)
        asked, paused, _ = world.machines
        paused.pause()
        await put(asked, table, b"k", b"v")  # two of three are enough
        assert member(asked).transport.is_reachable(member(paused).topology.node), "its connections stay open"
        before_s = now_s()
        reading = asyncio.ensure_future(get(paused, table, b"k"))
        await asyncio.sleep(1.0)
        assert not reading.done()
        paused.resume()
        assert await reading == b"v"
        assert now_s() > before_s + 1.0

    play(script)


def test_what_a_machine_does_keeps_its_order_over_a_pause_under_every_seed() -> None:
    def order(seed: int) -> list[int]:
        ran: list[int] = []

        async def counting() -> None:
            for number in range(60):
                asyncio.get_running_loop().call_soon(ran.append, number)
                await asyncio.sleep(0.01)

        async def script(world: World) -> None:
            machine = world.machines[0]
            machine.start()
            machine.spawn(counting())
            for _ in range(10):
                await asyncio.sleep(0.035)
                machine.pause()
                await asyncio.sleep(0.035)
                machine.resume()
            await asyncio.sleep(1.0)

        play(script, seed=seed, machines=1)
        return ran

    for seed in range(20):
        assert order(seed) == list(range(60))


def test_a_power_cut_ends_a_pause_and_what_was_held_back_never_runs() -> None:
    seen: list[float] = []

    async def script(world: World) -> None:
        machine = world.machines[0]
        await world.start()
        machine.spawn(_ticks(seen, 5))
        await asyncio.sleep(0.5)
        machine.pause()
        await asyncio.sleep(3.0)
        machine.crash()
        assert not machine.is_paused
        machine.resume()
        await asyncio.sleep(3.0)
        assert seen == []
        machine.start()
        await world.up(machine)

    play(script, machines=1)


def test_only_what_runs_can_be_paused_and_resuming_what_runs_changes_nothing() -> None:
    async def script(world: World) -> None:
        machine: Machine = world.machines[0]
        with pytest.raises(InvariantError, match="is down"):
            machine.pause()
        await world.start()
        machine.resume()
        machine.crash()
        with pytest.raises(InvariantError, match="is down"):
            machine.pause()

    play(script, machines=1)
