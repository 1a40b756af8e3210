"""Disks: slow ones, full ones, and ones that fail an fsync.

An engine that has failed takes no more writes until its node starts again; as an operator would, the nemesis makes
room and restarts the machine.
"""

from __future__ import annotations

from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena

SLOW_S = (0.02, 0.5)  # clients give up after two seconds, and a group of writes may wait for two fsyncs


async def slow(arena: Arena) -> None:
    """Let every fsync of one machine take long."""
    victim = arena.rng.choice(arena.machines)
    victim.disk.slow(SLOW_S)
    arena.note("slow disk", f"the disk of {victim.address} is slow", of=[victim])
    try:
        await arena.pass_time()
    finally:
        victim.disk.heal()


async def short(arena: Arena) -> None:
    """Leave one machine no room but its reserve: it refuses rows."""
    await _fill(arena, "disk short of room", to_the_last_byte=False)


async def full(arena: Arena) -> None:
    """Leave one machine no room at all: the next write fails its engine."""
    await _fill(arena, "full disk", to_the_last_byte=True)


async def failing(arena: Arena) -> None:
    """Fail the next fsync of one machine, and with it the engine."""
    victim = arena.rng.choice(arena.machines)
    victim.disk.fail_next_sync()
    arena.note("failed fsync", f"the next fsync of {victim.address} fails", of=[victim])
    try:
        await arena.pass_time()
    finally:
        victim.disk.heal()
        restart_if_failed(arena, victim)


def restart_if_failed(arena: Arena, machine: Machine) -> None:
    """Restart ``machine`` if its engine has failed, as an operator does who was called."""
    if machine.is_up and machine.engine.failure is not None:
        arena.tell(f"{machine.address} is restarted: {machine.engine.failure}")
        arena.crash([machine])
        arena.start([machine])


async def _fill(arena: Arena, fault: str, *, to_the_last_byte: bool) -> None:
    victim = arena.rng.choice(arena.machines)
    victim.disk.fill(to_the_last_byte=to_the_last_byte)
    arena.note(fault, f"the disk of {victim.address} is full", of=[victim])
    try:
        await arena.pass_time()
    finally:
        victim.disk.free()
        restart_if_failed(arena, victim)
