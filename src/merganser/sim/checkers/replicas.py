"""What must be true of the replicas once everything is well again.

- Convergence: all replicas of a key hold the same bytes.
- Membership: every node believes every other alive.
- No strays: a node holds rows only of tables that exist and of partitions that are its own.
- No hints: whoever has hints for another has handed them over.
- One map: no two nodes know different maps of one epoch, and in the end all know the newest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from merganser.core.admission import AdmissionLimits
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Table
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leadership import Group
from merganser.model.load import Load
from merganser.storage import keys


class NodeState(msgspec.Struct, frozen=True):
    """What one node knows and holds in the end."""

    node: NodeId
    map: ClusterMap
    rows: dict[bytes, bytes]
    """Of all tables."""
    hints: int = 0
    """Kept for others."""
    local: frozenset[bytes] = frozenset()
    """The entries of local indexes."""
    trees: dict[tuple[TableId, PartitionId], bytes] = {}
    """Each hash tree that is ready, packed; every partition that the node holds should have one."""
    doubted: frozenset[NodeId] = frozenset()
    """The nodes it does not believe alive."""
    leading: frozenset[Group] = frozenset()
    """The groups that it leads."""
    load: Load | None = None
    """In its present life."""
    limits: AdmissionLimits = AdmissionLimits()
    tags: frozenset[bytes] = frozenset()
    """The entries of its index of tags."""
    times: dict[bytes, int] = {}
    """When registers expire, of those partitions whose index of times claims to be whole."""
    indexed_times: dict[bytes, tuple[int, ...]] = {}
    """What the index says of these."""


def replicas_that_differ(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each key that its replicas hold differently."""
    newest = max((state.map for state in states), key=lambda current: current.epoch)
    ring, tables = Ring(newest), {table.id: table for table in newest.tables}
    for key in sorted({key for state in states for key in state.rows}):
        table = tables.get(keys.table_in(key))
        if table is None:
            continue
        replicas = _replicas(ring, table, key)
        held = {state.rows.get(key) for state in states if state.node in replicas}
        if len(held) > 1:
            yield f"the replicas of {key!r} did not converge"


def members_not_believed_alive(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each node that another does not believe alive."""
    for state in states:
        for node in sorted(state.doubted):
            yield f"node {state.node} does not believe that {node} is alive, though it is"


def rows_out_of_place(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each row of a table that is gone or of a partition that is another's."""
    for state in states:
        ring, tables = Ring(state.map), {table.id: table for table in state.map.tables}
        for key in state.rows:
            table = tables.get(keys.table_in(key))
            if table is None:
                yield f"{state.node} keeps {key!r} of table {keys.table_in(key)}, which is gone"
            elif state.node not in _replicas(ring, table, key):
                yield f"{state.node} keeps {key!r} and is no replica of it"


def hints_that_stay(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each node that still has hints for others."""
    for state in states:
        if state.hints:
            yield f"{state.node} still has {state.hints} hints though all is well"


def maps_that_differ(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each node whose map is not the one of the others."""
    first, *others = states
    for state in others:
        if state.map.epoch == first.map.epoch and state.map != first.map:
            yield f"{state.node} and {first.node} know different maps of epoch {state.map.epoch}"
        elif state.map.epoch != first.map.epoch:
            yield f"{state.node} is at epoch {state.map.epoch} and {first.node} at {first.map.epoch}"


def replicas_of(key: bytes, states: Sequence[NodeState]) -> tuple[NodeId, ...]:
    """Return who keeps ``key`` by the newest map; nobody if its table is gone."""
    newest = max((state.map for state in states), key=lambda current: current.epoch)
    table = next((table for table in newest.tables if table.id == keys.table_in(key)), None)
    return () if table is None else _replicas(Ring(newest), table, key)


def keepers_of(key: bytes, states: Sequence[NodeState]) -> set[NodeId]:
    """Return who may keep ``key``, be it as a hint, by the newest map; nobody if its table is gone."""
    newest = max((state.map for state in states), key=lambda current: current.epoch)
    table = next((table for table in newest.tables if table.id == keys.table_in(key)), None)
    ring = Ring(newest)
    return set() if table is None else {node.id for node in newest.nodes if ring.allows(node, table.rule)}


def _replicas(ring: Ring, table: Table, key: bytes) -> tuple[NodeId, ...]:
    return ring.preference_list(ring.partition_of(keys.token_in(key)), table.rule)
