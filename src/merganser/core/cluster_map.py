"""Changes of the cluster map, each from one map to the next epoch, and questions to it.

A change returns the map it was given, the same object, when it is already made: whoever repeats a
request after an unknown outcome changes nothing twice. A table is known by the unique id that its
first requester drew, so a repeated request is told from a second table of that name.

`check` guards the door: every map from disk or from a peer passes it before anyone builds on it.

Source: design §3; Rystsov 2018 §2.2 (a change is a function of the current value).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from merganser.core import placement, policies
from merganser.core.index_tables import index_named, index_table
from merganser.core.map_flaws import VOTERS_MAX, flaws
from merganser.model import versions
from merganser.model.cluster import (
    KEY_VALUE_WIRE,
    ClusterMap,
    Conflicts,
    Index,
    IndexState,
    NodeRecord,
    Replication,
    Table,
)
from merganser.model.errors import (
    ConfigurationError,
    CorruptionError,
    IndexExistsError,
    TableChangedError,
    TableExistsError,
    TableNotFoundError,
    UnavailableError,
    VersionError,
)
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.model.index import IndexRequest
from merganser.model.policy import Policy

DROPPED_MAX = 128  # a request to create goes on for 5 s at most, and a change takes some 50 ms


def found(cluster_id: ClusterId, nodes: Sequence[NodeRecord], partitions: int = 256) -> ClusterMap:
    """Return the first map of a cluster, epoch 1, every node an owner.

    Args:
        cluster_id: drawn by whoever founds the cluster.
        nodes: the founders; those with number 0 are numbered upwards in order of peer address.
        partitions: Q, a power of two; it can be doubled later (`core.splitting`), and never be less.

    Raises:
        ConfigurationError: the nodes clash with one another, there is none, or Q is not a power of two.
    """
    if not nodes:
        raise ConfigurationError("a cluster needs at least one node")
    members = _numbered(nodes)
    first_map = ClusterMap(
        cluster_id=cluster_id,
        epoch=1,
        partitions=partitions,
        nodes=members,
        owners=placement.spread(members, partitions) if partitions > 0 else (),
        voters=_first_voters(members),
        version=_spoken_by_all(members),
    )
    if first_map.version < versions.POLICIES_SINCE and any(node.data_center for node in members):
        raise ConfigurationError("not every node speaks of data centres: upgrade all, or start without --data-center")
    for flaw in flaws(first_map):
        raise ConfigurationError(f"these nodes cannot found a cluster: {flaw}")
    return first_map


def with_table(
    cluster_map: ClusterMap,
    *,
    name: str,
    wire: str,
    n: int,
    definition: bytes,
    unique_id: str,
    replication: Replication = "leaderless",
    indexes: Sequence[IndexRequest] = (),
    conflicts: Conflicts = "lww",
    policy: Policy | None = None,
    policy_number: int = 0,
) -> ClusterMap:
    """Return ``cluster_map`` with one table more, or ``cluster_map`` itself if that very table is or was there.

    It has ``n`` replicas, or what ``policy`` says, or what the map has under ``policy_number``.
    Its global ``indexes`` are active at once, as there is nothing to
    fill them with; the tables of their entries are made in the same step.

    Raises:
        TableExistsError: another table of that wire has the name.
        RequestError: no node is where the policy wants it to be.
        UnavailableError: a member does not speak the version that brought such tables.
    """
    assert n >= 1, "the wire checks how many replicas its client asked for"
    assert all((name, unique_id)), "the wire names each table and each request"
    assert not indexes or replication == "leader", "the wire refuses indexes of tables without leaders"
    assert conflicts == "lww" or replication == "leaderless", "leaders leave no conflicts"
    if unique_id in cluster_map.dropped:
        return cluster_map
    existing = table_named(cluster_map, wire, name)
    if existing is not None:
        if existing.unique_id == unique_id:
            return cluster_map
        raise TableExistsError(f"table {name!r} exists: delete it first or choose another name")
    if conflicts != "lww":
        since = versions.CAUSAL_SINCE if conflicts == "siblings" else versions.MERGING_SINCE
        check_spoken(cluster_map, since, what=f"tables that keep {conflicts}")
    elif wire == KEY_VALUE_WIRE:
        check_spoken(cluster_map, versions.DESCRIBED_SINCE, what="tables of values where the last write wins")
    if policy is not None and policy.is_bound:
        check_spoken(cluster_map, versions.POLICIES_SINCE, what="tables that say where they may be")
    number, known_policies, policy = policies.chosen(cluster_map, policy, policy_number, n=n)
    table = Table(
        id=TableId(cluster_map.next_table_id),
        name=name,
        wire=wire,
        n=policy.n,
        definition=definition,
        unique_id=unique_id,
        replication=replication,
        indexes=tuple(
            Index(index.name, TableId(cluster_map.next_table_id + number), index.definition, unique_id)
            for number, index in enumerate(indexes, start=1)
        ),
        conflicts=conflicts,
        policy=number,
    )
    tables = (*cluster_map.tables, table, *(index_table(table, index) for index in table.indexes))
    grown = _next_epoch(cluster_map, tables=tables)
    return msgspec.structs.replace(grown, next_table_id=tables[-1].id + 1, policies=known_policies)


def with_definition(cluster_map: ClusterMap, *, before: Table, definition: bytes) -> ClusterMap:
    """Return ``cluster_map`` with another definition of a table, or ``cluster_map`` itself if it has that.

    Args:
        cluster_map: the newest one.
        before: the table that the new definition was made for.
        definition: the new one.

    Raises:
        TableNotFoundError: the table is gone.
        TableChangedError: its definition is neither that of ``before`` nor ``definition``, or it has other indexes, or
            they are in other states.
    """
    table = _same(cluster_map, before)
    if table.definition == definition:
        return cluster_map
    _check_same(table, before)
    return _changed(cluster_map, table, msgspec.structs.replace(table, definition=definition))


def without_table(
    cluster_map: ClusterMap, *, wire: str, name: str, unique_id: str, definition: bytes | None = None
) -> ClusterMap:
    """Return ``cluster_map`` without that very table and its indexes, or ``cluster_map`` itself if it is gone.

    A table made anew under the same name has another unique id and stays.

    Args:
        definition: what its definition has to be; None: whatever it is.

    Raises:
        TableChangedError: its definition is another one.
    """
    table = table_named(cluster_map, wire, name)
    if table is None or table.unique_id != unique_id:
        return cluster_map
    if definition is not None:
        _check_definition(table, definition)
    gone = {table.id, *(index.table for index in table.indexes)}
    others = tuple(other for other in cluster_map.tables if other.id not in gone)
    dropped = (*cluster_map.dropped, unique_id)[-DROPPED_MAX:]
    return msgspec.structs.replace(_next_epoch(cluster_map, tables=others), dropped=dropped)


def without_tables(cluster_map: ClusterMap, *, remade: Collection[str] = ()) -> ClusterMap:
    """Return ``cluster_map`` without any table, or ``cluster_map`` itself if there is none.

    Those of the unique ids ``remade`` may be made again under them, by whoever makes the same table when it is missing.
    """
    if not cluster_map.tables:
        return cluster_map
    gone = [table.unique_id for table in cluster_map.tables if table.unique_id not in remade]
    dropped = (*cluster_map.dropped, *gone)[-DROPPED_MAX:]
    return msgspec.structs.replace(_next_epoch(cluster_map, tables=()), dropped=dropped)


def with_index(
    cluster_map: ClusterMap, *, before: Table, index: IndexRequest, unique_id: str, definition: bytes
) -> ClusterMap:
    """Return ``cluster_map`` with one index more, to be filled, or ``cluster_map`` itself if that very index is there.

    Args:
        cluster_map: the newest one.
        before: the table when it was found that the index, and the definition, fit it.
        index: what it is.
        unique_id: of the request.
        definition: that the table has with the index.

    Raises:
        TableNotFoundError: the table is gone.
        IndexExistsError: another index of the table has the name.
        TableChangedError: the table is not as ``before``, or its indexes are in other states.
    """
    base = _same(cluster_map, before)
    existing = index_named(base, index.name)
    if existing is not None:
        if existing.unique_id == unique_id:
            return cluster_map
        raise IndexExistsError(f"table {base.name!r} has an index {index.name!r}: delete it first")
    _check_same(base, before)
    added = Index(
        index.name,
        TableId(cluster_map.next_table_id),
        index.definition,
        unique_id,
        state="creating",
        since=cluster_map.epoch + 1,
    )
    wanted = msgspec.structs.replace(base, definition=definition, indexes=(*base.indexes, added))
    grown = _changed(cluster_map, base, wanted)
    tables = (*grown.tables, index_table(base, added))
    return msgspec.structs.replace(grown, tables=tables, next_table_id=added.table + 1)


def with_index_deleting(cluster_map: ClusterMap, *, before: Table, index: TableId, definition: bytes) -> ClusterMap:
    """Return ``cluster_map`` with an index that is about to go, or itself if it is so, or gone, and all else is right.

    Args:
        cluster_map: the newest one.
        before: the table when it was found that the index may go.
        index: the table of its entries.
        definition: that the table has without the index.

    Raises:
        TableNotFoundError: the table is gone.
        TableChangedError: the table is not as ``before``, or its indexes are in other states.
    """
    base = _same(cluster_map, before)
    if base.definition == definition and not any(
        one.table == index and one.state != "deleting" for one in base.indexes
    ):
        return cluster_map
    _check_same(base, before)
    indexes = _in_state(base, index, "deleting")
    return _changed(cluster_map, base, msgspec.structs.replace(base, definition=definition, indexes=indexes))


def with_index_state(cluster_map: ClusterMap, *, table: TableId, index: TableId, state: IndexState) -> ClusterMap:
    """Return ``cluster_map`` with an index, named by the table of its entries, in another state.

    ``cluster_map`` itself if it is in that state, or is gone; what is deleted stays so.
    """
    base = _with_id(cluster_map, table)
    known = None if base is None else next((known for known in base.indexes if known.table == index), None)
    if base is None or known is None or known.state in (state, "deleting"):
        return cluster_map
    return _with_indexes(cluster_map, base, _in_state(base, index, state))


def without_index(cluster_map: ClusterMap, *, table: TableId, index: TableId) -> ClusterMap:
    """Return ``cluster_map`` without an index, named by the table of its entries, or itself if it is gone."""
    base = _with_id(cluster_map, table)
    if base is None or all(known.table != index for known in base.indexes):
        return cluster_map
    shrunk = _with_indexes(cluster_map, base, tuple(known for known in base.indexes if known.table != index))
    return msgspec.structs.replace(shrunk, tables=tuple(known for known in shrunk.tables if known.id != index))


def with_presence(
    cluster_map: ClusterMap, node_id: NodeId, wire_addresses: dict[str, str], *, speaks: int
) -> ClusterMap:
    """Return ``cluster_map`` with what a node says of itself, or ``cluster_map`` itself if it says so.

    The last member to speak a version raises that of the cluster; nobody ever lowers it.

    Args:
        cluster_map: the current one.
        node_id: a member.
        wire_addresses: what clients connect to there.
        speaks: the newest version it speaks.
    """
    known = node_by_id(cluster_map, node_id)
    if known is None:
        return cluster_map
    told = msgspec.structs.replace(known, wire_addresses=wire_addresses, speaks=speaks)
    nodes = tuple(told if node.id == node_id else node for node in cluster_map.nodes)
    version = max(cluster_map.version, _spoken_by_all(nodes))
    if told == known and version == cluster_map.version:
        return cluster_map
    return msgspec.structs.replace(cluster_map, nodes=nodes, version=version, epoch=cluster_map.epoch + 1)


def _spoken_by_all(nodes: Iterable[NodeRecord]) -> int:
    return min(node.speaks for node in nodes)


def table_named(cluster_map: ClusterMap, wire: str, name: object) -> Table | None:
    """Return the table that ``wire`` knows as ``name``."""
    for table in cluster_map.tables:
        if table.name == name and table.wire == wire:
            return table
    return None


def node_by_id(cluster_map: ClusterMap, node_id: NodeId) -> NodeRecord | None:
    """Return the member with that id."""
    for node in cluster_map.nodes:
        if node.id == node_id:
            return node
    return None


def check(cluster_map: ClusterMap, *, newest: int = versions.NEWEST) -> None:
    """Return if ``cluster_map`` keeps every promise of its type, and no version above ``newest`` is needed to read it.

    Raises:
        CorruptionError: it breaks one; the message says which.
        VersionError: it is of a newer version.
    """
    check_version(cluster_map.version, newest=newest)
    for flaw in flaws(cluster_map):
        raise CorruptionError(f"cluster map of cluster {cluster_map.cluster_id!r}, epoch {cluster_map.epoch}: {flaw}")


def check_version(version: int, *, newest: int = versions.NEWEST) -> None:
    """Return if a map of ``version`` can be read by a node that speaks versions up to ``newest``.

    Raises:
        VersionError: it cannot, something in it would go unseen.
    """
    if version > newest:
        raise VersionError(
            f"the cluster uses version {version} of its protocol and formats, and this node speaks up to {newest}: "
            "run the release on it that the other nodes run"
        )


def check_spoken(cluster_map: ClusterMap, version: int, *, what: str) -> None:
    """Return if all members speak ``version``.

    Raises:
        UnavailableError: they do not; says who.
    """
    if cluster_map.version < version:
        behind = ", ".join(node.id for node in cluster_map.nodes if node.speaks < version) or "a member"
        raise UnavailableError(
            f"{what} need version {version} on every node, and {behind} has an older release: upgrade it"
        )


def _with_id(cluster_map: ClusterMap, table: TableId) -> Table | None:
    return next((known for known in cluster_map.tables if known.id == table), None)


def _same(cluster_map: ClusterMap, table: Table) -> Table:
    """Return ``table`` as it is by now.

    Raises:
        TableNotFoundError: it is gone.
    """
    known = _with_id(cluster_map, table.id)
    if known is None or known.unique_id != table.unique_id:
        raise TableNotFoundError(f"table {table.name!r} does not exist any more")
    return known


def _in_state(base: Table, index: TableId, state: IndexState) -> tuple[Index, ...]:
    return tuple(msgspec.structs.replace(one, state=state) if one.table == index else one for one in base.indexes)


def _with_indexes(cluster_map: ClusterMap, base: Table, indexes: tuple[Index, ...]) -> ClusterMap:
    return _changed(cluster_map, base, msgspec.structs.replace(base, indexes=indexes))


def _changed(cluster_map: ClusterMap, base: Table, wanted: Table) -> ClusterMap:
    return _next_epoch(cluster_map, tables=tuple(wanted if known is base else known for known in cluster_map.tables))


def _check_same(table: Table, before: Table) -> None:
    _check_definition(table, before.definition)
    if table.indexes != before.indexes:
        raise TableChangedError(f"indexes of table {table.name!r} came, went or changed meanwhile: look at them again")


def _check_definition(table: Table, expected: bytes) -> None:
    if table.definition != expected:
        raise TableChangedError(f"table {table.name!r} was changed meanwhile: look at it again")


def _next_epoch(cluster_map: ClusterMap, *, tables: tuple[Table, ...]) -> ClusterMap:
    return msgspec.structs.replace(cluster_map, epoch=cluster_map.epoch + 1, tables=tables)


def _numbered(nodes: Sequence[NodeRecord]) -> tuple[NodeRecord, ...]:
    """Number the nodes that have none, above those that have, and sort by number."""
    members = [node for node in nodes if node.number]
    next_number = max((node.number for node in members), default=0) + 1
    unnumbered = sorted((node for node in nodes if not node.number), key=lambda node: node.peer_address)
    members += [
        msgspec.structs.replace(node, number=number) for number, node in enumerate(unnumbered, start=next_number)
    ]
    return tuple(sorted(members, key=lambda node: node.number))


def _first_voters(members: Sequence[NodeRecord]) -> tuple[int, ...]:
    """Return up to five numbers, data centres, machines and zones in turn; an even one more would survive no more."""
    count = min(len(members), VOTERS_MAX)
    count -= 1 - count % 2
    ordered = placement.data_centers_in_turn(placement.far_apart_first(members))
    return tuple(sorted(node.number for node in ordered[:count]))
