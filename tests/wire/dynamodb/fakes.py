"""A cluster of one process: both kinds of tables, and the catalog, over dicts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import orjson
from sortedcontainers import SortedDict

from merganser.core.rows import is_tombstone, merge, stamp
from merganser.model.cluster import ClusterMap, Index, IndexState, NodeRecord, Replication, Table
from merganser.model.consistency import UNSAID, Consistency, Levels, ReadLevel, WriteLevel, needed_to_read
from merganser.model.errors import (
    IdempotentParameterMismatchError,
    IndexExistsError,
    MerganserError,
    RequestError,
    TableChangedError,
    TableExistsError,
    TableNotFoundError,
    TransactionCanceledError,
)
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.model.index import IndexRequest
from merganser.model.leader_messages import Changed, Led, LedRows
from merganser.model.messages import Found
from merganser.model.policy import Policy
from merganser.model.register import Decided, Version
from merganser.model.row import Mutation, Row
from merganser.model.timestamp import Timestamp
from merganser.model.transaction import Reason, ReasonKind
from merganser.net.http import Application, Request, Response
from merganser.service.counts import Count, total
from merganser.service.steps import WIRES
from merganser.service.transactions import TransactItem
from merganser.storage.keys import entry_of, table_in, table_range
from merganser.storage.values import encode_row
from merganser.wire.dynamodb.errors import Fault, fault_of
from merganser.wire.dynamodb.index_items import indexer, local_indexer, local_measurer
from merganser.wire.dynamodb.items import size_of
from merganser.wire.dynamodb.operations import DynamoDB
from merganser.wire.dynamodb.session import Services
from merganser.wire.dynamodb.steps import evaluate

T = TypeVar("T")

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


async def served(
    dynamodb: DynamoDB, operation: str, body: bytes, levels: Levels = UNSAID, *, region: str | None = None
) -> bytes | list[bytes]:
    """Wait for the answer if it is not there at once."""
    answer = dynamodb.call(operation, body, levels, region=region)
    return answer if isinstance(answer, bytes | list) else await answer


async def answered(application: Application, request: Request) -> Response:
    """Wait for the answer if it is not there at once."""
    answer = application(request)
    return answer if isinstance(answer, Response) else await answer


class Cluster:
    """A DynamoDB over the fakes, called as clients call it."""

    def __init__(self, *, is_leaderless: bool = False, table_delay_ms: int = 0) -> None:
        """``is_leaderless`` is of the tables that `create` makes."""
        self.is_leaderless = is_leaderless
        self.coordinator = FakeCoordinator()
        self.leader_based = FakeLeaderBased()
        self.catalog = FakeCatalog(self.coordinator, self.leader_based)
        self.transactions = FakeTransactions(self.leader_based)
        self.counting = FakeCounting(self.leader_based)
        services = Services(
            self.coordinator,  # type: ignore[arg-type]
            self.leader_based,  # type: ignore[arg-type]
            self.transactions,  # type: ignore[arg-type]
            self.catalog,  # type: ignore[arg-type]
            self.counting,  # type: ignore[arg-type]
        )
        self._services = services
        self.dynamodb = self.another(table_delay_ms=table_delay_ms)
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def another(self, *, table_delay_ms: int = 0) -> DynamoDB:
        """Return the API as another node of the cluster serves it."""
        return DynamoDB(self._services, rng=random.Random(7), table_delay_ms=table_delay_ms)

    def passes(self, ms: int) -> None:
        """Let the clock go on."""
        self.coordinator.now_us += ms * 1000

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def call(self, operation: str, request: Any, level: Consistency | None = None) -> Any:
        """Return the answer, or "Type | message" of the error."""
        answer = self._answer(operation, request, level)
        if isinstance(answer, Fault):
            return f"{answer.kind.partition('#')[2]} | {answer.message}"
        return orjson.loads(answer if isinstance(answer, bytes) else b"".join(answer))

    def fault(self, operation: str, request: Any) -> Fault:
        """Return the error, as it goes on the wire."""
        answer = self._answer(operation, request, None)
        assert isinstance(answer, Fault), answer
        return answer

    def fault_or_none(self, operation: str, request: Any) -> Fault | None:
        """Return the error, if there is one."""
        answer = self._answer(operation, request, None)
        return answer if isinstance(answer, Fault) else None

    def _answer(self, operation: str, request: Any, level: Consistency | None) -> bytes | list[bytes] | Fault:
        body = request if isinstance(request, bytes) else orjson.dumps(request)
        try:
            levels = UNSAID if level is None else Levels(level, level)
            return self.run(served(self.dynamodb, operation, body, levels))
        except Exception as error:
            fault = fault_of(error)
            if fault.status == 500 and "outcome" not in fault.message:
                raise
            return fault

    @property
    def kept(self) -> SortedDict[bytes, Any]:
        """What is stored in tables that `create` made."""
        return self.coordinator.rows if self.is_leaderless else self.leader_based.items

    @property
    def ranges_read(self) -> int:
        """How many reads of ranges there were."""
        return self.coordinator.ranges_read + self.leader_based.ranges_read

    def fails(self, failure: Callable[[bytes], Exception | None]) -> None:
        """Fail whatever is done to the keys for which ``failure`` returns an error."""
        self.coordinator.failure = self.leader_based.failure = failure

    def stops_after(self, rows: int) -> None:
        """Read no more than so many rows of a range at once."""
        self.coordinator.page_rows_max = self.leader_based.page_items_max = rows

    def create(self, name: str, partition: str = "S", sort: str | None = None) -> None:
        keys = [("p", partition, "HASH")] + ([("s", sort, "RANGE")] if sort else [])
        answer = self.call(
            "CreateTable",
            {
                "TableName": name,
                "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind, _ in keys],
                "KeySchema": [{"AttributeName": key, "KeyType": role} for key, _, role in keys],
                "BillingMode": "PAY_PER_REQUEST",
                "Tags": [{"Key": "merganser:replication", "Value": "leaderless"}] if self.is_leaderless else [],
            },
        )
        assert isinstance(answer, dict), answer
