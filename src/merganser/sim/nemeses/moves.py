"""Moves: an operator has partitions change hands while clients work, and sometimes thinks better of it.

No fault by itself; what is promised holds all the same, whatever else happens meanwhile. An operation goes on after the
one who asked for it has lost patience, and the next waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from merganser.core import reshaping
from merganser.core.index_tables import is_index
from merganser.model.cluster import SYSTEM_WIRE, ClusterMap, Table
from merganser.model.errors import MerganserError, RequestError
from merganser.model.policy import Policy
from merganser.service.member import Member
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.nemeses.arena import Arena

PATIENCE_S = 5.0
PARTITIONS_MAX = 64
_WEIGHTS = (0.0, 0.5, 1.0, 1.0, 2.0)
_SHARES = (0.5, 1.0, 2.0)
_EVERYWHERE = 0.3
_IN_CENTER = 0.7
_REPLICAS_MIN, _REPLICAS_MAX = 2, 5

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


async def policies(arena: Arena) -> None:
    """Give the table that clients use another policy: other numbers of replicas, in other places."""
    await operate(arena, "policies", lambda current, name: _other_policy(current, name, _drawn_policy(arena, current)))


async def zones_of_tables(arena: Arena) -> None:
    """Have the table that clients use live in other zones, and as many replicas of it in each data centre."""
    await operate(arena, "zones of tables", lambda now, name: _other_policy(now, name, _drawn_zones(arena, now)))


async def policies_cancelled(arena: Arena) -> None:
    """Begin to change a policy, and cancel it."""
    began = await operate(
        arena,
        "policies, and a change of mind",
        lambda current, name: _other_policy(current, name, _drawn_policy(arena, current)),
    )
    await arena.pass_time()
    if began is not None:
        await change(arena, lambda newest: reshaping.cancelled(newest, began))


async def operate(arena: Arena, fault: str, planning: Planning) -> str | None:
    """Begin an operation, through any node that is up; returns its id if it may have begun."""
    name = f"{arena.rng.getrandbits(64):016x}"

    def begin(newest: ClusterMap) -> ClusterMap:
        plan = planning(newest, name)
        return reshaping.begun(newest, plan.operation, plan.weights)

    changed = await change(arena, begin)
    if changed is None or changed.operation is None:
        return None
    if changed.operation.kind != "split":
        arena.has_other_members = True
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


def _other_policy(current: ClusterMap, name: str, policy: Policy) -> reshaping.Plan:
    table = _clients_table(current)
    return reshaping.planned_policy(current, table.id, policy, operation_id=name, now_us=EPOCH_US)


def _clients_table(current: ClusterMap) -> Table:
    found = (table for table in current.tables if table.wire != SYSTEM_WIRE and not is_index(table))
    table = next(found, None)
    if table is None:
        raise RequestError("there is no table")
    return table


def _drawn_policy(arena: Arena, current: ClusterMap) -> Policy:
    """Draw how many replicas there are to be, at least two, and where."""
    rng, owning = arena.rng, [node for node in current.nodes if node.number in current.owners]
    zones = sorted({node.zone for node in owning})
    allowed = () if rng.random() < _EVERYWHERE else tuple(sorted(rng.sample(zones, rng.randint(1, len(zones)))))
    there = [node for node in owning if not allowed or node.zone in allowed]
    if len(there) < _REPLICAS_MIN:
        allowed, there = (), owning
    centers = Counter(node.data_center for node in there)
    if len(centers) == 1:
        return Policy(rng.randint(_REPLICAS_MIN, _REPLICAS_MAX), zones=allowed)
    counts = {name: rng.randint(1, there) for name, there in sorted(centers.items()) if rng.random() < _IN_CENTER}
    if sum(counts.values()) < _REPLICAS_MIN:
        counts = dict(sorted(centers.items()))
    return Policy(sum(counts.values()), replicas=tuple(counts.items()), zones=allowed)


def _drawn_zones(arena: Arena, current: ClusterMap) -> Policy:
    """Draw zones with room for as many replicas in each data centre as there are."""
    policy = current.policy_of(_clients_table(current))
    zones = sorted({node.zone for node in current.nodes})
    most = max((count for _, count in policy.replicas), default=policy.n)
    allowed = arena.rng.sample(zones, min(len(zones), arena.rng.randint(most, max(most, len(zones)))))
    return msgspec.structs.replace(policy, zones=() if len(allowed) == len(zones) else tuple(sorted(allowed)))


def _cut(current: ClusterMap, name: str) -> reshaping.Plan:
    if current.partitions >= PARTITIONS_MAX:
        raise RequestError("the ring is cut finely enough for a simulation")
    return reshaping.planned(current, "split", operation_id=name, now_us=EPOCH_US)


def _other_zones(arena: Arena, current: ClusterMap, name: str) -> reshaping.Plan:
    names = sorted({node.zone for node in current.nodes} | {"zone-0", "zone-1"})
    drawn = {node.id: arena.rng.choice(names) for node in current.nodes}
    return reshaping.planned(current, "zones", operation_id=name, now_us=EPOCH_US, zones=drawn)
