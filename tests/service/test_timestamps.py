"""Timestamps: no restart mints one twice, whatever the wall clock does, and a failed disk is told."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.core.clock import HybridClock
from merganser.model.errors import StorageFailedError, UnavailableError
from merganser.model.timestamp import Timestamp
from merganser.service.timestamps import WINDOW_US, Timestamps, load_ceiling
from merganser.sim.loop import Incarnation, SimulatedLoop
from merganser.sim.world import World
from merganser.storage.memory import MemoryEngine
from service.plays import ANY_CLOCK_S, member, put, simulated, started

SKEW_ALLOWED_US = 60_000_000

FAR = 3600.0  # a deadline that does not matter


class Lives:
    """One node's clock over several lives on one disk."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.loop = SimulatedLoop(self.rng)
        self.wall_us = 1_000_000_000
        self.engine = MemoryEngine(sync=self._sync)
        self.minted: list[Timestamp] = []
        self.life = Incarnation("node")

    async def _sync(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.001, 0.02))

    def begin(self) -> Timestamps:
        """Start a life on what the last one left on the disk."""
        self.life = Incarnation("node")
        clock = HybridClock(7, floor=load_ceiling(self.engine), max_ahead_us=SKEW_ALLOWED_US)
        return Timestamps(clock, self.engine, wall_us=lambda: self.wall_us)

    def cut_power(self) -> None:
        self.life.is_dead = True
        self.engine.power_cut(self.rng.randint(0, self.engine.unsynced_batches))

    async def mint(self, timestamps: Timestamps) -> None:
        self.minted.append(await timestamps.mint(FAR))


def test_no_restart_mints_a_timestamp_twice_even_with_the_wall_clock_set_back() -> None:
    for seed in range(100):
        lives = Lives(seed)

        async def script(lives: Lives = lives) -> None:
            for _ in range(6):
                timestamps = lives.begin()
                for _ in range(30):
                    lives.wall_us += lives.rng.choice([-WINDOW_US, -1, 0, 1, 1000, WINDOW_US // 2, 2 * WINDOW_US])
                    lives.loop.spawn(lives.life, lives.mint(timestamps))
                    await asyncio.sleep(lives.rng.choice([0, 0, 0.001, 0.03]))
                lives.cut_power()

        lives.loop.run(script())
        assert len(lives.minted) > 60, f"seed {seed}"
        assert len(set(lives.minted)) == len(lives.minted), f"seed {seed}"
        assert lives.loop.errors == []


def test_the_ceiling_on_disk_never_falls() -> None:
    for seed in range(100):
        lives = Lives(seed)
        ceilings: list[int] = []

        async def script(lives: Lives = lives, ceilings: list[int] = ceilings) -> None:
            timestamps = lives.begin()
            mints = []
            for _ in range(40):
                lives.wall_us += lives.rng.choice([0, 1, WINDOW_US, 3 * WINDOW_US])
                mints.append(lives.loop.spawn(lives.life, lives.mint(timestamps)))
                await asyncio.sleep(lives.rng.choice([0, 0, 0.001, 0.03]))
                ceilings.append(load_ceiling(lives.engine))
            await asyncio.gather(*mints)
            await timestamps.close()
            ceilings.append(load_ceiling(lives.engine))
            assert lives.engine.unsynced_batches == 0, "nothing runs on after close"
            assert max(lives.minted).micros < load_ceiling(lives.engine)

        lives.loop.run(script())
        assert ceilings == sorted(ceilings), f"seed {seed}"
        assert lives.loop.errors == []


def test_concurrent_mints_across_the_ceiling_are_distinct_and_wait_for_it() -> None:
    lives = Lives(1)

    async def script() -> None:
        timestamps = lives.begin()
        await asyncio.gather(*(lives.mint(timestamps) for _ in range(50)))
        lives.wall_us += WINDOW_US
        await asyncio.gather(*(lives.mint(timestamps) for _ in range(50)))

    lives.loop.run(script())
    assert len(set(lives.minted)) == 100


def test_a_node_whose_disk_failed_mints_only_below_its_ceiling() -> None:
    lives = Lives(1)

    async def script() -> None:
        timestamps = lives.begin()
        await lives.mint(timestamps)
        lives.engine.close()
        await lives.mint(timestamps)
        lives.wall_us += WINDOW_US
        for _ in range(2):
            with pytest.raises(StorageFailedError, match="closed"):
                await timestamps.mint(FAR)

    lives.loop.run(script())
    assert lives.loop.errors == []


def test_a_cancelled_mint_takes_nothing_from_the_others() -> None:
    lives = Lives(1)

    async def script() -> None:
        timestamps = lives.begin()
        impatient, patient = (asyncio.ensure_future(lives.mint(timestamps)) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await patient

    lives.loop.run(script())
    assert len(lives.minted) == 1


@simulated()
async def test_a_restarted_coordinator_with_its_clock_set_back_writes_later_than_before(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    machine = world.machines[0]
    before = await put(machine, table, b"k", b"old")
    machine.crash()
    machine.skew_us = -30_000_000
    machine.start()
    await world.up(machine)
    assert await put(machine, table, b"k", b"new") > before


@simulated()
async def test_a_node_that_restarts_again_and_again_still_writes(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for _ in range(40):
        machine.crash()
        machine.start()
        await world.up(machine)
        written = await put(machine, table, b"k", b"v")
        await asyncio.sleep(0.5)
    assert written.micros - machine.wall_us() < SKEW_ALLOWED_US // 2


@simulated()
async def test_a_write_through_a_node_whose_disk_failed_says_so(world: World) -> None:
    table = await started(world, clock_skew_max_s=ANY_CLOCK_S)
    machine = world.machines[0]
    machine.engine.close()
    machine.skew_us = 2 * WINDOW_US
    with pytest.raises(UnavailableError, match="closed"):
        await put(machine, table, b"k", b"v")
    assert member(machine).engine.failure is not None
