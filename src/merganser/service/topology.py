"""What this node knows of the cluster: its newest cluster map, and the ring drawn from it.

Everyone on the node asks here. `learn` is the only way in; it keeps the map durable, drops the data of tables that are
gone, and divides what is kept by partition when the ring is cut finer, all in one storage batch: a crash leaves all of
it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from merganser.core import cluster_map, policy_changes
from merganser.core.ring import Ring
from merganser.core.token import TOKEN_MAX, TOKEN_MIN
from merganser.model import versions
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import CorruptionError, InvariantError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId, TableId, Token
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine, Readable
from merganser.storage.values import seal, unseal

Splitter = Callable[[Batch, int], Callable[[], None]]
"""Puts into a batch what becomes of what somebody keeps by partition when there are so many times as many; returns what
takes that over in memory, once the batch is committed."""

Forker = Callable[[policy_changes.Forks], None]
"""Has the groups of new rules inherit what is kept of those of others, durably before what is committed later."""

_MAP_KEY = keys.metadata_key("cluster_map")


def load_map(engine: Readable, *, newest: int = versions.NEWEST) -> ClusterMap | None:
    """Return the cluster map this data directory belongs to; None if it is fresh.

    Raises:
        CorruptionError: the stored map is damaged.
        VersionError: it is of a version above ``newest``.
    """
    stored = engine.get(_MAP_KEY)
    if stored is None:
        return None
    encoded = unseal(_MAP_KEY, stored)
    cluster_map.check_version(msgspec.msgpack.decode(encoded, type=versions.Versioned).version, newest=newest)
    found = msgspec.msgpack.decode(encoded, type=ClusterMap)
    cluster_map.check(found, newest=newest)
    return found


async def keep_first_map(engine: Engine, first: ClusterMap) -> None:
    """Make ``first`` the map of a fresh data directory, durably."""
    engine.commit(Batch().put(_MAP_KEY, seal(_MAP_KEY, msgspec.msgpack.encode(first))))
    await engine.durable()


class Topology:
    """The newest cluster map known here; see the module's docstring."""

    def __init__(self, node: NodeId, engine: Engine, current: ClusterMap, *, newest: int = versions.NEWEST) -> None:
        """Serve ``current``, which must name ``node`` as a member; learn no map of a version above ``newest``."""
        self._newest = newest
        self.node = node
        self._engine = engine
        self._listeners: list[Callable[[ClusterMap], None]] = []
        self._splitters: list[Splitter] = []
        self._forkers: list[Forker] = []
        self.gone_at = 0
        """Epoch of the map that this node is no member by any more; 0: it is one."""
        self.when_gone: Callable[[], None] = lambda: None
        """Told of it, once."""
        self.far: set[NodeId] = set()
        """The members in other data centres."""
        self._held: tuple[tuple[Table, PartitionId], ...] | None = None
        self.ring = Ring(current)
        self._take(current)

    @property
    def me(self) -> NodeRecord:
        """This node's own record."""
        record = cluster_map.node_by_id(self.map, self.node)
        if record is None:
            raise InvariantError(f"node {self.node} is not in its own cluster map (epoch {self.map.epoch})")
        return record

    def table(self, table: TableId) -> Table | None:
        """Return the table of that id, None if it is dropped or not known yet."""
        return self._tables.get(table)

    def rule_of(self, table: Table) -> int:
        """Return the rule of a table as this node knows it by now, which may have changed since ``table`` was found."""
        return self._tables.get(table.id, table).rule

    def led_tables(self, n: int) -> Sequence[Table]:
        """Return the tables of the groups of ``n`` replicas, which have leaders."""
        return [table for table in self.map.tables if table.has_leaders and table.rule == n]

    def number_of(self, node: NodeId) -> int | None:
        """Return the number of a member, None if it is none."""
        return self._numbers.get(node)

    def node_of(self, number: int) -> NodeId | None:
        """Return the member with that number, None if there is none."""
        return self._nodes.get(number)

    def fallbacks(self, table: Table, key: bytes) -> tuple[NodeId, ...]:
        """Return the nodes after the primaries of ``key``, in the order in which they stand in."""
        return self.ring.fallbacks(self.ring.partition_of(keys.token_in(key)), self.rule_of(table))

    def may_keep(self, table: Table) -> bool:
        """Tell whether this node may keep anything of ``table``: hints, for who holds its keys."""
        return self.ring.allows(self.me, self.rule_of(table))

    def replicas(self, table: Table, key: bytes) -> tuple[NodeId, ...]:
        """Return the preference list of ``key``, primaries only."""
        return self.ring.preference_list(self.ring.partition_of(keys.token_in(key)), self.rule_of(table))

    def held(self) -> Sequence[tuple[Table, PartitionId]]:
        """Return every partition of a table that this node holds a replica of, in the order of their keys."""
        if self._held is None:
            ring, me = self.ring, self.node
            self._held = tuple(
                (table, partition)
                for table in self.map.tables
                for partition in map(PartitionId, range(ring.partitions))
                if ring.holds(me, partition, table.rule)
            )
        return self._held

    def partitions_between(self, table: Table, start: bytes, end: bytes) -> Sequence[PartitionId]:
        """Return the partitions that ``start <= key < end`` of ``table`` touches, clockwise."""
        low, high = keys.table_range(table.id)
        start, end = max(start, low), min(end, high)
        if start >= end:
            return ()
        first = keys.token_in(start) if len(start) >= keys.TOKEN_END else TOKEN_MIN
        last = TOKEN_MAX
        if end < high:
            last = Token(keys.token_in(end) - (len(end) == keys.TOKEN_END))  # the end itself is left out
        return [PartitionId(p) for p in range(self.ring.partition_of(first), self.ring.partition_of(last) + 1)]

    def partition_range(self, table: Table, first: PartitionId, last: PartitionId) -> tuple[bytes, bytes]:
        """Return the key range of the partitions from ``first`` to ``last`` of ``table``."""
        low, _ = self.ring.token_range(first)
        _, high = self.ring.token_range(last)
        return keys.token_range(table.id, low, high)

    def holders(self, table: Table, key: bytes) -> Holders:
        """Return the replicas of ``key``, and how many of them decide."""
        return self.ring.holders(self.ring.partition_of(keys.token_in(key)), self.rule_of(table))

    def run(self, table: Table, start: bytes, end: bytes, *, reverse: bool) -> tuple[bytes, bytes, Holders] | None:
        """Return the longest stretch from where a read of a range begins that one set of replicas holds, and those.

        None if the range touches nothing.
        """
        partitions = self.partitions_between(table, start, end)
        if not partitions:
            return None
        ordered = partitions[::-1] if reverse else partitions
        rule = self.rule_of(table)
        holders = self.ring.holders(ordered[0], rule)
        serving, coming = set(holders.serving), set(holders.next)
        last = ordered[0]
        for partition in ordered[1:]:
            others = self.ring.holders(partition, rule)
            if set(others.serving) != serving or set(others.next) != coming:
                break
            last = partition
        first_key, end_key = self.partition_range(table, min(ordered[0], last), max(ordered[0], last))
        return max(start, first_key), min(end, end_key), holders

    def when_changed(self, listener: Callable[[ClusterMap], None]) -> None:
        """Call ``listener`` with every newer map, after it is in force here."""
        self._listeners.append(listener)

    def when_split(self, splitter: Splitter) -> None:
        """Have ``splitter`` divide what it keeps by partition whenever the ring is cut finer (`core.splitting`).

        What it returns is called in the same turn of the loop, when the new ring is in force, before all listeners.
        """
        self._splitters.append(splitter)

    def when_forked(self, forker: Forker) -> None:
        """Call ``forker`` with the rules that tables have by a newer map, and those that they had by this one.

        It is called before that map is in force, or kept (`core.policy_changes`), in the same turn of the loop.
        """
        self._forkers.append(forker)

    async def learn(self, newer: ClusterMap) -> None:
        """Take ``newer`` if it is; returns once the newest map is durable here.

        Raises:
            CorruptionError: the map breaks an invariant or belongs to another cluster.
            VersionError: it makes use of what this build does not know.
            StorageFailedError: it could not be kept.
        """
        cluster_map.check(newer, newest=self._newest)
        if newer.cluster_id != self.map.cluster_id:
            raise CorruptionError(f"a map of cluster {newer.cluster_id} reached a node of {self.map.cluster_id}")
        if cluster_map.node_by_id(newer, self.node) is None:
            self._note_gone(newer)
        elif newer.epoch > self.map.epoch:
            self._fork(newer)
            batch = self._step_to(newer)
            taking = self._divided(newer, batch)
            self._engine.commit(batch)
            self._take(newer)
            for take in taking:
                take()
            for listener in self._listeners:
                listener(newer)
        await self._engine.durable()

    def _note_gone(self, newer: ClusterMap) -> None:
        """Stay with the last map that this node was a member by; whoever knows a newer one refuses what it asks."""
        if newer.epoch > self.map.epoch and not self.gone_at:
            self.gone_at = newer.epoch
            self.when_gone()

    def _fork(self, newer: ClusterMap) -> None:
        """Have what is new inherit; after a crash before ``newer`` is kept, it does so again."""
        forks = policy_changes.forks(self.map, newer)
        for forker in self._forkers if forks else ():
            forker(forks)

    def _step_to(self, newer: ClusterMap) -> Batch:
        batch = Batch().put(_MAP_KEY, seal(_MAP_KEY, msgspec.msgpack.encode(newer)))
        kept = {table.id for table in newer.tables}
        for table in self.map.tables:
            if table.id not in kept:
                start, end = keys.table_range(table.id)
                batch.delete_range(start, end)
                if table.has_leaders:
                    batch.delete_range(keys.local_key(start), keys.local_key(end))
        return batch

    def _divided(self, newer: ClusterMap, batch: Batch) -> list[Callable[[], None]]:
        factor, rest = divmod(newer.partitions, self.map.partitions)
        if rest or not factor:
            raise CorruptionError(
                f"the map of epoch {newer.epoch} has {newer.partitions} partitions, fewer than before"
            )
        return [splitter(batch, factor) for splitter in self._splitters] if factor > 1 else []

    def _take(self, current: ClusterMap) -> None:
        self.map = current
        self.ring = Ring(current, before=self.ring)
        self._held = None
        self._tables = {table.id: table for table in current.tables}
        self._numbers = {node.id: node.number for node in current.nodes}
        self._nodes = {node.number: node.id for node in current.nodes}
        here = self.me.data_center
        self.far.clear()
        self.far.update(node.id for node in current.nodes if node.data_center != here)
