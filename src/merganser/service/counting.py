"""How many items tables have: put together from what replicas have counted of their partitions.

This node's own counts cost nothing; for partitions it does not hold, or still counts, one of their replicas is asked,
each node once for all it holds. What nobody answered is taken to be what it was when it was known last. So a count is
about right, and says what one replica of each partition had a moment ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import InvariantError, MerganserError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import Counted, CountItems
from merganser.service.asking import Asker
from merganser.service.counts import Count, total
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.storage import keys

TIMEOUT_S: Final = 1.0
ROUNDS_MAX: Final = 2
"""A partition whose first two replicas do not answer is counted as it was."""

Counts = dict[PartitionId, Count]


class Counting:
    """The counts of this node and of others; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, trees: HashTrees) -> None:
        """Count by ``trees``, and ask others."""
        self._topology = topology
        self._asker = asker
        self._trees = trees
        self._last: dict[TableId, Counts] = {}
        """What was known last, of the tables that were asked for."""
        topology.when_changed(self._forget_dropped)
        topology.when_split(lambda _batch, _factor: self._last.clear)

    async def count(self, table: TableId, n: int) -> Count:
        """Return how many items a table with leaders and ``n`` replicas has, and their size in bytes."""
        counts = self._own(table, n)
        tried: set[NodeId] = {self._asker.node}
        for _ in range(ROUNDS_MAX):
            wanted = self._to_ask(n, counts, tried)
            if not wanted:
                break
            tried |= set(wanted)
            for answer in await asyncio.gather(*(self._ask(node, table) for node in wanted)):
                counts = {**answer, **counts}
        known = {**self._last.get(table, {}), **counts}
        if self._topology.table(table) is not None:
            self._last[table] = known
        return total(list(known.values()))

    async def around(self, table: Table, key: bytes) -> Count | None:
        """Return what the partition of a key of a table with leaders holds; None if none of two replicas can tell."""
        partition = self._topology.ring.partition_of(keys.token_in(key))
        own = self._own(table.id, table.rule, partition).get(partition)
        if own is not None:
            return own
        others = [node for node in self._topology.holders(table, key).serving if node != self._asker.node]
        for node in self._asker.nearest_first(others)[:ROUNDS_MAX]:
            count = (await self._ask(node, table.id)).get(partition)
            if count is not None:
                return count
        return None

    async def answer(self, _sender: NodeId, request: CountItems) -> Counted:
        """Tell a peer what is counted here."""
        table = self._topology.table(request.table)
        own = {} if table is None else self._own(table.id, table.rule)
        return Counted(
            tuple((partition, count.items, count.size_bytes) for partition, count in own.items()),
            tuple((partition, *one) for partition, count in own.items() for one in count.local),
        )

    def _own(self, table: TableId, n: int, *only: PartitionId) -> Counts:
        found: Counts = {}
        ring, node = self._topology.ring, self._asker.node
        for partition in only or map(PartitionId, range(ring.partitions)):
            if node in ring.holders(partition, n).serving:
                try:
                    count = self._trees.count(table, partition)
                except MerganserError:  # dropped meanwhile
                    return {}
                if count is not None:
                    found[partition] = count
        return found

    def _to_ask(self, n: int, counts: Counts, tried: set[NodeId]) -> Sequence[NodeId]:
        """Return nodes that hold what is missing, the one for most of it that is reachable and was not asked."""
        ring, wanted = self._topology.ring, dict[NodeId, None]()
        for partition in map(PartitionId, range(ring.partitions)):
            if partition not in counts:
                left = [node for node in ring.holders(partition, n).serving if node not in tried]
                if left and not any(node in wanted for node in left):
                    wanted[self._asker.nearest_first(left)[0]] = None
        return list(wanted)

    async def _ask(self, node: NodeId, table: TableId) -> Counts:
        try:
            answer = await self._asker.ask(node, CountItems(table), timeout_s=TIMEOUT_S)
        except InvariantError:
            raise
        except MerganserError:
            return {}
        if not isinstance(answer, Counted):
            return {}
        local: dict[int, list[tuple[int, int, int]]] = {}
        for partition, *one in answer.local:
            local.setdefault(partition, []).append((one[0], one[1], one[2]))
        return {
            PartitionId(partition): Count(items, size, tuple(local.get(partition, ())))
            for partition, items, size in answer.counts
        }

    def _forget_dropped(self, current: ClusterMap) -> None:
        known = {table.id for table in current.tables}
        for table in [table for table in self._last if table not in known]:
            del self._last[table]
