"""Who may be asked about a key of a leader-based table: the members of its group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import NOT_LEADING
from merganser.model.leadership import Epoch, Group
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA, check_known, check_placed
from merganser.service.topology import Topology
from merganser.storage import keys


class GroupGate:
    """Refuses keys that this node holds no replica of, and tables without leaders."""

    def __init__(self, topology: Topology, *, catch_up: Callable[[NodeId], Awaitable[None]]) -> None:
        """Judge by ``topology``; ``catch_up`` fetches a newer map from a peer."""
        self._topology = topology
        self._catch_up = catch_up
        self._ring = topology.ring
        self._groups: dict[tuple[TableId, PartitionId], tuple[Table, Group]] = {}
        """What was admitted by the map of that ring."""

    async def admit(self, sender: NodeId, map_epoch: int, table: TableId, key: bytes) -> tuple[Table, Group]:
        """Return the table and the group of ``key``, once this node knows a map as new as the sender's.

        Raises:
            RefusedError: no such table, or not a replica.
        """
        if self.is_behind(map_epoch):
            await self.catch_up(sender)
        return self.held(table, key)

    def is_behind(self, map_epoch: int) -> bool:
        """Tell whether this node knows no map as new as that."""
        return map_epoch > self._topology.map.epoch

    async def catch_up(self, sender: NodeId) -> None:
        """Fetch the map that ``sender`` knows."""
        await self._catch_up(sender)

    async def admit_range(
        self, sender: NodeId, map_epoch: int, table: TableId, start: bytes, end: bytes
    ) -> tuple[Table, Group]:
        """Return the table and the group of ``start <= key < end``, as `admit`.

        Raises:
            RefusedError: no such table, not a replica, or more than one partition.
        """
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        known = self.table(table)
        partitions = self._topology.partitions_between(known, start, end)
        if len(partitions) != 1:
            raise RefusedError(NOT_A_REPLICA, f"a range of {len(partitions)} partitions has no one leader")
        return known, self._group(known, partitions[0])

    async def admit_partition(
        self, sender: NodeId, map_epoch: int, table: TableId, partition: PartitionId
    ) -> tuple[Table, Group]:
        """Return the table and the group of a partition, as `admit`.

        Raises:
            RefusedError: no such table, not a replica, or the partition may have another number by the sender's map.
        """
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        check_known(self._topology, map_epoch)
        check_placed(self._topology, map_epoch)
        known = self.table(table)
        if not 0 <= partition < self._topology.ring.partitions:
            raise RefusedError(NOT_A_REPLICA, f"there is no partition {partition}")
        return known, self._group(known, partition)

    def held(self, table: TableId, key: bytes) -> tuple[Table, Group]:
        """Return the table and the group of ``key``.

        Raises:
            RefusedError: no such table, or not a replica.
        """
        ring = self._topology.ring
        if ring is not self._ring:
            self._ring = ring
            self._groups.clear()
        table_of_key, token = keys.place_in(key)
        partition = ring.partition_of(token)
        admitted = self._groups.get((table_of_key, partition))
        if admitted is None or table_of_key != table:
            known = self.table(table)
            if table_of_key != table:
                raise self._no_such_table(table)
            admitted = self._groups[table, partition] = known, self._group(known, partition)
        return admitted

    def table(self, table: TableId) -> Table:
        """Return a table that has leaders.

        Raises:
            RefusedError: there is none of that id.
        """
        known = self._topology.table(table)
        if known is None or not known.has_leaders:
            raise self._no_such_table(table)
        return known

    def _group(self, table: Table, partition: PartitionId) -> Group:
        topology = self._topology
        if not topology.ring.holds(topology.node, partition, table.rule):
            epoch = topology.map.epoch
            message = f"node {topology.node} holds no replica of partition {partition} at epoch {epoch}"
            raise RefusedError(NOT_A_REPLICA, message, map_epoch=epoch)
        return Group(table.rule, partition)

    def _no_such_table(self, table: TableId) -> RefusedError:
        epoch = self._topology.map.epoch
        return RefusedError(
            NO_SUCH_TABLE, f"no table with id {table} that has leaders at epoch {epoch}", map_epoch=epoch
        )


def not_leading(node: NodeId, group: Group, known: Epoch, *, map_epoch: int = 0) -> RefusedError:
    """Return what to raise on ``node`` when it is asked as a leader and is none; it knows of epoch ``known``.

    Whoever goes by an older map than that of ``map_epoch`` may take it for another group's.
    """
    return RefusedError(
        NOT_LEADING,
        f"node {node} takes no requests for partition {group.partition} in that epoch; "
        f"it knows of epoch {known.number} of node {known.leader}",
        map_epoch=map_epoch,
        epoch=known,
    )
