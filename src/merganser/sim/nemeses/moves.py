"""Moves: an operator has partitions change hands while clients work, and sometimes thinks better of it.

No fault by itself; what is promised holds all the same, whatever else happens meanwhile. An operation goes on after the
one who asked for it has lost patience, and the next waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from merganser.core import reshaping
from merganser.model.cluster import ClusterMap
from merganser.model.errors import MerganserError, RequestError
from merganser.service.member import Member
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.nemeses.arena import Arena

PATIENCE_S = 5.0
PARTITIONS_MAX = 64
_WEIGHTS = (0.0, 0.5, 1.0, 1.0, 2.0)
_SHARES = (0.5, 1.0, 2.0)

Planning = Callable[[ClusterMap, str], reshaping.Plan]


async def weights(arena: Arena) -> None:
    """Have nodes own more, less, or nothing."""
    await operate(arena, "moves", lambda current, name: _other_weights(arena, current, name))


async def shares(arena: Arena) -> None:
    """Have nodes own more or less, but none of them nothing."""
    await operate(arena, "moves", lambda current, name: _other_weights(arena, current, name, _SHARES))


async def zones(arena: Arena) -> None:
    """Have nodes stand in other zones."""
    await operate(arena, "moves to other zones", lambda current, name: _other_zones(arena, current, name))


async def cancelled(arena: Arena) -> None:
    """Begin to move, and cancel it."""
    began = await operate(arena, "moves, and a change of mind", lambda now, name: _other_weights(arena, now, name))
    await arena.pass_time()
    if began is not None:
        await change(arena, lambda newest: reshaping.cancelled(newest, began))


async def split(arena: Arena) -> None:
    """Have the ring cut finer."""
    await operate(arena, "splits", lambda current, name: _cut(current, name))


async def operate(arena: Arena, fault: str, planning: Planning) -> str | None:
    """Begin an operation, through any node that is up; returns its id if it may have begun."""
    name = f"{arena.rng.getrandbits(64):016x}"

    def begin(newest: ClusterMap) -> ClusterMap:
        plan = planning(newest, name)
        return reshaping.begun(newest, plan.operation, plan.weights)

    changed = await change(arena, begin)
    if changed is None or changed.operation is None:
        return None
    arena.note(fault, changed.operation.told, of=[])
    await arena.pass_time()
    return name


async def change(arena: Arena, change: Callable[[ClusterMap], ClusterMap]) -> ClusterMap | None:
    """Change the map through any node that is up; returns it, None if it is unknown whether it has changed."""
    up = [machine for machine in arena.up() if machine.member is not None]
    if not up:
        return None
    machine = arena.rng.choice(up)
    asked = machine.spawn(_changed(machine, change))
    asked.add_done_callback(_heed)
    await asyncio.wait([asked], timeout=PATIENCE_S)  # a machine that dies answers nothing, and its tasks never end
    if not asked.done() or asked.cancelled():
        return None
    error = asked.exception()
    if isinstance(error, MerganserError):
        return None
    return asked.result()


def _heed(asked: asyncio.Task[ClusterMap]) -> None:
    """Take note of an error that comes after the operator has gone."""
    if not asked.cancelled():
        asked.exception()


async def _changed(machine: Machine, change: Callable[[ClusterMap], ClusterMap]) -> ClusterMap:
    member: Member | None = machine.member
    assert member is not None
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    return await member.catalog.change(change, deadline=deadline)


def _other_weights(arena: Arena, current: ClusterMap, name: str, choices: Sequence[float] = _WEIGHTS) -> reshaping.Plan:
    drawn = {node.id: arena.rng.choice(choices) for node in current.nodes}
    if not any(drawn.values()):
        drawn[current.nodes[0].id] = 1.0
    return reshaping.planned(current, "weights", operation_id=name, now_us=EPOCH_US, weights=drawn)


def _cut(current: ClusterMap, name: str) -> reshaping.Plan:
    if current.partitions >= PARTITIONS_MAX:
        raise RequestError("the ring is cut finely enough for a simulation")
    return reshaping.planned(current, "split", operation_id=name, now_us=EPOCH_US)


def _other_zones(arena: Arena, current: ClusterMap, name: str) -> reshaping.Plan:
    names = sorted({node.zone for node in current.nodes} | {"zone-0", "zone-1"})
    drawn = {node.id: arena.rng.choice(names) for node in current.nodes}
    return reshaping.planned(current, "zones", operation_id=name, now_us=EPOCH_US, zones=drawn)
