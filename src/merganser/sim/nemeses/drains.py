"""Drains: an operator has nodes leave what they lead to others, as before each is stopped, and serve as ever again.

No fault by itself; what is promised holds all the same, whatever else happens meanwhile. A machine that starts again
has forgotten that it was drained.
"""

from __future__ import annotations

from collections.abc import Sequence

from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena, addresses


async def one(arena: Arena) -> None:
    """Drain one machine."""
    up = _up(arena)
    await _drain(arena, arena.rng.sample(up, min(1, len(up))))


async def several(arena: Arena) -> None:
    """Drain a drawn number of machines at one moment; perhaps all, and then they lead as before."""
    up = _up(arena)
    await _drain(arena, arena.rng.sample(up, arena.rng.randint(min(1, len(up)), len(up))))


async def restarted(arena: Arena) -> None:
    """Drain one machine, and have it start again, as in an upgrade."""
    up = _up(arena)
    victims = arena.rng.sample(up, min(1, len(up)))
    await _drain(arena, victims)
    arena.note("restart of one that was drained", f"{addresses(victims)} starts again", of=victims)
    arena.crash([machine for machine in victims if machine.is_up])
    await arena.pass_time()
    arena.start(victims)


async def _drain(arena: Arena, victims: Sequence[Machine]) -> None:
    if not victims:
        return
    arena.note("drain", f"{addresses(victims)} are drained", of=[])
    _set(victims, is_draining=True)
    try:
        await arena.pass_time()
    finally:
        _set(victims, is_draining=False)
        arena.tell(f"{addresses(victims)} are not drained any more")


def _set(machines: Sequence[Machine], *, is_draining: bool) -> None:
    for machine in machines:
        if machine.member is not None:
            machine.member.leader_tables.leadership.is_draining = is_draining


def _up(arena: Arena) -> list[Machine]:
    return [machine for machine in arena.up() if machine.member is not None]
