"""The services that keep items, over dicts: leaderless rows, items with leaders, transactions, counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sortedcontainers import SortedDict

from merganser.core.rows import is_tombstone, merge, stamp
from merganser.model.cluster import Table
from merganser.model.consistency import ReadLevel, WriteLevel, needed_to_read
from merganser.model.errors import (
    IdempotentParameterMismatchError,
    MerganserError,
    TransactionCanceledError,
)
from merganser.model.ids import TableId
from merganser.model.leader_messages import Changed, Led, LedRows
from merganser.model.messages import Found
from merganser.model.register import Decided, Version
from merganser.model.row import Mutation, Row
from merganser.model.timestamp import Timestamp
from merganser.model.transaction import Reason, ReasonKind
from merganser.service.counts import Count, total
from merganser.service.steps import WIRES
from merganser.service.transactions import TransactItem
from merganser.storage.keys import entry_of, table_in, table_range
from merganser.storage.values import encode_row
from merganser.wire.dynamodb.index_items import indexer, local_indexer, local_measurer
from merganser.wire.dynamodb.items import size_of
from merganser.wire.dynamodb.steps import evaluate

NOW_US = 1_790_000_000_000_000


class FakeRangePage(NamedTuple):
    rows: list[tuple[bytes, Row]]
    resume: bytes | None


class FakeCoordinator:
    """Keeps rows in order; remembers the levels it was asked for; fails keys on demand."""

    def __init__(self) -> None:
        self.rows: SortedDict[bytes, Row] = SortedDict()
        self.levels: list[WriteLevel | ReadLevel] = []
        self.failure: Callable[[bytes], Exception | None] = lambda key: None
        self.page_rows_max = 1000
        self.ranges_read = 0
        self.now_us = NOW_US
        self._writes = 0

    def wall_us(self) -> int:
        return self.now_us

    async def write(self, table: Table, key: bytes, mutation: Mutation, *, level: WriteLevel, deadline: float) -> None:
        self._admit(key, level, deadline)
        self._writes += 1
        row = stamp(mutation, Timestamp(NOW_US + self._writes, 1))
        before = self.rows.get(key)
        self.rows[key] = row if before is None else merge(before, row)

    def at_once(self, table: Table, key: bytes, *, level: ReadLevel) -> Found | None:
        if needed_to_read(level, table.n).nodes > 1 or self.failure(key) is not None:
            return None
        self.levels.append(level)
        row = self.rows.get(key)
        return Found(None if row is None else encode_row(key, row))

    async def read(self, table: Table, key: bytes, *, level: ReadLevel, deadline: float) -> Row | None:
        self._admit(key, level, deadline)
        return self.rows.get(key)

    async def read_range(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool,
        level: ReadLevel,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> FakeRangePage:
        assert rows_max >= 1
        assert bytes_max >= 1
        self.ranges_read += 1
        self._admit(start, level, deadline)
        rows: list[tuple[bytes, Row]] = []
        keys = self.rows.irange(start, end, inclusive=(True, False), reverse=reverse)
        for seen, key in enumerate(keys):
            if seen == min(rows_max, self.page_rows_max):
                return FakeRangePage(rows, key if not reverse else key + b"\x00")
            if not is_tombstone(self.rows[key], NOW_US // 1_000_000):
                rows.append((key, self.rows[key]))
        return FakeRangePage(rows, None)

    def _admit(self, key: bytes, level: WriteLevel | ReadLevel, deadline: float) -> None:
        assert deadline > asyncio.get_running_loop().time()
        self.levels.append(level)
        failure = self.failure(key)
        if failure is not None:
            raise failure


class FakeLeaderBased:
    """Leads everything: keeps items in order, and does steps with the wire's own evaluator."""

    def __init__(self) -> None:
        self.items: SortedDict[bytes, bytes] = SortedDict()
        self.are_consistent: list[bool] = []
        """What reads asked for."""
        self.failure: Callable[[bytes], Exception | None] = lambda key: None
        self.page_items_max = 1000
        self.ranges_read = 0
        self.tables: Callable[[], Iterable[Table]] = tuple
        """All there are."""
        self.is_elsewhere = False
        """Items are held by other nodes."""
        self._changes = 0

    def value_at_once(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        if self.is_elsewhere or self.failure(key) is not None:
            return None
        self.are_consistent.append(is_consistent)
        return self.items.get(key, b"")

    async def change(self, table: Table, key: bytes, kind: int, payload: bytes, *, deadline: float) -> Changed:
        self._admit(key, deadline)
        assert kind == WIRES
        decided = evaluate(table, payload, self.items.get(key))
        if decided.content is not None:
            self._changes += 1
            if decided.content.value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = decided.content.value
        return Changed(decided.answer, decided.is_rejected, Version(1, 1, self._changes))

    async def change_all(
        self, changes: Iterable[tuple[Table, bytes, bytes]], kind: int, *, deadline: float
    ) -> list[Changed | MerganserError]:
        done: list[Changed | MerganserError] = []
        for change in changes:
            table, key, payload = change
            try:
                done.append(await self.change(table, key, kind, payload, deadline=deadline))
            except MerganserError as error:
                done.append(error)
        return done

    async def read(self, table: Table, key: bytes, *, is_consistent: bool, deadline: float) -> Led:
        self._admit(key, deadline)
        self.are_consistent.append(is_consistent)
        return Led(self.items.get(key), Version(1, 1, self._changes))

    async def read_range(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool,
        is_consistent: bool,
        rows_max: int,
        bytes_max: int,
        deadline: float,
        index: int | None = None,
    ) -> LedRows:
        assert rows_max >= 1
        assert bytes_max >= 1
        self.ranges_read += 1
        self._admit(start, deadline)
        self.are_consistent.append(is_consistent)
        rows: list[tuple[bytes, bytes]] = []
        kept = self._entries(table, index)
        for key in kept.irange(start, end, inclusive=(True, False), reverse=reverse):
            if len(rows) == min(rows_max, self.page_items_max):
                return LedRows(tuple(rows), key if not reverse else key + b"\x00")
            rows.append((key, kept[key]))
        return LedRows(tuple(rows), None)

    async def read_index(
        self,
        index: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> LedRows:
        return await self.read_range(
            index,
            start,
            end,
            reverse=reverse,
            is_consistent=False,
            rows_max=rows_max,
            bytes_max=bytes_max,
            deadline=deadline,
        )

    def _entries(self, table: Table, index: int | None) -> SortedDict[bytes, bytes]:
        """Return what is read: the items, or those that stand in an index, as if entries were always up to date."""
        bases = [base for base in self.tables() if table.id in {one.table for one in base.indexes}]
        if index is None and not bases:
            return self.items
        found: SortedDict[bytes, bytes] = SortedDict()
        for base in bases or [table]:
            for key in self.items.irange(*table_range(base.id), inclusive=(True, False)):
                value = self.items[key]
                if index is None:
                    found.update(
                        (one.key, one.value) for one in indexer(base, key, value) if table_in(one.key) == table.id
                    )
                else:
                    local_keys = local_indexer(base)
                    assert local_keys is not None
                    found.update((entry_of(key, *one), value) for one in local_keys(value) if one[0] == index)
        return found

    def _admit(self, key: bytes, deadline: float) -> None:
        assert deadline > asyncio.get_running_loop().time()
        failure = self.failure(key)
        if failure is not None:
            raise failure


class FakeTransactions:
    """Does several steps at once, or none; remembers tokens for as long as one of their tables is there."""

    def __init__(self, leader_based: FakeLeaderBased) -> None:
        self.conflicts: Callable[[bytes], bool] = lambda key: False
        self._leader_based = leader_based
        self._items = leader_based.items
        self._tokens: dict[bytes, tuple[bytes, set[TableId]]] = {}
        """Digests and tables."""

    async def write(
        self, items: Sequence[TransactItem], *, token: bytes | None, digest: bytes, deadline: float
    ) -> list[bytes]:
        assert deadline > asyncio.get_running_loop().time()
        there = {table.id for table in self._leader_based.tables()}
        known, tables = self._tokens.get(token or b"", (b"", set[TableId]()))
        if tables & there:
            if known != digest:
                raise IdempotentParameterMismatchError("another request had the token")
            return [b""] * len(items)
        decided = [evaluate(item.table, item.payload, self._items.get(item.key)) for item in items]
        reasons = [self._reason(item, one) for item, one in zip(items, decided, strict=True)]
        if any(reasons):
            answers = [one.answer if reason is None else None for reason, one in zip(reasons, decided, strict=True)]
            raise TransactionCanceledError("no", reasons, answers)
        for item, one in zip(items, decided, strict=True):
            if one.content is not None and not item.is_check:
                if one.content.value is None:
                    self._items.pop(item.key, None)
                else:
                    self._items[item.key] = one.content.value
        if token is not None:
            self._tokens[token] = (digest, {item.table.id for item in items})
        return [one.answer for one in decided]

    async def get(self, places: Sequence[tuple[Table, bytes]], *, deadline: float) -> list[bytes | None]:
        reasons = [Reason(ReasonKind.CONFLICT) if self.conflicts(key) else None for _, key in places]
        if any(reasons):
            raise TransactionCanceledError("no", reasons)
        return [self._items.get(key) for _, key in places]

    def _reason(self, item: TransactItem, decided: Decided) -> Reason | None:
        if self.conflicts(item.key):
            return Reason(ReasonKind.CONFLICT)
        return Reason(ReasonKind.REJECTED, decided.answer) if decided.is_rejected else None


class FakeCounting:
    """Counts at once."""

    def __init__(self, leader_based: FakeLeaderBased) -> None:
        self._items = leader_based.items
        self._leader_based = leader_based
        self.knows = True

    async def around(self, table: Table, key: bytes) -> Count | None:
        """As if a table were one partition."""
        return await self.count(table.id, table.n) if self.knows else None

    async def count(self, table: TableId, n: int) -> Count:
        items = [self._items[key] for key in self._items.irange(*table_range(table), inclusive=(True, False))]
        base = next((one for one in self._leader_based.tables() if one.id == table), None)
        sizes_of = None if base is None or not base.has_leaders else local_measurer(base)
        local = [Count(0, 0, ((number, 1, size),)) for item in items if sizes_of for number, size in sizes_of(item)]
        return total([*(Count(1, size_of(item)) for item in items), *local])
