"""Pauses: machines that stop and go on later where they stood, as after SIGSTOP; their clocks go on meanwhile."""

from __future__ import annotations

import asyncio

from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena, addresses


async def one(arena: Arena) -> None:
    """Pause one machine."""
    running = _running(arena)
    await _pause(arena, "pause of one", arena.rng.sample(running, min(1, len(running))))


async def several(arena: Arena) -> None:
    """Pause a drawn number of machines at one moment."""
    running = _running(arena)
    await _pause(
        arena, "pause of several", arena.rng.sample(running, arena.rng.randint(min(1, len(running)), len(running)))
    )


async def stutter(arena: Arena) -> None:
    """Pause a machine for moments, many times over, as one that swaps or is starved of CPU."""
    running = _running(arena)
    if not running:
        return
    victim = arena.rng.choice(running)
    arena.note("stutter", f"{victim.address} runs by fits and starts", of=[victim])
    for _ in range(arena.rng.randint(3, 10)):
        with arena.paused([victim]):
            await asyncio.sleep(arena.rng.uniform(0.01, 0.2))
        await asyncio.sleep(arena.rng.uniform(0.01, 0.1))


async def _pause(arena: Arena, fault: str, victims: list[Machine]) -> None:
    if not victims:
        return
    with arena.paused(victims):
        arena.note(fault, f"{addresses(victims)} stop", of=victims)
        await arena.pass_time()


def _running(arena: Arena) -> list[Machine]:
    return [machine for machine in arena.up() if not machine.is_paused]
