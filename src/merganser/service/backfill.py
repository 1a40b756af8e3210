"""Fill indexes that were added to a table that has items, and drop those that are no more wanted.

::

    map: creating --> each partition, page by page: its leader has the index show each item as it is --> map: active
    map: deleting --> map: gone, with the entries

The live node with the lowest number sees to it; when another one takes over it begins anew, which does no harm. From
the moment when a majority of the replicas of a partition knows of the index, whatever is written there leaves entries
of the index behind (`service.indexer`): it is enough to go once through what was there by then.

Source: docs/internals/indexes.md.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, cast

from merganser.core import cluster_map
from merganser.model.cluster import ClusterMap, Index, Table
from merganser.model.errors import InvariantError, MerganserError, UnavailableError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import Backfill, Backfilled
from merganser.model.leadership import Epoch
from merganser.net.transport import Traffic
from merganser.service.asking import Asker
from merganser.service.group_gate import GroupGate, not_leading
from merganser.service.indexer import Indexer
from merganser.service.leader import Leader
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership
from merganser.service.outboxes import Outboxes
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine

LOOK_S: Final = 0.5
"""Between two looks whether there is anything to do."""
PARTITIONS_AT_ONCE: Final = 8
PAGE_ROWS: Final = 256  # a second or so, on a busy node
ITEMS_AT_ONCE: Final = 16  # so that what clients write does not wait behind it
PAGE_TIMEOUT_S: Final = 10.0
CHANGE_TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 0.5


class Changing(Protocol):
    """Whoever changes the cluster map: `service.catalog`."""

    async def change(self, change: Callable[[ClusterMap], ClusterMap], *, deadline: float) -> ClusterMap:
        """Apply a change to the newest map; raises as `Catalog.change`."""


class Backfiller:
    """Fills and drops indexes; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        leader: Leader,
        leader_based: LeaderBased,
        outboxes: Outboxes,
        indexer: Indexer,
        catalog: Changing,
        *,
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        catch_up: Callable[[NodeId], Awaitable[None]],
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Look after the indexes of ``topology``.

        Args:
            topology: knows the tables.
            asker: knows who is alive.
            engine: holds the items of this node.
            leadership: what it leads.
            leader: of items.
            leader_based: reaches other leaders.
            outboxes: know which indexes there are.
            indexer: delivers.
            catalog: changes the map.
            rng: spreads the work.
            admit: waits between slices of background work while clients need this node more.
            catch_up: fetches a newer map from a peer.
            on_error: told of bugs.
        """
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._leadership = leadership
        self._leader = leader
        self._leader_based = leader_based
        self._outboxes = outboxes
        self._indexer = indexer
        self._catalog = catalog
        self._rng = rng
        self._admit = admit
        self._on_error = on_error
        self._gate = GroupGate(topology, catch_up=catch_up)
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[TableId, asyncio.Task[None]] = {}
        """By the table of the entries."""

    async def run(self) -> None:
        """Look, while the node lives, for indexes that are to be filled or dropped."""
        while True:
            await asyncio.sleep(LOOK_S * self._rng.uniform(0.8, 1.2))
            for table in self._topology.map.tables:
                for index in table.indexes:
                    if index.state != "active" and index.table not in self._tasks and self._is_due_here():
                        self._spawn(index.table, self._see_to(table.id, index))

    async def close(self) -> None:
        """Stop; `run` has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _spawn(self, entries: TableId, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[entries] = self._loop.create_task(work)
        task.add_done_callback(lambda ended: self._ended(entries, ended))

    def _ended(self, entries: TableId, task: asyncio.Task[None]) -> None:
        del self._tasks[entries]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)

    def _is_due_here(self) -> bool:
        """Tell whether no node of a lower number seems to be alive."""
        me = self._topology.me.number
        return not any(
            self._asker.is_reachable(node.id) and node.id not in self._asker.doubted
            for node in self._topology.map.nodes
            if node.number < me
        )

    # The node that sees to it

    async def _see_to(self, table: TableId, index: Index) -> None:
        try:
            if index.state == "creating":
                await self._fill(table, index)
                await self._change(
                    lambda current: cluster_map.with_index_state(
                        current, table=table, index=index.table, state="active"
                    )
                )
            else:
                await self._change(lambda current: cluster_map.without_index(current, table=table, index=index.table))
        except InvariantError:
            raise
        except MerganserError:  # the next look finds it as it is
            return

    async def _change(self, change: Callable[[ClusterMap], ClusterMap]) -> None:
        await self._catalog.change(change, deadline=self._loop.time() + CHANGE_TIMEOUT_S)

    async def _fill(self, table: TableId, index: Index) -> None:
        """Have every partition filled.

        Raises:
            UnavailableError: the index is to be filled no more, or not by this node.
        """
        left = [PartitionId(partition) for partition in range(self._topology.ring.partitions)]
        while left:
            batch, left = left[:PARTITIONS_AT_ONCE], left[PARTITIONS_AT_ONCE:]
            ended = await asyncio.gather(
                *(self._fill_partition(table, index, partition) for partition in batch), return_exceptions=True
            )
            for error in ended:
                if isinstance(error, BaseException):
                    raise error

    async def _fill_partition(self, table_id: TableId, index: Index, partition: PartitionId) -> None:
        start: bytes | None = b""
        while start is not None:
            table = self._topology.table(table_id)
            known = None if table is None else self._outboxes.index(table, index.table)
            if table is None or known is None or not self._is_due_here():
                raise UnavailableError(f"index {index.name} is not to be filled by this node any more")
            try:
                start = await self._page(table, index.table, partition, start)
            except InvariantError:
                raise
            except MerganserError:  # whoever is in the way is back later, or another leads
                await asyncio.sleep(AGAIN_S * self._rng.uniform(0.8, 1.2))

    async def _page(self, table: Table, index: TableId, partition: PartitionId, start: bytes) -> bytes | None:
        def question(epoch: Epoch) -> Backfill:
            return Backfill(self._topology.map.epoch, table.id, partition, epoch, index, start)

        deadline = self._loop.time() + PAGE_TIMEOUT_S
        answer = await self._leader_based.ask(table, partition, question, deadline=deadline, traffic=Traffic.BULK)
        return cast("Backfilled", answer).resume

    # The leader of a partition

    async def backfill(self, sender: NodeId, request: Backfill) -> Backfilled:
        """Have an index show what follows from the next items of a partition.

        Raises:
            RefusedError: no such table, or this node does not lead in that epoch.
            UnavailableError: too few replicas know of the index, not all items are known yet, or a leader of entries
                did not answer.
        """
        table, group = await self._gate.admit_partition(sender, request.map_epoch, request.table, request.partition)
        led = self._leadership.led(group)
        if led is None or led.epoch != request.epoch:
            raise not_leading(self._topology.node, group, self._leadership.known(group))
        index = self._outboxes.index(table, request.index)
        if index is None:
            return Backfilled(None)
        await self._indexer.make_known(led, index)
        if not self._leader.knows_all(table, led=led):
            raise UnavailableError("not every item of the partition is known yet")
        low, high = self._topology.partition_range(table, request.partition, request.partition)
        until = self._loop.time() + PAGE_TIMEOUT_S / 2
        rows = list(itertools.islice(self._engine.scan(max(low, request.start), high), PAGE_ROWS))
        for some in _slices([key for key, _ in rows], ITEMS_AT_ONCE):
            await self._admit()
            filled = await asyncio.gather(
                *(self._indexer.fill(led, table, key, index.table) for key in some), return_exceptions=True
            )
            for done in filled:
                if isinstance(done, BaseException):
                    raise done
                if not done:
                    raise UnavailableError(f"index {index.name} cannot be reached")
            if self._loop.time() >= until:  # or a node that gives its background few turns would do the same for ever
                return Backfilled(keys.after(some[-1]))
        return Backfilled(keys.after(rows[-1][0]) if len(rows) == PAGE_ROWS else None)


def _slices(listed: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    return [listed[at : at + size] for at in range(0, len(listed), size)]
