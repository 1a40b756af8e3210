"""Rot: bits of rows flip at rest, on one machine of a partition at a time.

What is promised then is that nothing acknowledged is lost, as long as the row is somewhere else as well: so only what
another replica has durably, too, rots, and only while no other machine holds damage in the same partition.

Nobody answers for availability from then on: a primary that refuses a damaged row gets no hint, so a write that counts
on its fallback may miss its number.
"""

from __future__ import annotations

import asyncio
import contextlib

from merganser.core import rows
from merganser.model.errors import CorruptionError
from merganser.model.register import Register
from merganser.model.row import Row
from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena
from merganser.storage import keys
from merganser.storage.registers import decode_register
from merganser.storage.values import decode_row

ROWS = (1, 5)


async def one_row(arena: Arena) -> None:
    """Flip a bit of one row of one machine."""
    _rot(arena, "rot of one row", arena.rng.choice(arena.machines), 1)
    await arena.pass_time()


async def several_rows(arena: Arena) -> None:
    """Flip a bit of each of several rows of one machine."""
    _rot(arena, "rot of several rows", arena.rng.choice(arena.machines), arena.rng.randint(*ROWS))
    await arena.pass_time()


async def again_and_again(arena: Arena) -> None:
    """Flip bits of one machine, one after another."""
    victim = arena.rng.choice(arena.machines)
    for _ in range(arena.rng.randint(*ROWS)):
        _rot(arena, "rot again and again", victim, 1)
        await asyncio.sleep(arena.rng.uniform(0.0, 0.3))


def _rot(arena: Arena, fault: str, victim: Machine, count: int) -> None:
    if not arena.is_everyone_whole():  # what one has lost another must be able to give it
        return
    others = [machine for machine in arena.machines if machine is not victim]
    damaged = {_partition(machine, key) for machine in others for key in damaged_keys(machine)}
    candidates = [
        key for key in _keys(victim) if _partition(victim, key) not in damaged and _is_safe(victim, key, others)
    ]
    for key in arena.rng.sample(candidates, min(count, len(candidates))):
        victim.disk.rot_row(key)
        arena.note(fault, f"a bit of {key!r} flips on {victim.address}", is_lasting=True)


def damaged_keys(machine: Machine) -> list[bytes]:
    """Return what is damaged on a machine."""
    return [key for key in _keys(machine) if _row(machine, key) is None]


def _is_safe(victim: Machine, key: bytes, others: list[Machine]) -> bool:
    """Tell whether another machine holds all that the victim holds under ``key``."""
    mine = _row(victim, key)
    return mine is not None and any(
        other.engine.is_durable(key) and (theirs := _row(other, key)) is not None and _covers(theirs, mine)
        for other in others
    )


def _covers(theirs: Row | Register, mine: Row | Register) -> bool:
    if isinstance(theirs, Register) and isinstance(mine, Register):
        return theirs.version >= mine.version
    return isinstance(theirs, Row) and isinstance(mine, Row) and rows.covers(theirs, mine)


def _keys(machine: Machine) -> list[bytes]:
    _, rows_begin = keys.table_range(keys.METADATA)
    return [key for key, _ in machine.engine.scan(rows_begin, b"\xff" * 16)]


def _row(machine: Machine, key: bytes) -> Row | Register | None:
    """Return what a machine holds, None if that is nothing, or damaged."""
    stored = machine.engine.get(key)
    if stored is None:
        return None
    for decode in decode_row, decode_register:
        with contextlib.suppress(CorruptionError):
            return decode(key, stored)
    return None


def _partition(machine: Machine, key: bytes) -> int:
    """Return which partition a key is of, as good as any number of it: the first bits of its token."""
    return (keys.token_in(key) + 2**63) >> (64 - machine.partition_bits)
