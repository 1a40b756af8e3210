"""What a cluster map may never be: its nodes, owners, voters, moves and tables against one another.

Every map from disk or from a peer is looked at by `core.cluster_map.check` before anyone builds on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from merganser.core import policies
from merganser.core.index_tables import is_index
from merganser.model.cluster import ClusterMap, NodeRecord, Operation, Pending, Table

VOTERS_MAX = 5
"""Two voters may fail; more would make each change slower and survive little more."""
NUMBER_MAX = 2**32 - 1
"""Node numbers and table ids are stored in four bytes."""


def flaws(cluster_map: ClusterMap) -> Iterator[str]:
    """Yield what is wrong with a map, in words; nothing if it keeps every promise of its type."""
    if not cluster_map.cluster_id:
        yield "it has no cluster id"
    if cluster_map.epoch < 1:
        yield "epochs start at 1"
    yield from _flaws_of_nodes(cluster_map.nodes)
    yield from _flaws_of_roles(cluster_map)
    yield from _flaws_of_tables(cluster_map)
    yield from policies.flaws(cluster_map)


def _flaws_of_nodes(nodes: Sequence[NodeRecord]) -> Iterator[str]:
    if not nodes:
        yield "it has no nodes"
    for node in nodes:
        if not 1 <= node.number <= NUMBER_MAX:
            yield f"node {node.id!r} has number {node.number}, outside 1..{NUMBER_MAX}"
        if not node.id:
            yield f"node number {node.number} has no id"
        if not node.peer_address:
            yield f"node {node.id!r} has no peer address"
    yield from _repetitions("node id", (node.id for node in nodes))
    yield from _repetitions("node number", (node.number for node in nodes))
    yield from _repetitions("peer address", (node.peer_address for node in nodes))
    if any(one.number > other.number for one, other in pairwise(nodes)):
        yield "nodes are not in ascending order of number"


def _flaws_of_roles(cluster_map: ClusterMap) -> Iterator[str]:
    partitions, owners, voters = cluster_map.partitions, cluster_map.owners, cluster_map.voters
    if partitions < 1 or partitions & (partitions - 1):
        yield f"{partitions} partitions, which is not a power of two"
    if len(owners) != partitions:
        yield f"{len(owners)} owners for {partitions} partitions"
    numbers = {node.number for node in cluster_map.nodes}
    pending, operation = cluster_map.pending or Pending(), cluster_map.operation
    coming = [move.to for move in pending.moves] if operation is None else [*operation.owners, *operation.gone]
    for role, holders in ("owner", owners), ("voter", voters), ("owner to come", coming):
        strangers = sorted(set(holders) - numbers)
        if strangers:
            yield f"{role} {strangers[0]} is not a member"
    if not 1 <= len(voters) <= VOTERS_MAX:
        yield f"{len(voters)} voters, outside 1..{VOTERS_MAX}"
    yield from _repetitions("voter", voters)
    outside = [p for p in (*(m.partition for m in pending.moves), *cluster_map.settling) if not 0 <= p < partitions]
    if outside:
        yield f"partition {outside[0]} is to move, of {partitions}"
    if operation is not None and len(operation.owners) not in _ends(cluster_map, operation):
        yield f"{len(operation.owners)} owners to come for {partitions} partitions"
    if cluster_map.splits < 0 or partitions % 2**cluster_map.splits:
        yield f"{partitions} partitions, after {cluster_map.splits} splits"
    if not 0 <= cluster_map.placed <= cluster_map.epoch:
        yield f"placed at epoch {cluster_map.placed}, which is to come"


def _ends(cluster_map: ClusterMap, operation: Operation) -> tuple[int, ...]:
    """Return how many partitions there may be in the end."""
    partitions = cluster_map.partitions
    return (partitions, 2 * partitions) if operation.kind == "split" else (partitions,)


def _flaws_of_tables(cluster_map: ClusterMap) -> Iterator[str]:
    tables = cluster_map.tables
    for table in tables:
        if not 1 <= table.id <= NUMBER_MAX:
            yield f"table {table.name!r} has id {table.id}, outside 1..{NUMBER_MAX}"
        if table.id >= cluster_map.next_table_id:
            yield f"table {table.name!r} has id {table.id}, not below the next id {cluster_map.next_table_id}"
        if table.n < 1:
            yield f"table {table.name!r} wants {table.n} replicas"
        if not table.name or not table.unique_id:
            yield f"table {table.id} lacks a name or a unique id"
        if table.has_leaders and table.is_causal:
            yield f"table {table.name!r} has leaders, and keeps {table.conflicts}"
        yield from _flaws_of_indexes(table, tables)
    yield from _repetitions("table name", ((table.wire, table.name) for table in tables))
    if any(one.id >= other.id for one, other in pairwise(tables)):
        yield "tables are not in ascending order of id, each once"
    if cluster_map.next_table_id < 1:
        yield f"the next table id is {cluster_map.next_table_id}"


def _flaws_of_indexes(table: Table, tables: Sequence[Table]) -> Iterator[str]:
    if not table.indexes:
        return
    if not table.has_leaders:
        yield f"table {table.name!r} has indexes, and no leaders"
    of_entries = {known.id for known in tables if is_index(known) and known.rule == table.rule}
    for index in table.indexes:
        if index.table not in of_entries:
            yield f"index {index.name!r} of table {table.name!r} has no table of its own"
    yield from _repetitions(f"index of table {table.name!r}", (index.name for index in table.indexes))


def _repetitions(what: str, names: Iterable[object]) -> Iterator[str]:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name!r} is there twice"
        seen.add(name)
