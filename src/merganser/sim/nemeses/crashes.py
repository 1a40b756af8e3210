"""Crashes: power cuts. What runs stops where it stands, and of what was not synced a drawn part is lost."""

from __future__ import annotations

import asyncio

from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena, addresses


async def one(arena: Arena) -> None:
    """Crash one machine."""
    await _crash(arena, "crash of one", arena.rng.sample(arena.up(), min(1, len(arena.up()))))


async def several(arena: Arena) -> None:
    """Crash a drawn number of machines at one moment."""
    up = arena.up()
    await _crash(arena, "crash of several", arena.rng.sample(up, arena.rng.randint(min(1, len(up)), len(up))))


async def everything(arena: Arena) -> None:
    """Crash all of them at one moment."""
    await _crash(arena, "crash of all", arena.up())


async def again_and_again(arena: Arena) -> None:
    """Crash a machine, and again while it is still coming up."""
    victim = arena.rng.choice(arena.machines)
    for _ in range(arena.rng.randint(2, 5)):
        if victim.is_up:
            arena.crash([victim])
            arena.note("crash in a loop", f"{victim.address} loses power", of=[victim])
        await asyncio.sleep(arena.rng.uniform(0.0, 0.1))
        arena.start([victim])
        await asyncio.sleep(arena.rng.uniform(0.0, 0.2))


async def _crash(arena: Arena, fault: str, victims: list[Machine]) -> None:
    if not victims:
        return
    arena.crash(victims)
    arena.note(fault, f"{addresses(victims)} lose power", of=victims)
    await arena.pass_time()
    arena.start(victims)
