"""Throughput that is enforced: for tables with the tag ``merganser:enforce-throughput`` = ``true``, and no others.

A table's ProvisionedThroughput, or on demand its OnDemandThroughput, is shared out to the nodes: each lets through its
share of what the table may take, by what requests took through it before (`core.token_bucket`). So a table is held to
its throughput where clients spread over all nodes, and to less where they do not.

Reads and writes of items are metered where they leave for the cluster, so each item of a batch is for itself. Once a
page of a range is let in, the rest of the request is. A write takes what its item was or becomes, a transaction twice
that; of its updates, whose items are not seen here, it takes two units each. Secondary indexes have their own
throughput, which is not enforced.

While no table has the tag, sessions are not metered at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from merganser.core.token_bucket import TokenBucket
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Levels
from merganser.model.ids import TableId
from merganser.wire.dynamodb.capacity import (
    READ_BYTES,
    read_units,
    transact_read_units,
    transact_write_units,
    write_units,
)
from merganser.wire.dynamodb.errors import ApiError, OnDemandLimitError, ThroughputExceededError
from merganser.wire.dynamodb.items import size_of
from merganser.wire.dynamodb.session import WIRE, ItemPage, Services, Session
from merganser.wire.dynamodb.steps import ItemStep, Measured, measured_in, put_in
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.tags import is_enforced

if TYPE_CHECKING:
    from merganser.service.transactions import TransactItem

_NO_LIMIT: Final = float("inf")
"""Of a table on demand without a limit of that kind."""


class Meter:
    """One kind of throughput of one table, at this node."""

    __slots__ = ("_bucket", "is_on_demand")

    def __init__(self, per_s: float) -> None:
        """Let ``per_s`` units through a second."""
        self._bucket = TokenBucket(per_s, _now_s())
        self.is_on_demand = False

    def become(self, per_s: float, *, is_on_demand: bool) -> None:
        """Let another number of units through from now on."""
        self._bucket.become(per_s, _now_s())
        self.is_on_demand = is_on_demand

    def admit(self) -> None:
        """Let one read or write in.

        Raises:
            ThroughputExceededError: there is no throughput left; nothing was done.
        """
        if not self._bucket.is_open(_now_s()):
            kind = OnDemandLimitError if self.is_on_demand else ThroughputExceededError
            raise kind(kind.text)

    def take(self, units: float) -> None:
        """Take note of what it took."""
        self._bucket.take(units, _now_s())


class Meters:
    """The meters of this node; see the module's docstring."""

    def __init__(self, services: Services) -> None:
        """Meter the tables of ``services``."""
        self._services = services
        self._known: ClusterMap | None = None
        self._enforced: frozenset[TableId] = frozenset()
        self._meters: dict[tuple[TableId, bool], Meter] = {}

    def session(self, *, levels: Levels, deadline: float) -> Session:
        """Return the session of a request, metered if any table is."""
        current = self._services.catalog.current
        if current is not self._known:
            self._look_at(current)
        if not self._enforced:
            return Session(self._services, levels=levels, deadline=deadline)
        return _MeteredSession(self._services, self, levels=levels, deadline=deadline)

    def of(self, table: Table, *, is_write: bool) -> Meter | None:
        """Return the meter of a table's reads or writes, None if they are not enforced."""
        if table.id not in self._enforced:
            return None
        return self._meters.get((table.id, is_write))

    def _look_at(self, current: ClusterMap) -> None:
        self._known = current
        tables = [table for table in current.tables if table.wire == WIRE and is_enforced(definition_of(table).tags)]
        self._enforced = frozenset(table.id for table in tables)
        kept: dict[tuple[TableId, bool], Meter] = {}
        for table in tables:
            is_on_demand = definition_of(table).throughput is None
            for is_write, units in enumerate(_units_of(table)):
                if units != _NO_LIMIT:
                    place, share = (table.id, bool(is_write)), units / len(current.nodes)
                    kept[place] = self._meters.get(place) or Meter(share)
                    kept[place].become(share, is_on_demand=is_on_demand)
        self._meters = kept


