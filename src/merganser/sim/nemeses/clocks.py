"""Clocks: wall clocks that jump, and wall clocks that run fast or slow. They stay wrong until all is healed."""

from __future__ import annotations

from merganser.sim.nemeses.arena import Arena

DRIFT_MAX = 0.5  # a quartz drifts by 1e-4; a run lasts seconds, and this is what hours of that come to


async def jump(arena: Arena) -> None:
    """Set one clock wrong, ahead or behind."""
    machine, jump_us = arena.rng.choice(arena.machines), int(arena.clock_jump_s * 1e6)
    machine.skew_us = arena.rng.randint(-jump_us, jump_us)
    arena.note(
        "clock jump",
        f"the clock of {machine.address} is off by {machine.skew_us / 1e6:+.3f} s",
        of=[machine],
        is_lasting=True,
    )
    await arena.pass_time()


async def drift(arena: Arena) -> None:
    """Let one clock run at another pace."""
    machine, rate = arena.rng.choice(arena.machines), arena.rng.uniform(-DRIFT_MAX, DRIFT_MAX)
    machine.drift(rate)
    arena.note(
        "clock drift", f"the clock of {machine.address} gains {rate:+.3f} s a second", of=[machine], is_lasting=True
    )
    await arena.pass_time()
