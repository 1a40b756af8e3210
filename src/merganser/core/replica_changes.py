"""How many partitions get other replicas by an operation: what is told of those that may leave every owner as it is.

A change of zones, or of a table's policy, is known by its end as all operations are. The map at that end is compared
with the map of now, so whoever asks on the way needs nothing that was known when it began.
"""

from __future__ import annotations

import msgspec

from merganser.core import planner, policy_changes
from merganser.core.ring import Ring, settled
from merganser.model.cluster import ClusterMap, Move, Operation, Pending
from merganser.model.ids import PartitionId


def is_counted(operation: Operation) -> bool:
    """Tell whether an operation is counted by replicas that change, and not by owners that do."""
    return operation.policy is not None or bool(operation.zones)


def left(cluster_map: ClusterMap, operation: Operation) -> int:
    """Return how many partitions have yet to change their owner, or the replicas of any table; two walks of the ring.

    What is pending has not changed yet.
    """
    now = msgspec.structs.replace(cluster_map, operation=operation, pending=None, settling=())
    end = _at_end(now, operation)
    ring, ring_at_end = Ring(now), Ring(end)
    rules = {table.id: table.rule for table in end.tables}
    pairs = {(planner.REPLICAS, planner.REPLICAS), *((table.rule, rules[table.id]) for table in now.tables)}
    return sum(
        now.owners[partition] != end.owners[partition]
        or any(
            set(ring.preference_list(partition, rule)) != set(ring_at_end.preference_list(partition, rule_at_end))
            for rule, rule_at_end in pairs
        )
        for partition in map(PartitionId, range(now.partitions))
    )


def _at_end(now: ClusterMap, operation: Operation) -> ClusterMap:
    begun = policy_changes.forked(now)
    changing = policy_changes.pending(begun)
    return settled(
        msgspec.structs.replace(
            begun,
            pending=Pending(
                moves=tuple(Move(PartitionId(at), owner) for at, owner in enumerate(operation.owners)),
                zones=operation.zones,
                policies=() if changing is None else changing.policies,
            ),
        )
    )
