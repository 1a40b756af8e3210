"""Data centres: a whole one is cut off, or loses power; without data centres nothing happens."""

from __future__ import annotations

from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena, addresses, both_ways


async def cut_off(arena: Arena) -> None:
    """Cut the links between one data centre and the others."""
    inside = _drawn(arena)
    with arena.cut(both_ways(inside, [machine for machine in arena.machines if machine not in inside])):
        if inside:
            arena.note("data centre cut off", f"{addresses(inside)} hear nobody else", of=inside)
        await arena.pass_time()


async def power(arena: Arena) -> None:
    """Cut the power of one data centre."""
    inside = _drawn(arena)
    if inside:
        arena.note("data centre without power", f"{addresses(inside)} lose power", of=inside)
    arena.crash([machine for machine in inside if machine.is_up])
    await arena.pass_time()
    arena.start([machine for machine in inside if machine in arena.machines])


def _drawn(arena: Arena) -> list[Machine]:
    names = sorted({machine.data_center for machine in arena.machines})
    if len(names) < 2:
        return []
    name = arena.rng.choice(names)
    return [machine for machine in arena.machines if machine.data_center == name]
