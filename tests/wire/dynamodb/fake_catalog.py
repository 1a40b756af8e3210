"""The catalog, over a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from sortedcontainers import SortedDict

from merganser.model.cluster import ClusterMap, Index, IndexState, NodeRecord, Replication, Table
from merganser.model.errors import (
    IndexExistsError,
    RequestError,
    TableChangedError,
    TableExistsError,
    TableNotFoundError,
)
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.model.index import IndexRequest
from merganser.model.policy import Policy
from merganser.storage.keys import table_range
from wire.dynamodb.fake_services import FakeCoordinator, FakeLeaderBased


class FakeCatalog:
    """Tables of a cluster map that nobody else changes."""

    def __init__(self, coordinator: FakeCoordinator, leader_based: FakeLeaderBased) -> None:
        nodes = tuple(NodeRecord(NodeId(f"{number:016x}"), number, "") for number in (1, 2, 3))
        self.current = ClusterMap(ClusterId("c" * 16), 1, 1, nodes, (1,), (1,))
        self._kept: tuple[SortedDict[bytes, Any], ...] = (coordinator.rows, leader_based.items)
        self.policies: dict[str, Policy | None] = {}
        """That tables were asked for with."""
        self._tables: dict[tuple[str, str], Table] = {}
        self._next = 1
        leader_based.tables = lambda: self._tables.values()

    def known(self, wire: str, name: object) -> Table | None:
        return self._tables.get((wire, name)) if isinstance(name, str) else None

    async def table(self, wire: str, name: str, *, deadline: float, is_newest: bool = False) -> Table:
        try:
            found = self._tables[wire, name]
        except KeyError:
            raise TableNotFoundError(name) from None
        if is_newest:
            await asyncio.sleep(0)  # others may change it meanwhile
        return found

    async def create_table(
        self,
        *,
        wire: str,
        name: str,
        definition: bytes,
        unique_id: str,
        replication: Replication,
        deadline: float,
        indexes: Sequence[IndexRequest] = (),
        policy: Policy | None = None,
    ) -> Table:
        if (wire, name) in self._tables:
            raise TableExistsError(name)
        if policy is not None and "nowhere" in policy.allowed:
            raise RequestError("no node that owns anything is in data centre 'nowhere'")
        n = 3 if policy is None else policy.n
        self.policies[name] = policy
        table = Table(TableId(self._next), name, wire, n, definition, unique_id, replication)
        self._next += 1 + len(indexes)
        kept = tuple(
            Index(one.name, TableId(table.id + number), one.definition, unique_id)
            for number, one in enumerate(indexes, start=1)
        )
        table = msgspec.structs.replace(table, indexes=kept)
        self._tables[wire, name] = table
        self._take_over()
        return table

    async def redefine_table(self, table: Table, definition: bytes, *, deadline: float) -> Table:
        self._check_same(table)
        redefined = msgspec.structs.replace(table, definition=definition)
        self._tables[table.wire, table.name] = redefined
        self._take_over()
        return redefined

    def policy_to_be(self, table: Table) -> Policy:
        return self.policies.get(table.name) or Policy(table.n)

    async def change_policy(
        self, table: Table, policy: Policy, *, definition: bytes, now_us: int, deadline: float
    ) -> Table:
        if "nowhere" in policy.allowed:
            raise RequestError("no node that owns anything is in data centre 'nowhere'")
        self._check_same(table)
        self.policies[table.name] = policy
        return await self.redefine_table(table, definition, deadline=deadline)

    async def add_index(
        self, table: Table, index: IndexRequest, *, unique_id: str, definition: bytes, deadline: float
    ) -> Table:
        known = self._tables[table.wire, table.name]
        if any(one.name == index.name for one in known.indexes):
            raise IndexExistsError(index.name)
        table = await self.redefine_table(table, definition, deadline=deadline)
        added = Index(index.name, TableId(self._next), index.definition, unique_id, "creating")
        self._next += 1
        return self._with_indexes(table, (*table.indexes, added))

    async def drop_index(self, table: Table, name: str, *, definition: bytes, deadline: float) -> Table:
        await self.redefine_table(table, definition, deadline=deadline)
        return self.moved(table.name, name, "deleting")

    def _check_same(self, table: Table) -> None:
        known = self._tables[table.wire, table.name]
        if (known.definition, known.indexes) != (table.definition, table.indexes):
            raise TableChangedError(table.name)

    def moved(self, table: str, index: str, state: IndexState) -> Table:
        """Bring an index into another state, as the services do in the background; what is deleted stays so."""
        known = self._tables["dynamodb", table]
        indexes = [msgspec.structs.replace(one, state=state) if one.name == index else one for one in known.indexes]
        return self._with_indexes(known, tuple(indexes))

    def without_index(self, table: str, index: str) -> Table:
        known = self._tables["dynamodb", table]
        return self._with_indexes(known, tuple(one for one in known.indexes if one.name != index))

    def _with_indexes(self, table: Table, indexes: tuple[Index, ...]) -> Table:
        changed = msgspec.structs.replace(table, indexes=indexes)
        self._tables[table.wire, table.name] = changed
        return changed

    async def drop_table(self, table: Table, *, deadline: float) -> None:
        del self._tables[table.wire, table.name]
        start, end = table_range(table.id)
        for kept in self._kept:
            for key in list(kept.irange(start, end)):
                del kept[key]

    def _take_over(self) -> None:
        """Have another map, as every change makes one."""
        self.current = msgspec.structs.replace(
            self.current, epoch=self.current.epoch + 1, tables=tuple(self._tables.values())
        )

    def tables(self, wire: str) -> list[Table]:
        return sorted((table for table in self._tables.values() if table.wire == wire), key=lambda table: table.name)
