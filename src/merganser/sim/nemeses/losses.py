"""Losses: a machine loses what it had synced, and comes back knowing that it did.

One machine at a time is not whole, and the cluster has two other voters: else what was acknowledged is gone for good,
and no promise holds. For a loss a clock leaps ahead, and takes others with it; with wall clocks that are wrong as well
a second loss could find a clock that cannot leap as far, so that there is one at most then (`service.timestamps`).
"""

from __future__ import annotations

from merganser.sim.nemeses.arena import Arena
from merganser.sim.nemeses.rot import damaged_keys

VOTERS_MIN = 3


async def log_cut(arena: Arena) -> None:
    """Cut the power of one machine and the end of its log with it."""
    await _lose(arena, "log cut", arena.rng.randint(1, 40))


async def log_gone(arena: Arena) -> None:
    """Cut the power of one machine and all of its log with it."""
    await _lose(arena, "log gone", 10_000)


async def _lose(arena: Arena, fault: str, batches: int) -> None:
    victims = [machine for machine in arena.up() if machine.member is not None]
    if len(arena.machines) < VOTERS_MIN or not victims or not arena.is_everyone_whole():
        return
    if any(map(damaged_keys, arena.machines)):  # the victim may be the only one that has it well
        return
    if arena.losses and {"clock jump", "clock drift"} & arena.faults.keys():
        return
    victim = arena.rng.choice(victims)
    arena.losses += 1
    victim.disk.cut_log(batches)
    arena.crash([victim])
    told = f"{victim.address} loses power and the newest {batches} batches of its log"
    arena.note(fault, told, of=[victim], is_lasting=True)  # it serves once it has compared with all others
    await arena.pass_time()
    arena.start([victim])
