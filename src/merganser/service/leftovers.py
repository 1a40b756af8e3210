"""What this node holds of partitions that are no longer its own, and its removal.

It is kept as long as something is pending or settling: until all who hold it now are known to hold the same. Then it
goes, and with it all that was kept about it, so that a node that gets a partition back begins with nothing: what it
held before would bring back what was deleted, and purged, meanwhile. Nobody becomes a newcomer before it has said,
by the newest placement, that it holds nothing of what it does not hold (`service.rebalancer`).

Of a table that this node may keep nothing of by now nothing is left in its files either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId
from merganser.service.expiry_index import ExpiryIndex
from merganser.service.hash_trees import HashTrees
from merganser.service.horizons import Horizons
from merganser.service.tag_index import TagIndex
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine

UNKNOWN = -1
_LOOKS_AT_ONCE = 32  # a millisecond or less


class Leftovers:
    """Removes what is left; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        trees: HashTrees,
        horizons: Horizons,
        expiries: ExpiryIndex,
        tags: TagIndex,
    ) -> None:
        """Remove rows from ``engine``, and what the others know of them."""
        self._topology = topology
        self._engine = engine
        self._trees = trees
        self._horizons = horizons
        self._expiries = expiries
        self._tags = tags
        self._looked_at = UNKNOWN
        self._forbidden: dict[TableId, None] = {}
        """Tables that something was removed of, and that this node may keep nothing of."""
        self.removed = 0
        """Places, since the start of this node."""

    def count(self) -> int:
        """Return how many places are left, by the placement of now; `UNKNOWN` if that was not looked at."""
        return 0 if self._looked_at == self._topology.map.placed else UNKNOWN

    async def clear(self) -> None:
        """Remove all that is left, unless something is pending or settling; durably, on return.

        Raises:
            StorageFailedError: it is unknown what is gone.
        """
        placed = self._topology.map.placed
        if self._looked_at == placed:
            return
        removed = self.removed
        for looks, (table, partition) in enumerate(self._others()):
            if looks % _LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            current = self._topology.map
            if current.placed != placed or current.pending is not None or current.settling:
                return
            self._clear(table, partition)
        if self.removed != removed:
            await self._engine.durable()
        await self._erase()
        if self._topology.map.placed == placed and self._topology.map.pending is None:
            self._looked_at = placed

    async def erase_hints(self) -> None:
        """Have hints that are gone leave the files."""
        await self._engine.erase(*keys.all_hints_range())

    async def _erase(self) -> None:
        """Have what may not be here any more leave the files as well."""
        for table in list(self._forbidden):
            start, end = keys.table_range(table)
            await self._engine.erase(start, end)
            await self._engine.erase(*keys.all_metadata_range())
            self._forbidden.pop(table, None)

    def _others(self) -> Iterator[tuple[Table, PartitionId]]:
        ring, me = self._topology.ring, self._topology.node
        for table in self._topology.map.tables:
            for partition in map(PartitionId, range(ring.partitions)):
                if not ring.holds(me, partition, table.rule):
                    yield table, partition

    def _clear(self, table: Table, partition: PartitionId) -> None:
        start, end = self._topology.partition_range(table, partition, partition)
        place = (table.id, partition)
        if self._topology.table(table.id) is None or not (self._holds(start, end) or self._horizons.known(*place)):
            return
        batch = Batch()
        batch.delete_range(start, end)
        batch.delete_range(keys.local_key(start), keys.local_key(end))
        self._expiries.forget(place, batch)
        self._tags.forget(place, batch)
        self._horizons.forget(place, batch)
        self._engine.commit(batch)
        if not self._topology.may_keep(table):
            self._forbidden[table.id] = None
        self._trees.forget(*place)
        self.removed += 1

    def _holds(self, start: bytes, end: bytes) -> bool:
        try:
            return next(iter(self._engine.scan(start, end)), None) is not None
        except CorruptionError:
            return True
