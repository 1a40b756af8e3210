"""What a snapshot of a cluster has to hold, and how its tables come into another cluster. Pure.

**Enough copies.** A write that was acknowledged sits on a majority of the replicas of its partition. So if the
checkpoints of a majority of each partition's replicas are there, each taken after the write was acknowledged, one of
them holds it, and their merge does. Replicas are those that serve; newcomers, to which a partition is moving, do not
count: a write that is acknowledged while it moves sits on a majority of those who serve as well. The cluster map is
held to the same rule: of its voters a majority has to be there, as a change of it is reported once a majority has
learned it.

**One ring.** Which replicas are those of a partition is read from the map, so all checkpoints must have been taken
under maps that say the same of that.

**Hidden tables.** A table that is being restored has a name that no client can say, and so no writer but the restore.
It gets its own name when everything is in it, all tables of the snapshot in one change of the map::

    absent --made--> hidden, being filled --revealed--> a table like any other

Source: docs/internals/snapshots.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from merganser.core import cluster_map
from merganser.core.index_tables import is_index
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import TableExistsError, TableNotFoundError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.policy import Policy

HIDDEN = "restoring/"
"""No wire lets a client name a table so: DynamoDB's takes no slash, that of keys and values refuses just this."""


def majority(replicas: int) -> int:
    """Return how many of ``replicas`` are more than half."""
    return replicas // 2 + 1


def newest(maps: Iterable[ClusterMap]) -> ClusterMap:
    """Return the map of the highest epoch; there is at least one."""
    return max(maps, key=lambda one: one.epoch)


def are_of_one_ring(maps: Sequence[ClusterMap]) -> bool:
    """Tell whether all of ``maps`` name the same owners, and failure domains, of the same partitions, and the same
    policies of tables, as far as they have the same tables.
    """
    if len({(one.cluster_id, one.partitions, one.owners, _domains(one)) for one in maps}) > 1:
        return False
    policies: dict[TableId, Policy] = {}
    return all(
        policies.setdefault(table.id, policy := one.policy_of(table)) == policy for one in maps for table in one.tables
    )


def short_of_replicas(current: ClusterMap, there: Collection[NodeId]) -> list[tuple[Table, int]]:
    """Return the tables that lack a majority of the replicas of some partitions, and of how many."""
    ring = Ring(current)
    lacking: dict[int, int] = {}
    for rule in {table.rule for table in current.tables}:
        lists = [ring.holders(PartitionId(partition), rule).serving for partition in range(current.partitions)]
        lacking[rule] = sum(sum(node in there for node in nodes) < majority(len(nodes)) for nodes in lists)
    return [(table, lacking[table.rule]) for table in current.tables if lacking[table.rule]]


def lacks_voters(current: ClusterMap, there: Collection[NodeId]) -> bool:
    """Tell whether fewer than a majority of the voters are ``there``: then a table may be missing."""
    present = sum(node.number in current.voters and node.id in there for node in current.nodes)
    return present < majority(len(current.voters))


def clients_tables(current: ClusterMap, *, systems: Collection[str]) -> list[Table]:
    """Return the tables that clients have made; entries of indexes and tables of the ``systems`` wires are none."""
    return [
        table for table in current.tables if table.wire not in systems and not is_index(table) and not is_hidden(table)
    ]


def hidden_name(snapshot: str, name: str) -> str:
    """Return what the table ``name`` is called while it is restored from the snapshot with that checksum."""
    return f"{HIDDEN}{snapshot[:16]}/{name}"


def is_hidden(table: Table) -> bool:
    """Tell whether a table is being restored, and no client can see it."""
    return table.name.startswith(HIDDEN)


def with_revealed(current: ClusterMap, *, names: dict[TableId, str]) -> ClusterMap:
    """Return ``current`` with hidden tables under their own names, or itself if all are.

    Raises:
        TableNotFoundError: one of them is gone.
        TableExistsError: another table has taken such a name.
    """
    known = {table.id: table for table in current.tables}
    left = {}
    for table_id, name in names.items():
        table = known.get(table_id)
        if table is None:
            raise TableNotFoundError(f"the table that was to become {name!r} was dropped meanwhile")
        other = cluster_map.table_named(current, table.wire, name)
        if other is not None and other.id != table_id:
            raise TableExistsError(f"a table {name!r} was made meanwhile: drop it, or restore under another name")
        if is_hidden(table):
            left[table_id] = msgspec.structs.replace(table, name=name)
    if not left:
        return current
    tables = tuple(left.get(table.id, table) for table in current.tables)
    return msgspec.structs.replace(current, tables=tables, epoch=current.epoch + 1)


def _domains(current: ClusterMap) -> tuple[tuple[int, NodeId, str, str, str], ...]:
    return tuple((node.number, node.id, *node.domain, node.fate) for node in current.nodes)
