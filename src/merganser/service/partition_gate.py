"""Who may work with this node on a whole partition: those who know the same cluster map.

Rounds (`service.purger`) and exchanges (`service.exchange_answers`) speak of all nodes or all replicas. With
one who knows other nodes, one could be left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA, refused_by_protocol
from merganser.service.topology import Topology
from merganser.storage import keys

STALE_EPOCH = "stale_epoch"
MALFORMED = "malformed"


class PartitionGate:
    """Refuses work of another epoch, of tables that are gone, and on partitions that are not held here."""

    def __init__(self, topology: Topology, *, catch_up: Callable[[NodeId], Awaitable[None]]) -> None:
        """Judge by ``topology``; ``catch_up`` fetches a newer map from a peer."""
        self._topology = topology
        self._catch_up = catch_up

    async def admit(self, sender: NodeId, map_epoch: int, table: TableId) -> Table:
        """Return the table, once this node knows the map of ``sender``.

        Raises:
            RefusedError: another epoch, or no such table.
        """
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        return self.known(map_epoch, table)

    async def admit_replica(self, sender: NodeId, map_epoch: int, table: TableId, partition: PartitionId) -> Table:
        """Return the table, once this node knows the map of ``sender``.

        Raises:
            RefusedError: another epoch, no such table, or the partition is not held here.
        """
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        return self.held(map_epoch, table, partition)

    def known(self, map_epoch: int, table: TableId) -> Table:
        """Return the table if this node is at ``map_epoch`` and knows it.

        Raises:
            RefusedError: another epoch, or no such table.
        """
        epoch = self.at(map_epoch)
        known = self._topology.table(table)
        if known is None:
            raise RefusedError(NO_SUCH_TABLE, f"no table with id {table} at epoch {epoch}", map_epoch=epoch)
        return known

    def at(self, map_epoch: int) -> int:
        """Return the epoch of this node's map if that is ``map_epoch``.

        Raises:
            RefusedError: it is another.
        """
        epoch = self._topology.map.epoch
        if map_epoch != epoch:
            raise RefusedError(STALE_EPOCH, f"this is of epoch {map_epoch}, this node at {epoch}", map_epoch=epoch)
        return epoch

    def held(self, map_epoch: int, table: TableId, partition: PartitionId) -> Table:
        """Return the table if this node is at ``map_epoch`` and holds the partition.

        Raises:
            RefusedError: another epoch, no such table, or the partition is not held here.
        """
        known = self.known(map_epoch, table)
        ring, me = self._topology.ring, self._topology.node
        if not (0 <= partition < ring.partitions and ring.holds(me, partition, known.rule)):
            raise RefusedError(
                NOT_A_REPLICA,
                f"node {me} holds no replica of partition {partition} at epoch {map_epoch}",
                map_epoch=map_epoch,
            )
        return known

    def check_key(self, table: Table, partition: PartitionId, key: bytes) -> None:
        """Return if ``key`` is one of that partition.

        Raises:
            RefusedError: it is not.
        """
        ring = self._topology.ring
        if (
            len(key) < keys.TOKEN_END
            or keys.table_in(key) != table.id
            or ring.partition_of(keys.token_in(key)) != partition
        ):
            raise RefusedError(MALFORMED, f"{key[:64].hex()} is no key of partition {partition} of {table.name}")

    def leaderless(self, table: Table) -> Table:
        """Return ``table`` if its rows are merged, and not its leaders' alone to change.

        Raises:
            RefusedError: it is leader-based.
        """
        if table.has_leaders:
            raise refused_by_protocol(table, self._topology.map.epoch)
        return table
