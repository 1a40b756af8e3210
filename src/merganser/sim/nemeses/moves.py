"""Moves: an operator has partitions change hands while clients work, and sometimes thinks better of it.

No fault by itself; what is promised holds all the same, whatever else happens meanwhile. An operation goes on after the
one who asked for it has lost patience, and the next waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from merganser.core import reshaping
from merganser.model.cluster import ClusterMap
from merganser.model.errors import MerganserError
from merganser.service.member import Member
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.nemeses.arena import Arena

PATIENCE_S = 5.0
_WEIGHTS = (0.0, 0.5, 1.0, 1.0, 2.0)

Planning = Callable[[ClusterMap, str], reshaping.Plan]


async def weights(arena: Arena) -> None:
    """Have nodes own more, less, or nothing."""
    await _operate(arena, "moves", lambda current, name: _other_weights(arena, current, name))


async def zones(arena: Arena) -> None:
    """Have nodes stand in other zones."""
    await _operate(arena, "moves to other zones", lambda current, name: _other_zones(arena, current, name))


async def cancelled(arena: Arena) -> None:
    """Begin to move, and cancel it."""
    began = await _operate(arena, "moves, and a change of mind", lambda now, name: _other_weights(arena, now, name))
    await arena.pass_time()
    if began is not None:
        await _change(arena, lambda newest: reshaping.cancelled(newest, began))


async def _operate(arena: Arena, fault: str, planning: Planning) -> str | None:
    """Begin an operation, through any node that is up; returns its id if it may have begun."""
    name = f"{arena.rng.getrandbits(64):016x}"

    def change(newest: ClusterMap) -> ClusterMap:
        plan = planning(newest, name)
        return reshaping.begun(newest, plan.operation, plan.weights)

    told = await _change(arena, change)
    if told is None:
        return None
    arena.note(fault, told, of=[])
    await arena.pass_time()
    return name


async def _change(arena: Arena, change: Callable[[ClusterMap], ClusterMap]) -> str | None:
    """Change the map through any node that is up; returns what operation is under way then, None if none."""
    up = [machine for machine in arena.up() if machine.member is not None]
    if not up:
        return None
    machine = arena.rng.choice(up)
    asked = machine.spawn(_changed(machine, change))
    try:
        changed = await asked
    except MerganserError:
        return None
    except asyncio.CancelledError:
        if asked.cancelled() and not _is_ending():  # the node gave it up, not the nemesis
            return None
        raise
    return changed.operation.told if changed.operation is not None else None


def _is_ending() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _changed(machine: Machine, change: Callable[[ClusterMap], ClusterMap]) -> ClusterMap:
    member: Member | None = machine.member
    assert member is not None
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    return await member.catalog.change(change, deadline=deadline)


def _other_weights(arena: Arena, current: ClusterMap, name: str) -> reshaping.Plan:
    drawn = {node.id: arena.rng.choice(_WEIGHTS) for node in current.nodes}
    if not any(drawn.values()):
        drawn[current.nodes[0].id] = 1.0
    return reshaping.planned(current, "weights", operation_id=name, now_us=EPOCH_US, weights=drawn)


def _other_zones(arena: Arena, current: ClusterMap, name: str) -> reshaping.Plan:
    names = sorted({node.zone for node in current.nodes} | {"zone-0", "zone-1"})
    drawn = {node.id: arena.rng.choice(names) for node in current.nodes}
    return reshaping.planned(current, "zones", operation_id=name, now_us=EPOCH_US, zones=drawn)
