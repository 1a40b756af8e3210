"""Cut the ring finer, Q to 2Q, in one change of the cluster map; nothing moves, and no key is written anew.

Keys lie in the order of their tokens, so partition p becomes 2p and 2p + 1, and both halves have the owner of p. A walk
from either meets the same nodes in the same order as one from p did (`core.ring`): who holds a key stays as it is, and
so does each preference list. What changes is the number by which a key's partition is known, and with it everything
that nodes keep and say by partition: each node divides what it keeps in the very step in which it takes the new map
(`service.topology.Topology.when_split`), and nobody takes what is said by a map of before (`ClusterMap.placed`).

Of a partition with leaders both halves inherit the promises that its replicas have made. So whoever led it leads
neither: each half has a leader again in a later epoch.

::

    operation: owners of the end, 2Q of them --nothing speaks against it--> Q is 2Q, placed --> ended

Source: DeCandia 2007 §6.2, strategy 3: Q, and with it how finely the load can be shared out, need not be for ever.
"""

from __future__ import annotations

import msgspec

from merganser.core.cluster_map import check_spoken
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RequestError
from merganser.model.ids import PartitionId
from merganser.model.versions import SPLITS_SINCE

PARTITIONS_MAX = 16_384
"""Every partition of a table costs a node that holds it a hash tree (8 KiB), and a leader: more than that would cost
more than finer shares are worth. The owners of so many take 48 KiB of the map."""
_FACTOR = 2


def owners_after(cluster_map: ClusterMap) -> tuple[int, ...]:
    """Return who is to own each half.

    Raises:
        RequestError: there are as many partitions as there may be.
        UnavailableError: a member does not speak the version that brought this.
    """
    if cluster_map.partitions * _FACTOR > PARTITIONS_MAX:
        raise RequestError(f"the ring has {cluster_map.partitions} partitions, and may have {PARTITIONS_MAX} at most")
    check_spoken(cluster_map, SPLITS_SINCE, what="finer rings")
    return tuple(owner for owner in cluster_map.owners for _ in range(_FACTOR))


def is_due(cluster_map: ClusterMap) -> bool:
    """Tell whether the operation under way is to cut the ring, and has yet to."""
    operation = cluster_map.operation
    return operation is not None and len(operation.owners) != cluster_map.partitions


def objection(cluster_map: ClusterMap) -> str:
    """Tell what has to end before the ring is cut, "" if nothing has to.

    Whoever goes through all partitions by their numbers, and notes how far it is, would leave some out.
    """
    if cluster_map.pending is not None or cluster_map.settling:
        return "partitions are on their way to other nodes"
    for table in cluster_map.tables:
        for index in table.indexes:
            if index.state == "creating":
                return f"index {index.name} of table {table.name} is being filled"
    return ""


def split(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` with a ring of twice as many partitions, if that is due and nothing speaks against it."""
    operation = cluster_map.operation
    if operation is None or not is_due(cluster_map) or objection(cluster_map):
        return cluster_map
    epoch = cluster_map.epoch + 1
    return msgspec.structs.replace(
        cluster_map,
        epoch=epoch,
        placed=epoch,
        partitions=cluster_map.partitions * _FACTOR,
        owners=owners_after(cluster_map),
        splits=cluster_map.splits + 1,
    )


def halves(partition: PartitionId, factor: int) -> list[PartitionId]:
    """Return what becomes of a partition when there are ``factor`` times as many; several splits may come at once."""
    return [PartitionId(partition * factor + at) for at in range(factor)]
