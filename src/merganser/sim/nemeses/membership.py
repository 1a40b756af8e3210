"""Membership: nodes join, leave, are lost for good and removed or replaced, while clients work and all else fails.

What is asked of the cluster is what `merganser join`, `leave`, `remove` and `replace` ask of it. Whoever is lost never
comes back by itself; what only it held is lost with it, so no two are lost in one run, and none of a group of fewer
than three that elects leaders. At least three nodes own partitions at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from merganser.core import operation_checks, planner, reshaping
from merganser.core.cluster_map import node_by_id
from merganser.model.cluster import ClusterMap, OperationKind
from merganser.model.errors import MerganserError, RequestError
from merganser.model.ids import NodeId, PartitionId
from merganser.service.topology import Topology
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.nemeses.arena import Arena
from merganser.sim.nemeses.moves import change, operate

MACHINES_MAX = 7
JOIN_TIMEOUT_S = 20.0
_POLL_S = 0.05


async def joins(arena: Arena) -> None:
    """Start a fresh machine, and have it own its share once it is a member."""
    newcomer = await _newcomer(arena)
    if newcomer is not None:
        await _operate(
            arena,
            "joins",
            lambda current, name: _planned(
                current, "join", name, weights={newcomer.node: arena.rng.choice((0.5, 1.0))}
            ),
        )


async def leaves(arena: Arena) -> None:
    """Have a node hand over what it holds, and go."""
    arena.has_other_members = True

    def planning(current: ClusterMap, name: str) -> reshaping.Plan:
        if arena.unfinished:
            raise RequestError("somebody is lost, and the cluster is about to go on without it")
        return _planned(current, "leave", name, gone=[arena.rng.choice(current.nodes).id])

    await _operate(arena, "leaves", planning)


async def is_lost(arena: Arena) -> None:
    """Lose a machine with its disk, and go on without it."""
    victim = _victim(arena)
    if victim is not None:
        _lose(arena, victim, "loss of a node")
        await _insist(arena, victim, None)


async def is_replaced(arena: Arena) -> None:
    """Lose a machine with its disk, and put a fresh one in its place."""
    newcomer = await _newcomer(arena) if _may_lose(arena) else None
    victim = None if newcomer is None else _victim(arena)
    if victim is not None and newcomer is not None and victim is not newcomer:
        _lose(arena, victim, "replacement of a node")
        await _insist(arena, victim, newcomer)


def _planned(
    current: ClusterMap,
    kind: OperationKind,
    name: str,
    *,
    weights: dict[NodeId, float] | None = None,
    gone: list[NodeId] | None = None,
) -> reshaping.Plan:
    plan = reshaping.planned(current, kind, operation_id=name, now_us=EPOCH_US, weights=weights or {}, gone=gone or ())
    verdict = operation_checks.judged(current, plan, _as_if_alive(current, plan))
    if verdict.objections:
        raise RequestError(verdict.objections[0])
    return plan


def _as_if_alive(current: ClusterMap, plan: reshaping.Plan) -> set[NodeId]:
    """Whoever is believed to be dead is asked to take part all the same, as by an operator who insists."""
    return {node.id for node in current.nodes if node.number not in plan.operation.lost}


async def _operate(arena: Arena, fault: str, planning: Callable[[ClusterMap, str], reshaping.Plan]) -> None:
    with contextlib.suppress(MerganserError):
        await operate(arena, fault, planning)


async def _insist(arena: Arena, victim: Machine, newcomer: Machine | None) -> None:
    """Ask until the cluster goes on without ``victim``, with ``newcomer`` in its place if that owns nothing yet.

    What is under way may wait for the victim, and is cancelled.
    """
    name = f"{arena.rng.getrandbits(64):016x}"

    def begin(newest: ClusterMap) -> ClusterMap:
        if node_by_id(newest, victim.node) is None:
            return newest
        if newest.operation is not None and newest.operation.id != name:
            newest = reshaping.cancelled(newest, newest.operation.id)
        record = None if newcomer is None else node_by_id(newest, newcomer.node)
        is_free = record is not None and record.number not in newest.owners
        plan = reshaping.planned(
            newest,
            "replace" if is_free else "remove",
            operation_id=name,
            now_us=EPOCH_US,
            gone=[victim.node],
            successor=record.id if record is not None and is_free else None,
        )
        return reshaping.begun(newest, plan.operation, plan.weights)

    async def attempt() -> bool:
        changed = await change(arena, begin)
        if changed is None:
            return False
        is_begun = changed.operation is not None and changed.operation.id == name
        return is_begun or node_by_id(changed, victim.node) is None

    await arena.until_done(attempt)


def _victim(arena: Arena) -> Machine | None:
    """Return a machine that may be lost: a member, that is not needed for there to be three owners."""
    up = [machine for machine in arena.up() if machine.member is not None]
    if not up or not _may_lose(arena):
        return None
    victim = arena.rng.choice(up)
    member = victim.member
    assert member is not None
    current = member.topology.map
    owning = {node.number for node in current.nodes} & set(current.owners)
    if len(owning - {member.topology.me.number}) < planner.REPLICAS or _is_needed_for_ever(member.topology):
        return None
    return victim


def _is_needed_for_ever(topology: Topology) -> bool:
    """Tell whether a group of leaders would have no majority any more without this machine: there is no way back."""
    held = (
        topology.ring.holders(partition, rule)
        for rule in {table.rule for table in topology.map.tables if table.has_leaders}
        for partition in map(PartitionId, range(topology.ring.partitions))
    )
    return any(topology.node in one.members and min(len(one.serving), len(one.next)) < planner.REPLICAS for one in held)


def _may_lose(arena: Arena) -> bool:
    return arena.losses == 0 and arena.is_everyone_whole() and arena.are_all_members()


def _lose(arena: Arena, victim: Machine, fault: str) -> None:
    arena.losses += 1
    arena.retire(victim)
    arena.note(fault, f"{victim.address} is lost for good", of=[victim], is_lasting=True)


async def _newcomer(arena: Arena) -> Machine | None:
    """Return a fresh machine that has become a member; None if there are many, or it has yet to come through."""
    if len(arena.machines) >= MACHINES_MAX or not arena.are_all_members():
        return None
    newcomer = arena.add_machine()
    deadline = asyncio.get_running_loop().time() + JOIN_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        if newcomer.member is not None:
            return newcomer
        await asyncio.sleep(_POLL_S)
    return None
