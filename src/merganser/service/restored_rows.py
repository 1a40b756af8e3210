"""Put the rows of a snapshot into tables that are being restored, durably on a majority of their replicas.

The tables are hidden (`core.snapshots`), so nobody else writes to them, and putting a row twice changes nothing.

- *Leader-based*: each item is a step at its leader, like a client's write. So it has a version of this cluster, from
  an epoch of this cluster's leaders, with its entries of local and global indexes and its time of expiry; nothing of
  the versions that it had where it comes from is left, and no leader can be confused by them.
- *Leaderless*: each row goes to its replicas as a repair does, with the timestamps it had. Clocks here observe those,
  so what is written afterwards is later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from merganser.core import snapshots
from merganser.core.cluster_map import table_named
from merganser.model.cluster import ClusterMap, Table, conflicts_of
from merganser.model.errors import (
    MerganserError,
    RequestError,
    TableExistsError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import TableId
from merganser.model.index import IndexRequest
from merganser.model.messages import Apply
from merganser.model.snapshot import WantedTable
from merganser.service.catalog import Catalog
from merganser.service.coordinator import Coordinator
from merganser.service.leader_based import LeaderBased
from merganser.service.steps import RESTORES
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.values import check_row

ROWS_AT_ONCE: Final = 32
"""Under way for one chunk: enough to share each fsync, too few for clients to queue behind."""
TRY_S: Final = 5.0
_PAUSE_S: Final = 0.1


class RestoredRows:
    """Makes hidden tables, fills them, and reveals them; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        catalog: Catalog,
        coordinator: Coordinator,
        leader_based: LeaderBased,
        *,
        admit: Callable[[], Awaitable[None]],
    ) -> None:
        """Work through the services of this node; ``admit`` waits while clients need it more."""
        self._topology = topology
        self._catalog = catalog
        self._coordinator = coordinator
        self._leader_based = leader_based
        self._admit = admit
        self._loop = asyncio.get_running_loop()

    async def make(self, wanted: Sequence[WantedTable], unique_ids: Sequence[str], *, deadline: float) -> list[Table]:
        """Return the hidden tables, those made that are not there yet; ``unique_ids`` are for these.

        Raises:
            TableExistsError: the cluster has a table of the name that one is to have in the end; nothing was made.
            UnavailableError: no majority of the voters answers; some may be there, and a repeated call goes on.
            UnknownOutcomeError: likewise.
        """
        await self._catalog.look_for_news()
        taken = [one.name for one in wanted if table_named(self._catalog.current, one.wire, one.name) is not None]
        if taken:
            raise TableExistsError(
                f"the cluster has tables called {', '.join(sorted(taken))}: drop them, or restore under other names"
            )
        return [await self._made(one, unique_id, deadline) for one, unique_id in zip(wanted, unique_ids, strict=True)]

    async def put(self, table_id: TableId, rows: Sequence[tuple[bytes, bytes]], *, deadline: float) -> None:
        """Return once all ``rows`` are on a majority of their replicas, durably.

        Args:
            table_id: a hidden table.
            rows: keys and, of a leader-based table, values, else stored rows.
            deadline: loop time.

        Raises:
            RequestError: it is not hidden, or a row is not one of it; nothing was written.
            CorruptionError: a row is damaged; nothing was written.
            UnavailableError: not all are; putting them again does no harm.
        """
        table = self._topology.table(table_id)
        if table is None or not snapshots.is_hidden(table):
            raise RequestError(f"this node knows of no table {table_id} that is being restored")
        for key, row in rows:
            keys.split_row_key(key)
            if keys.table_in(key) != table_id:
                raise RequestError(f"the key {key[:32].hex()} is of another table than {table_id}")
            if not table.has_leaders:
                check_row(key, row)
        put = self._put_led if table.has_leaders else self._put_leaderless
        for at in range(0, len(rows), ROWS_AT_ONCE):
            await self._admit()
            some = rows[at : at + ROWS_AT_ONCE]
            ended = await asyncio.gather(
                *(self._insist(put, table, key, row, deadline) for key, row in some), return_exceptions=True
            )
            for error in ended:
                if isinstance(error, BaseException):
                    raise error

    async def reveal(self, names: dict[TableId, str], *, deadline: float) -> ClusterMap:
        """Give hidden tables their own names, all at once.

        Raises:
            TableNotFoundError: one is gone.
            TableExistsError: another table has such a name by now.
            UnavailableError: nothing was changed.
            UnknownOutcomeError: it may have happened; a repeated call does no harm.
        """
        return await self._catalog.change(
            lambda current: snapshots.with_revealed(current, names=names), deadline=deadline
        )

    async def _made(self, wanted: WantedTable, unique_id: str, deadline: float) -> Table:
        try:
            return await self._catalog.table(wanted.wire, wanted.hidden_name, deadline=deadline, is_newest=True)
        except TableNotFoundError:
            return await self._catalog.create_table(
                wire=wanted.wire,
                name=wanted.hidden_name,
                n=wanted.n,
                definition=wanted.definition,
                unique_id=unique_id,
                replication="leader" if wanted.replication == "leader" else "leaderless",
                indexes=[IndexRequest(index.name, index.definition) for index in wanted.indexes],
                conflicts=conflicts_of(wanted.conflicts),
                policy=wanted.policy,
                deadline=deadline,
            )

    async def _insist(
        self,
        put: Callable[[Table, bytes, bytes, float], Awaitable[None]],
        table: Table,
        key: bytes,
        row: bytes,
        deadline: float,
    ) -> None:
        """Try until it is done or the time is up: what may have been done may be done again."""
        while True:
            try:
                await put(table, key, row, min(deadline, self._loop.time() + TRY_S))
                return
            except (UnavailableError, UnknownOutcomeError) as error:
                if self._loop.time() + _PAUSE_S >= deadline:
                    raise UnavailableError(f"not all rows could be put in time: {error}") from None
            await asyncio.sleep(_PAUSE_S)

    async def _put_led(self, table: Table, key: bytes, value: bytes, deadline: float) -> None:
        await self._leader_based.change(table, key, RESTORES, value, deadline=deadline)

    async def _put_leaderless(self, table: Table, key: bytes, row: bytes, deadline: float) -> None:
        holders = self._topology.holders(table, key)
        replicas, required = holders.members, holders.quorum
        apply = Apply(self._topology.map.epoch, table.id, key, row, vouched_us=0)
        try:
            holding = await self._coordinator.repairs.settle(
                apply, stale=replicas, unasked=(), required=required, deadline=deadline
            )
        except MerganserError as error:
            raise UnavailableError(str(error)) from None
        if holding < required:
            raise UnavailableError(f"{holding} of {len(replicas)} replicas have taken a row, and {required} are needed")