class _MeteredSession(Session):
    """A session whose reads and writes are metered."""

    __slots__ = ("_meters", "_paged")

    def __init__(self, services: Services, meters: Meters, *, levels: Levels, deadline: float) -> None:
        super().__init__(services, levels=levels, deadline=deadline)
        self._meters = meters
        self._paged: set[TableId] = set()
        """Tables of which a page was let in."""

    async def replace(self, table: Table, key: bytes, item: bytes | None) -> None:
        if self._meters.of(table, is_write=True) is None:
            await super().replace(table, key, item)
        else:
            await self.replace_measured(table, key, item)

    async def replace_measured(self, table: Table, key: bytes, item: bytes | None) -> Measured:
        if table.has_leaders:  # it is a step, which is metered
            return await super().replace_measured(table, key, item)
        meter = self._meters.of(table, is_write=True)
        if meter is not None:
            meter.admit()
        await super().replace(table, key, item)
        measured = Measured(0, 0 if item is None else size_of(item))
        if meter is not None:
            meter.take(write_units(measured.before, measured.after))
        return measured

    async def step(self, table: Table, key: bytes, step: ItemStep) -> bytes:
        meter = self._meters.of(table, is_write=True)
        if meter is None:
            return await super().step(table, key, step)
        meter.admit()
        try:
            answer = await super().step(table, key, step.measured())
        except ApiError:  # a condition that does not hold has cost as much as to look
            meter.take(write_units(0, 0))
            raise
        measured = measured_in(answer)
        meter.take(write_units(measured.before, measured.after))
        return answer if step.measures else measured.attributes

    async def item(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        meter = self._meters.of(table, is_write=False)
        if meter is not None:
            meter.admit()
        item = await super().item(table, key, is_consistent=is_consistent)
        if meter is not None:
            meter.take(read_units(0 if item is None else size_of(item), is_consistent=is_consistent))
        return item

    async def page(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool,
        is_consistent: bool,
        rows_max: int,
        bytes_max: int,
        index: int | None = None,
    ) -> ItemPage:
        meter = self._meters.of(table, is_write=False)
        is_first = table.id not in self._paged
        if meter is not None and is_first:
            meter.admit()
            self._paged.add(table.id)
        page = await super().page(
            table,
            start,
            end,
            reverse=reverse,
            is_consistent=is_consistent,
            rows_max=rows_max,
            bytes_max=bytes_max,
            index=index,
        )
        if meter is not None:
            units = max(float(is_first), sum(map(size_of, page.items)) / READ_BYTES)
            meter.take(units if is_consistent else units / 2)
        return page

    async def transact(self, items: Sequence[TransactItem], *, token: bytes | None, digest: bytes) -> list[bytes]:
        metered = [(item, self._meters.of(item.table, is_write=True)) for item in items]
        for _, meter in metered:
            if meter is not None:
                meter.admit()
        answers = await super().transact(items, token=token, digest=digest)
        for item, meter in metered:
            if meter is not None:
                put = put_in(item.payload)
                meter.take(transact_write_units(0, 0 if put is None else size_of(put)))
        return answers

    async def snapshot(self, places: Sequence[tuple[Table, bytes]]) -> list[bytes | None]:
        metered = [self._meters.of(table, is_write=False) for table, _ in places]
        for meter in metered:
            if meter is not None:
                meter.admit()
        found = await super().snapshot(places)
        for meter, item in zip(metered, found, strict=True):
            if meter is not None:
                meter.take(transact_read_units(0 if item is None else size_of(item)))
        return found


def _units_of(table: Table) -> tuple[float, float]:
    """Return what a table may take a second, of reads and of writes."""
    definition = definition_of(table)
    if definition.throughput is not None:
        return definition.throughput.read_units, definition.throughput.write_units
    limits = definition.on_demand_limits
    if limits is None:
        return _NO_LIMIT, _NO_LIMIT
    return (
        _NO_LIMIT if limits.read_units is None else limits.read_units,
        _NO_LIMIT if limits.write_units is None else limits.write_units,
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
