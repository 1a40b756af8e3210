"""Changes of the cluster map that change who is a member and who holds what, one step after another.

::

    member added (weight 0: it owns nothing) --begun--> operation: the owners, zones and members of the end are known
        --step--> pending: some partitions have newcomers --flipped--> settling --settled--> step, ..., ended

Each step is a map of its own; who drives them (`service.rebalancer`) keeps nothing in mind, so that anybody goes on
where somebody stopped. While a step is pending, quorums are joint (`core.ring`); it is flipped once all who come hold
everything. An operation that is cancelled leaves what has been flipped as it is; who was to be given something, and
owns nothing yet, is without a weight again, so that no later operation gives it a share that nobody asked for.

Like all changes of the map, these return the very map they were given when they are made already.

Source: design §3; Ongaro 2014, §4.1 (voters change by one) and §4.3 (joint consensus); DeCandia 2007 §6.2 (strategy 3).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from merganser.core import ledgers, planner, policies, policy_changes, replica_changes, splitting
from merganser.core.cluster_map import check_spoken, check_version, node_by_id
from merganser.core.map_flaws import NUMBER_MAX, VOTERS_MAX
from merganser.core.placement import data_centers_in_turn
from merganser.core.ring import Ring, settled
from merganser.model.cluster import ClusterMap, Move, NodeRecord, Operation, OperationKind, Pending
from merganser.model.errors import RequestError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.policy import Policy
from merganser.model.versions import MOVES_SINCE, POLICIES_SINCE

MOVES_AT_ONCE = 32
"""Partitions that change their owner in one step: of a ring of 256, four nodes' worth of a step in eight."""
_NAMED_MAX = 8
_GIVES_WEIGHTS: frozenset[OperationKind] = frozenset({"join", "weights", "replace"})


def with_member(cluster_map: ClusterMap, record: NodeRecord) -> ClusterMap:
    """Return ``cluster_map`` with one member more, which owns nothing; its number and weight are not looked at.

    Raises:
        RequestError: another member has its address.
        VersionError, UnavailableError: it speaks less than the cluster uses, or a member does not know of newcomers.
    """
    if node_by_id(cluster_map, record.id) is not None:
        return cluster_map
    for node in cluster_map.nodes:
        if node.peer_address == record.peer_address:
            raise RequestError(
                f"node {node.id} is a member at {record.peer_address} already: start this one at another address, or "
                "have the other one removed"
            )
    check_version(cluster_map.version, newest=record.speaks)
    check_spoken(cluster_map, MOVES_SINCE, what="new members")
    if record.data_center:
        check_spoken(cluster_map, POLICIES_SINCE, what="members in data centres")
    number = cluster_map.next_number or max(node.number for node in cluster_map.nodes) + 1
    if number > NUMBER_MAX:
        raise RequestError("this cluster has had all the members that can be numbered")
    member = msgspec.structs.replace(record, number=number, weight=0.0)
    return msgspec.structs.replace(
        cluster_map, epoch=cluster_map.epoch + 1, nodes=(*cluster_map.nodes, member), next_number=number + 1
    )


def begun(cluster_map: ClusterMap, operation: Operation, weights: Mapping[int, float]) -> ClusterMap:
    """Return ``cluster_map`` with ``operation`` under way, and nodes of other ``weights``.

    Raises:
        RequestError: another one is under way, or it was planned for another map.
        UnavailableError: a member does not speak the version that brought this.
    """
    if cluster_map.operation is not None:
        if cluster_map.operation.id == operation.id:
            return cluster_map
        raise RequestError(
            f"another operation is under way: {cluster_map.operation.told}; wait for its end, or cancel it"
        )
    check_spoken(cluster_map, MOVES_SINCE, what="changes of who holds what")
    numbers = {node.number for node in cluster_map.nodes}
    named = {*operation.owners, *operation.gone, *(number for number, _ in operation.zones), *weights}
    if operation.kind == "split":
        is_same = operation.owners == splitting.owners_after(cluster_map)
    else:
        is_same = len(operation.owners) == cluster_map.partitions
    if not named <= numbers or not is_same:
        raise RequestError("the cluster has changed since this was planned: plan it again")
    policies.check_left(cluster_map, operation)
    if operation.policy is not None:
        check_spoken(cluster_map, POLICIES_SINCE, what="changes of policies")
        policy_changes.check(cluster_map, operation.table, operation.policy)
    nodes = tuple(
        msgspec.structs.replace(node, weight=weights[node.number]) if node.number in weights else node
        for node in cluster_map.nodes
    )
    return msgspec.structs.replace(cluster_map, epoch=cluster_map.epoch + 1, nodes=nodes, operation=operation)


