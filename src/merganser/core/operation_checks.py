"""What speaks against an operation that is planned (`core.reshaping.planned`), before anything is begun.

Objections hold it back unless the operator insists; what is said besides only tells what it will wait for, or risk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from merganser.core import planner, policies, policy_changes, reshaping, snapshots
from merganser.core.index_tables import is_index
from merganser.core.leadership import majority
from merganser.core.reshaping import Plan
from merganser.model.cluster import SYSTEM_WIRE, ClusterMap, NodeRecord, Operation, Table
from merganser.model.errors import RequestError
from merganser.model.ids import NodeId

_NAMED_MAX = 8


class Verdict(msgspec.Struct, frozen=True):
    """What speaks against it, in words."""

    objections: tuple[str, ...] = ()
    """Not to be begun, unless the operator insists."""
    warnings: tuple[str, ...] = ()


def member_named(cluster_map: ClusterMap, name: str) -> NodeId:
    """Return the member that an operator calls ``name``: its id, its number, or an address of it.

    Raises:
        RequestError: none, or more than one; says who there is.
    """
    known = [
        node.id
        for node in cluster_map.nodes
        if name in (node.id, str(node.number), node.peer_address, *node.wire_addresses.values())
    ]
    if len(known) == 1:
        return known[0]
    there = ", ".join(f"{node.number} ({node.peer_address})" for node in cluster_map.nodes[:_NAMED_MAX])
    if known:
        raise RequestError(
            f"{len(known)} nodes are called {name!r}: name one by its id, or its number; there are {there}"
        )
    raise RequestError(
        f"no node {name!r} is a member of this cluster: name one by its id, its number, or its peer or admin address; "
        f"there are {there}"
    )


def table_named(cluster_map: ClusterMap, name: str, *, wire: str = "") -> Table:
    """Return the table that clients know as ``name``, through ``wire`` if that is said.

    Raises:
        RequestError: there is none, or there are several.
    """
    known = [
        table
        for table in cluster_map.tables
        if table.name == name and wire in ("", table.wire) and table.wire != SYSTEM_WIRE
        if not is_index(table) and not snapshots.is_hidden(table)
    ]
    if not known:
        raise RequestError(f"no table is called {name!r:.80}")
    if len(known) > 1:
        there = ", ".join(table.wire for table in known)
        raise RequestError(f"{len(known)} tables are called {name!r:.80}: say of which front door, {there}")
    return known[0]


def has_its_share(cluster_map: ClusterMap, node: NodeRecord) -> bool:
    """Tell whether a node owns what its weight says already, less than one partition short.

    It does not where an operation was cancelled on the way.
    """
    weights = sum(other.weight for other in cluster_map.nodes)
    share = cluster_map.partitions * node.weight / weights if weights > 0 else 0.0
    return node.weight > 0 and cluster_map.owners.count(node.number) + 1 > share


def judged(cluster_map: ClusterMap, plan: Plan, alive: Collection[NodeId]) -> Verdict:
    """Tell what speaks against ``plan``, made for ``cluster_map``, if just the nodes of ``alive`` answer."""
    operation = plan.operation
    by_number = {node.number: node for node in cluster_map.nodes}
    gone = [by_number[number] for number in operation.gone]
    objections: list[str] = []
    if operation.kind in ("remove", "replace"):
        objections += [
            f"node {_told(node)} is alive, and what only it holds would be lost: have it leave instead"
            for node in gone
            if node.id in alive
        ]
    else:
        objections += [
            f"node {_told(node)} is away, and cannot hand over what it holds: start it, or remove or replace it"
            for node in gone
            if node.id not in alive
        ]
    coming = [] if operation.kind == "split" else _newly_owning(cluster_map, plan)
    objections += [
        f"node {_told(node)} is away, and cannot be given anything: start it first"
        for node in coming
        if node.id not in alive
    ]
    if operation.policy is not None:
        objections += _away(cluster_map, operation, alive)
        objections += policies.short_of(cluster_map, operation.policy)
    objections += _too_few_replicas(cluster_map, plan)
    objections += _too_few_voters(cluster_map, plan, alive)
    return Verdict(tuple(objections), tuple(_warnings(cluster_map, plan, alive)))


def _newly_owning(cluster_map: ClusterMap, plan: Plan) -> Sequence[NodeRecord]:
    more = {node for node, (before, after) in plan.owned.items() if after > before}
    return [node for node in cluster_map.nodes if node.id in more]


def _away(cluster_map: ClusterMap, operation: Operation, alive: Collection[NodeId]) -> list[str]:
    """Object to nodes that are away, and have to give or to be given what changes with a policy."""
    begun = policy_changes.forked(msgspec.structs.replace(cluster_map, operation=operation))
    coming = msgspec.structs.replace(begun, pending=policy_changes.pending(begun))
    records = {node.id: node for node in cluster_map.nodes}
    away = [node for node in reshaping.reshaped(coming).concerned if node not in alive]
    return [f"node {_told(records[node])} is away, and has to take part: start it first" for node in away[:_NAMED_MAX]]


def _too_few_replicas(cluster_map: ClusterMap, plan: Plan) -> list[str]:
    """Object if tables would have fewer replicas than they want, and have now."""
    tables = [table for table in cluster_map.tables if not is_index(table)]
    return list(policies.lost_by(cluster_map, tables, plan.operation))[:_NAMED_MAX]


def _too_few_voters(cluster_map: ClusterMap, plan: Plan, alive: Collection[NodeId]) -> list[str]:
    """Object if the cluster map could not be changed, now or once those who are gone vote no more."""
    nodes = {node.number: node.id for node in cluster_map.nodes}
    voting = sum(nodes[number] in alive for number in cluster_map.voters)
    needed = majority(len(cluster_map.voters))
    if voting < needed:
        return [
            f"{voting} of the {len(cluster_map.voters)} voters of the cluster map answer, and {needed} are needed: "
            "start the others first"
        ]
    staying = [number for number in cluster_map.voters if number not in plan.operation.gone]
    answering = sum(nodes[number] in alive for number in staying)
    if staying and answering < majority(len(staying)):
        return [
            f"{answering} of the {len(staying)} voters that stay answer, and {majority(len(staying))} would be needed: "
            "start the others first"
        ]
    return []


def _warnings(cluster_map: ClusterMap, plan: Plan, alive: Collection[NodeId]) -> list[str]:
    gone = plan.operation.gone
    away = [node for node in cluster_map.nodes if node.id not in alive and node.number not in gone]
    found = [f"node {_told(node)} is away: what it holds may have to wait for it" for node in away]
    zones = {node.domain for node in cluster_map.nodes}
    wanted = dict(plan.operation.zones)
    owning = set(plan.operation.owners)
    left = {
        (node.data_center, wanted.get(node.number, node.zone)) for node in cluster_map.nodes if node.number in owning
    }
    if len(left) < min(len(zones), planner.REPLICAS):
        found.append(f"{len(left)} zones would be left: a zone that fails takes more than one replica of a key along")
    return found[:_NAMED_MAX]


def _told(node: NodeRecord) -> str:
    return f"{node.number} ({node.peer_address})"