def cancelled(cluster_map: ClusterMap, operation: str) -> ClusterMap:
    """Return ``cluster_map`` without the operation of that id; what is pending is given up, what was flipped stays."""
    given_up = cluster_map.operation
    if given_up is None or given_up.id != operation:
        return cluster_map
    unserved = set(given_up.owners) - set(cluster_map.owners) if given_up.kind in _GIVES_WEIGHTS else ()
    nodes = tuple(
        msgspec.structs.replace(node, weight=0.0) if node.number in unserved else node for node in cluster_map.nodes
    )
    return msgspec.structs.replace(reverted(cluster_map), operation=None, epoch=cluster_map.epoch + 1, nodes=nodes)


def reverted(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` with nothing pending: those who came hold nothing any more."""
    if cluster_map.pending is None:
        return cluster_map
    epoch = cluster_map.epoch + 1
    return msgspec.structs.replace(cluster_map, epoch=epoch, placed=epoch, pending=None)


def given_up(cluster_map: ClusterMap, placed: int) -> ClusterMap:
    """Return ``cluster_map`` without what is pending since ``placed``; the operation goes on with it later."""
    return reverted(cluster_map) if cluster_map.placed == placed else cluster_map


def next_pending(cluster_map: ClusterMap, *, at_once: int = MOVES_AT_ONCE) -> Pending | None:
    """Return what the operation under way is to change next; None if nobody is to hold anything else any more.

    A policy by itself (`core.policy_changes`). Owners first, some partitions apart, so that few preference lists get
    two newcomers at a time; then the zones, one node after the other. A node that is lost for good never becomes a
    newcomer on the way: where zones would have it so, all that is left moves in one step, after which it owns nothing
    and is on no list.
    """
    operation = cluster_map.operation
    if operation is None or splitting.is_due(cluster_map):
        return None
    if operation.policy is not None:
        return policy_changes.pending(cluster_map)
    apart = max([planner.REPLICAS, *(table.n for table in cluster_map.tables)])
    moves: list[Move] = []
    for partition, (owner, wanted) in enumerate(zip(cluster_map.owners, operation.owners, strict=True)):
        is_near = moves and partition < moves[-1].partition + apart
        if owner != wanted and not is_near and len(moves) < at_once:
            moves.append(Move(PartitionId(partition), wanted))
    lost = _lost(cluster_map, operation)
    if moves and lost and lost & set(newcomers(msgspec.structs.replace(cluster_map, pending=Pending(tuple(moves))))):
        pairs = zip(cluster_map.owners, operation.owners, strict=True)
        moves = [Move(PartitionId(p), wanted) for p, (owner, wanted) in enumerate(pairs) if owner != wanted]
    if moves:
        return Pending(tuple(moves))
    zones = {node.number: node.zone for node in cluster_map.nodes}
    for number, zone in operation.zones:
        if zones.get(number, zone) != zone:
            return Pending(zones=((number, zone),))
    return None


def _lost(cluster_map: ClusterMap, operation: Operation) -> set[NodeId]:
    return {node.id for node in cluster_map.nodes if node.number in operation.lost}


def with_pending(cluster_map: ClusterMap, pending: Pending) -> ClusterMap:
    """Return ``cluster_map`` with ``pending`` to come, unless something else is, or is settling."""
    if cluster_map.pending is not None or cluster_map.settling or cluster_map.operation is None:
        return cluster_map
    epoch = cluster_map.epoch + 1
    return msgspec.structs.replace(cluster_map, epoch=epoch, placed=epoch, pending=pending)


def flipped(cluster_map: ClusterMap, placed: int) -> ClusterMap:
    """Return ``cluster_map`` with what is pending since ``placed`` done."""
    if cluster_map.pending is None or cluster_map.placed != placed:
        return cluster_map
    epoch = cluster_map.epoch + 1
    settling = tuple(changed(cluster_map))
    after = msgspec.structs.replace(settled(cluster_map), epoch=epoch, placed=epoch, settling=settling)
    return ledgers.noted(cluster_map, after) if cluster_map.pending.policies else after


class Reshaped(NamedTuple):
    """What a step changes."""

    partitions: list[PartitionId]
    """Whose replicas are others, for the N of any table, once it is done."""
    newcomers: list[NodeId]
    """Who is to hold something that it does not hold yet."""
    concerned: list[NodeId]
    """Who holds, or is to hold, what changes, and is not lost for ever; in the order of the map."""


def reshaped(cluster_map: ClusterMap) -> Reshaped:
    """Return what is changed by what is pending; it takes a walk along the whole ring."""
    ring, known = Ring(cluster_map), rules(cluster_map)
    partitions, newcomers, members = list[PartitionId](), dict[NodeId, None](), dict[NodeId, None]()
    for partition in map(PartitionId, range(cluster_map.partitions)):
        changing = [holders for rule in known if (holders := ring.holders(partition, rule)).extra]
        if changing:
            partitions.append(partition)
        for holders in changing:
            newcomers.update(dict.fromkeys(holders.newcomers))
            members.update(dict.fromkeys(holders.members))
    lost = cluster_map.operation.lost if cluster_map.operation is not None else ()
    concerned = [node.id for node in cluster_map.nodes if node.id in members and node.number not in lost]
    return Reshaped(partitions, list(newcomers), concerned)


def changed(cluster_map: ClusterMap) -> list[PartitionId]:
    """Return the partitions whose replicas are others once what is pending is done."""
    return reshaped(cluster_map).partitions


def newcomers(cluster_map: ClusterMap) -> list[NodeId]:
    """Return the nodes that hold something by what is pending that they do not hold without it."""
    return reshaped(cluster_map).newcomers


def rules(cluster_map: ClusterMap) -> Collection[int]:
    """Return the rule of each table, and that of nearly all tables."""
    return {planner.REPLICAS, *(table.rule for table in cluster_map.tables)}


def after_settling(cluster_map: ClusterMap, placed: int) -> ClusterMap:
    """Return ``cluster_map`` with nothing settling: who held what changed at ``placed`` need not keep it."""
    if not cluster_map.settling or cluster_map.placed != placed:
        return cluster_map
    return msgspec.structs.replace(cluster_map, epoch=cluster_map.epoch + 1, settling=())


def with_other_voters(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` with one voter more or less, towards as many as there should be, or itself if they are
    right: up to five members that stay, an odd number of them, those that vote already before others, and of those the
    data centres in turn.

    Two sets of voters that follow each other share a member of any two majorities of theirs.
    """
    gone = cluster_map.operation.gone if cluster_map.operation is not None else ()
    staying = [node for node in cluster_map.nodes if node.number not in gone]
    voting = [node for node in staying if node.number in cluster_map.voters]
    others = [node for node in staying if node.number not in cluster_map.voters]
    best = [node.number for node in (*voting, *data_centers_in_turn(others, before=voting))]
    wanted = best[: min(VOTERS_MAX, len(best) - (len(best) + 1) % 2)]
    voters = cluster_map.voters
    added = [number for number in wanted if number not in voters]
    removed = [number for number in voters if number not in wanted]
    if added and (not removed or len(voters) < VOTERS_MAX):
        voters = (*voters, added[0])
    elif removed:
        voters = tuple(number for number in voters if number != removed[0])
    else:
        return cluster_map
    return msgspec.structs.replace(cluster_map, epoch=cluster_map.epoch + 1, voters=voters)


def ended(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` without the operation that is done, and without the members that are gone by it."""
    operation = cluster_map.operation
    if operation is None or cluster_map.pending or cluster_map.settling or splitting.is_due(cluster_map):
        return cluster_map
    if policy_changes.is_fork_due(cluster_map):
        return cluster_map
    if next_pending(cluster_map) is not None:
        return cluster_map
    if set(operation.gone) & set(cluster_map.voters):
        return cluster_map
    nodes = tuple(node for node in cluster_map.nodes if node.number not in operation.gone)
    last = max(node.number for node in cluster_map.nodes)
    number = max(cluster_map.next_number, last + 1)  # of one that is gone nobody is numbered again
    return msgspec.structs.replace(
        cluster_map, epoch=cluster_map.epoch + 1, nodes=nodes, operation=None, next_number=number
    )


def left_to_move(cluster_map: ClusterMap, operation: Operation) -> int:
    """Return how many partitions have yet to change their owner; or their replicas, if that is what it is about."""
    if replica_changes.is_counted(operation):
        return replica_changes.left(cluster_map, operation)
    return sum(one != other for one, other in zip(cluster_map.owners, operation.owners, strict=True))


def is_done(cluster_map: ClusterMap, operation: Operation) -> bool:
    """Tell whether ``cluster_map`` is what ``operation``, which is not under way any more, was to bring about."""
    nodes = {node.number: node for node in cluster_map.nodes}
    return (
        cluster_map.owners == operation.owners
        and not set(operation.gone) & nodes.keys()
        and all(nodes[number].zone == zone for number, zone in operation.zones if number in nodes)
        and policy_changes.is_done(cluster_map, operation)
    )


# Plans


class Plan(msgspec.Struct, frozen=True):
    """What an operation would do."""

    operation: Operation
    weights: dict[int, float]
    """Of the nodes that get another one, by number."""
    owned: dict[NodeId, tuple[int, int]]
    """Partitions that each member owns, before and after."""


def planning(
    cluster_map: ClusterMap,
    kind: OperationKind,
    *,
    operation_id: str,
    now_us: int,
    weights: Mapping[NodeId, float] = {},
    gone: Collection[NodeId] = (),
    successor: NodeId | None = None,
    zones: Mapping[NodeId, str] = {},
) -> Generator[None, None, Plan]:
    """Return what comes of an operation on ``cluster_map``, after steps of some milliseconds (`planner.planning`).

    Args:
        cluster_map: the newest one.
        kind: what it is called.
        operation_id: drawn for it.
        now_us: microseconds since 1970.
        weights: new ones, for nodes that join or are to own more or less; 0: nothing.
        gone: nodes that are to be no members any more; those of "remove" and "replace" are not there any more.
        successor: gets what those who are gone own, and nothing else moves ("replace").
        zones: new ones.

    Raises:
        RequestError: there are no such nodes, nobody would be left, or it makes no sense.
    """
    known = {node.id: node for node in cluster_map.nodes}
    named = [*weights, *gone, *zones, *([] if successor is None else [successor])]
    strangers = [node for node in named if node not in known]
    if strangers:
        there = ", ".join(list(known)[:_NAMED_MAX])
        raise RequestError(f"node {strangers[0]} is no member of this cluster; there are {there}")
    for node, weight in weights.items():
        if not 0.0 <= weight <= 1e6:  # NaN is not either
            raise RequestError(f"the weight of node {node} must be 0 to 1,000,000, not {weight}")
    changed_zones = {node: zone for node, zone in zones.items() if known[node].zone != zone}
    new_weights = {known[node].number: weight for node, weight in weights.items()}
    gone_numbers = tuple(known[node].number for node in gone)
    future = [
        msgspec.structs.replace(
            node,
            weight=new_weights.get(node.number, node.weight),
            zone=changed_zones.get(node.id, node.zone),
        )
        for node in cluster_map.nodes
        if node.number not in gone_numbers
    ]
    if kind == "split":
        owners = splitting.owners_after(cluster_map)
    elif successor is not None:
        owners = _succeeded(cluster_map, gone_numbers, known[successor])
        new_weights[known[successor].number] = max(
            (node.weight for node in cluster_map.nodes if node.number in gone_numbers), default=1.0
        )
    elif kind == "zones" and not changed_zones:
        raise RequestError("these nodes are in these zones already")
    else:
        owners = yield from _planned_owners(
            cluster_map, future, moves_for_zones=bool(changed_zones) or kind == "rebalance"
        )
    operation = Operation(
        id=operation_id,
        kind=kind,
        told=f"split {cluster_map.partitions} partitions into {len(owners)}"
        if kind == "split"
        else _told(kind, gone=gone, successor=successor, weights=weights, zones=changed_zones),
        owners=owners,
        zones=tuple((known[node].number, zone) for node, zone in changed_zones.items()),
        gone=gone_numbers,
        lost=gone_numbers if kind in ("remove", "replace") else (),
        began_us=now_us,
    )
    policies.check_left(cluster_map, operation)
    operation = _counted(cluster_map, operation)
    owned = {node.id: (cluster_map.owners.count(node.number), owners.count(node.number)) for node in cluster_map.nodes}
    return Plan(operation, new_weights, owned)


planned = planner.at_once(planning)


def planned_policy(cluster_map: ClusterMap, table: TableId, policy: Policy, *, operation_id: str, now_us: int) -> Plan:
    """Return what comes of giving a table another policy; arguments and errors as `planned`."""
    known = policy_changes.check(cluster_map, table, policy)
    operation = Operation(
        id=operation_id,
        kind="policy",
        told=f"policy of table {known.name}: {cluster_map.policy_of(known)} becomes {policy}",
        owners=cluster_map.owners,
        began_us=now_us,
        table=table,
        policy=policy,
    )
    policies.check_left(cluster_map, operation)
    operation = _counted(cluster_map, operation)
    owned = {node.id: (count := cluster_map.owners.count(node.number), count) for node in cluster_map.nodes}
    return Plan(operation, {}, owned)


def _counted(cluster_map: ClusterMap, operation: Operation) -> Operation:
    if operation.kind == "split":
        return operation
    return msgspec.structs.replace(operation, moves=left_to_move(cluster_map, operation))


def _planned_owners(
    cluster_map: ClusterMap, nodes: Sequence[NodeRecord], *, moves_for_zones: bool
) -> Generator[None, None, tuple[int, ...]]:
    members = [
        planner.Member(node.number, node.weight, "/".join(node.domain), node.machine)
        for node in nodes
        if node.weight > 0
    ]
    if not members:
        raise RequestError("no node would be left to own anything: let others join first, or give one a weight")
    return (
        yield from planner.planning(
            cluster_map.owners, members, moves_for_zones=moves_for_zones, siblings=2**cluster_map.splits
        )
    )


def _succeeded(cluster_map: ClusterMap, gone: Collection[int], successor: NodeRecord) -> tuple[int, ...]:
    if successor.number in cluster_map.owners or successor.number in gone:
        raise RequestError(
            f"node {successor.id} owns partitions already: only a node that has just joined can replace one"
        )
    return tuple(successor.number if owner in gone else owner for owner in cluster_map.owners)


def _told(
    kind: OperationKind,
    *,
    gone: Collection[NodeId],
    successor: NodeId | None,
    weights: Mapping[NodeId, float],
    zones: Mapping[NodeId, str],
) -> str:
    if successor is not None:
        return f"replace {', '.join(gone)} by {successor}"
    if gone:
        return f"{kind} {', '.join(gone)}"
    if zones:
        return "zones " + ", ".join(f"{node}={zone}" for node, zone in zones.items())
    if weights:
        return f"{kind} " + ", ".join(f"{node} (weight {weight:g})" for node, weight in weights.items())
    return kind
