"""Throughput that is enforced: for tables with the tag ``merganser:enforce-throughput`` = ``true``, and no others.

A table's ProvisionedThroughput, or on demand its OnDemandThroughput, is shared out to the nodes: each lets through its
share of what the table may take, by what requests took through it before (`core.token_bucket`). So a table is held to
its throughput where clients spread over all nodes, and to less where they do not.

Reads and writes of items are metered where they leave for the cluster, so each item of a batch is for itself. Once a
page of a range is let in, the rest of the request is. A write takes what its item was or becomes, a transaction twice
that, of items that it only checks as well; also if it is cancelled: then by what is known of its items. One that had
happened before takes what reading its items takes. Global indexes have throughput of their own: a write is let in if
each has some left, and takes of each what it changes there. What local indexes take is the table's. The table and its
indexes are held to it together.

While no table has the tag, sessions are not metered at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from merganser.core.token_bucket import TokenBucket
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Levels
from merganser.model.errors import MerganserError, TransactionCanceledError
from merganser.model.ids import TableId
from merganser.model.transaction import Reason, ReasonKind
from merganser.wire.dynamodb.capacity import (
    READ_BYTES,
    read_units,
    transact_read_units,
    transact_write_units,
    write_units,
)
from merganser.wire.dynamodb.errors import (
    ApiError,
    IndexThroughputExceededError,
    OnDemandLimitError,
    ThroughputExceededError,
)
from merganser.wire.dynamodb.items import size_of
from merganser.wire.dynamodb.session import WIRE, ItemPage, PageRequest, Services, Session
from merganser.wire.dynamodb.steps import (
    ConditionFailedError,
    ItemStep,
    Measured,
    measured_in,
    payload_of,
    rejection_in,
    step_in,
)
from merganser.wire.dynamodb.table_settings import OnDemandLimits
from merganser.wire.dynamodb.tables import definition_of, settings_of
from merganser.wire.dynamodb.tags import is_enforced

if TYPE_CHECKING:
    from merganser.service.transactions import TransactItem

_NOTHING: Final[Mapping[str, float]] = {}
_UNLIMITED: Final = OnDemandLimits()


class Meter:
    """One kind of throughput of one table or global index, at this node."""

    __slots__ = ("_bucket", "error")

    def __init__(self, per_s: float, error: type[ThroughputExceededError]) -> None:
        """Let ``per_s`` units through a second; ``error`` is raised beyond."""
        self._bucket = TokenBucket(per_s, _now_s())
        self.error = error

    def become(self, per_s: float, error: type[ThroughputExceededError]) -> None:
        """Let another number of units through from now on."""
        self._bucket.become(per_s, _now_s())
        self.error = error

    def admit(self) -> None:
        """Let one read or write in.

        Raises:
            ThroughputExceededError: there is no throughput left; nothing was done.
        """
        if not self._bucket.is_open(_now_s()):
            raise self.error(self.error.text)

    def take(self, units: float) -> None:
        """Take note of what it took."""
        self._bucket.take(units, _now_s())


class WriteMeters(NamedTuple):
    """Those of the writes of a table."""

    own: Meter | None
    indexes: Mapping[str, Meter]
    """Of its global indexes, by name."""

    def admit(self) -> None:
        """Let one write in, as `Meter.admit`."""
        for meter in (self.own, *self.indexes.values()):
            if meter is not None:
                meter.admit()

    def take(self, units: float, of_indexes: Mapping[str, float] = _NOTHING) -> None:
        """Take note of what it took, of the table and of its indexes, local ones among them."""
        for name, taken in of_indexes.items():
            if name in self.indexes:
                self.indexes[name].take(taken)
            else:
                units += taken
        if self.own is not None:
            self.own.take(units)


class Meters:
    """The meters of this node; see the module's docstring."""

    def __init__(self, services: Services) -> None:
        """Meter the tables of ``services``."""
        self._services = services
        self._known: ClusterMap | None = None
        self._writes: dict[TableId, WriteMeters] = {}
        """Of the tables that are held to their throughput."""
        self._meters: dict[tuple[TableId, bool], Meter] = {}
        """Of tables and of the tables of their global indexes, by whether they are of writes."""

    def session(self, *, levels: Levels, deadline: float) -> Session:
        """Return the session of a request, metered if any table is."""
        current = self._services.catalog.current
        if current is not self._known:
            self._look_at(current)
        if not self._writes:
            return Session(self._services, levels=levels, deadline=deadline)
        return _MeteredSession(self._services, self, levels=levels, deadline=deadline)

    def reads(self, table: TableId) -> Meter | None:
        """Return the meter of the reads of a table, or of the table of a global index; None: it has no limit."""
        return self._meters.get((table, False))

    def writes(self, table: TableId) -> WriteMeters | None:
        """Return the meters of a table's writes, None if it is not held to its throughput."""
        return self._writes.get(table)

    def _look_at(self, current: ClusterMap) -> None:
        self._known = current
        kept: dict[tuple[TableId, bool], Meter] = {}
        self._writes = {}
        for table in current.tables:
            if table.wire == WIRE and is_enforced(definition_of(table).tags):
                self._hold(table, kept, nodes=len(current.nodes))
        self._meters = kept

    def _hold(self, table: Table, kept: dict[tuple[TableId, bool], Meter], *, nodes: int) -> None:
        definition = definition_of(table)
        limits = [(table.id, definition.throughput, definition.on_demand_limits, ThroughputExceededError)]
        for index in table.indexes:
            settings = settings_of(definition, index)
            limits.append((index.table, settings.throughput, settings.on_demand_limits, IndexThroughputExceededError))
        for held, throughput, on_demand, error in limits:
            units = throughput or on_demand or _UNLIMITED
            kind = OnDemandLimitError if throughput is None else error
            for is_write, most in (False, units.read_units), (True, units.write_units):
                if most is not None:
                    place, share = (held, is_write), most / nodes
                    kept[place] = self._meters.get(place) or Meter(share, kind)
                    kept[place].become(share, kind)
        indexes = {index.name: (index.table, True) for index in table.indexes}
        of_indexes = {name: kept[place] for name, place in indexes.items() if place in kept}
        self._writes[table.id] = WriteMeters(kept.get((table.id, True)), of_indexes)


class _MeteredSession(Session):
    """A session whose reads and writes are metered."""

    __slots__ = ("_meters", "_paged")

    def __init__(self, services: Services, meters: Meters, *, levels: Levels, deadline: float) -> None:
        super().__init__(services, levels=levels, deadline=deadline)
        self._meters = meters
        self._paged: set[TableId] = set()
        """Tables of which a page was let in."""

    async def replace(self, table: Table, key: bytes, item: bytes | None) -> None:
        if self._meters.writes(table.id) is None:
            await super().replace(table, key, item)
        else:
            await self.replace_measured(table, key, item)

    async def replace_all(self, writes: Sequence[tuple[Table, bytes, bytes | None]]) -> list[MerganserError | None]:
        if any(self._meters.writes(table.id) is not None for table, _, _ in writes):
            return await self._replace_each(writes)
        return await super().replace_all(writes)

    async def replace_measured(self, table: Table, key: bytes, item: bytes | None) -> Measured:
        if table.has_leaders:  # it is a step, which is metered
            return await super().replace_measured(table, key, item)
        meter = self._meters.writes(table.id)
        if meter is not None:
            meter.admit()
        await super().replace(table, key, item)
        measured = Measured(0, 0 if item is None else size_of(item))
        if meter is not None:
            meter.take(write_units(measured.before, measured.after))
        return measured

    async def step(self, table: Table, key: bytes, step: ItemStep) -> bytes:
        meter = self._meters.writes(table.id)
        if meter is None:
            return await super().step(table, key, step)
        meter.admit()
        try:
            answer = await super().step(table, key, step.measured())
        except ConditionFailedError as error:  # which costs what the write would have, of the item as it is
            meter.take(write_units(error.size, 0))
            raise
        except ApiError:
            meter.take(write_units(0, 0))
            raise
        measured = measured_in(answer)
        meter.take(write_units(measured.before, measured.after), measured.indexes)
        return answer if step.measures else measured.attributes

    def item_at_once(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        is_metered = self._meters.reads(table.id) is not None
        return None if is_metered else super().item_at_once(table, key, is_consistent=is_consistent)

    async def item(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        meter = self._meters.reads(table.id)
        if meter is not None:
            meter.admit()
        item = await super().item(table, key, is_consistent=is_consistent)
        if meter is not None:
            meter.take(read_units(0 if item is None else size_of(item), is_consistent=is_consistent))
        return item

    async def page(self, table: Table, wanted: PageRequest) -> ItemPage:
        meter = self._meters.reads(table.id)
        is_first = self._let_in(meter, table.id)
        page = await super().page(table, wanted)
        if meter is not None:
            units = _page_units(page, is_first=is_first)
            meter.take(units if wanted.is_consistent else units / 2)
        return page

    async def entries(self, index: Table, wanted: PageRequest) -> ItemPage:
        meter = self._meters.reads(index.id)
        is_first = self._let_in(meter, index.id)
        page = await super().entries(index, wanted)
        if meter is not None:
            meter.take(_page_units(page, is_first=is_first) / 2)
        return page

    def _let_in(self, meter: Meter | None, table: TableId) -> bool:
        """Let the first page of a range in; returns whether this is it."""
        if meter is None or table in self._paged:
            return False
        meter.admit()
        self._paged.add(table)
        return True

    async def transact(self, items: Sequence[TransactItem], *, token: bytes | None, digest: bytes) -> list[bytes]:
        metered = [_Metered.of(item, self._meters.writes(item.table.id)) for item in items]
        for one in metered:
            if one.meter is not None:
                one.meter.admit()
        try:
            answers = await super().transact([one.measured for one in metered], token=token, digest=digest)
        except TransactionCanceledError as error:
            for one, reason, answer in zip(metered, error.reasons, error.answers, strict=True):
                one.take_cancelled(reason, answer)
            raise
        if not all(answer for one, answer in zip(metered, answers, strict=True) if one.meter is not None):
            await self._take_repeated(items)
            return answers
        return [one.done(answer) for one, answer in zip(metered, answers, strict=True)]

    async def _take_repeated(self, items: Sequence[TransactItem]) -> None:
        """Take note of what a transaction took that had happened before: it reads its items."""
        metered = [(item, meter) for item in items if (meter := self._meters.reads(item.table.id)) is not None]
        found: list[bytes | None] = [None] * len(metered)
        try:
            found = await self.items_of([item for item, _ in metered])
        except MerganserError:  # it has happened, whatever becomes of the reading
            pass
        for (_, meter), item in zip(metered, found, strict=True):
            meter.take(transact_read_units(0 if item is None else size_of(item)))

    async def snapshot(self, places: Sequence[tuple[Table, bytes]]) -> list[bytes | None]:
        metered = [self._meters.reads(table.id) for table, _ in places]
        for meter in metered:
            if meter is not None:
                meter.admit()
        found: list[bytes | None] = [None] * len(places)
        try:
            found = await super().snapshot(places)
        except TransactionCanceledError:  # nobody knows any more what was read
            _take_reads(metered, found)
            raise
        _take_reads(metered, found)
        return found


class _Metered(NamedTuple):
    """One item of a transaction, and what is held to its throughput."""

    item: TransactItem
    measured: TransactItem
    """The same, measuring, if it is metered."""
    meter: WriteMeters | None

    @classmethod
    def of(cls, item: TransactItem, meter: WriteMeters | None) -> _Metered:
        """Have a metered item tell what it takes."""
        if meter is None:
            return cls(item, item, None)
        step = step_in(item.payload)
        measured = item if step.measures else msgspec.structs.replace(item, payload=payload_of(step.measured()))
        return cls(item, measured, meter)

    def done(self, answer: bytes) -> bytes:
        """Take note of what it took; returns the answer that was asked for."""
        if self.meter is None:
            return answer
        measured = measured_in(answer)
        self.meter.take(transact_write_units(measured.before, measured.after), measured.indexes)
        return answer if self.measured is self.item else measured.attributes

    def take_cancelled(self, reason: Reason | None, answer: bytes | None) -> None:
        """Take note of what it took though nothing was written: as much, of the table; by what is known of its size."""
        if self.meter is None:
            return
        if answer:
            measured = measured_in(answer)
            sizes = measured.before, measured.after
        elif reason is not None and reason.kind is ReasonKind.REJECTED:
            sizes = rejection_in(reason.answer).size, 0
        else:
            put = step_in(self.measured.payload).item
            sizes = 0, size_of(put) if put else 0
        self.meter.take(transact_write_units(*sizes))


def _take_reads(metered: Sequence[Meter | None], found: Sequence[bytes | None]) -> None:
    for meter, item in zip(metered, found, strict=True):
        if meter is not None:
            meter.take(transact_read_units(0 if item is None else size_of(item)))


def _page_units(page: ItemPage, *, is_first: bool) -> float:
    """Return what it takes to read a page consistently; the first takes a unit at least."""
    return max(float(is_first), sum(map(size_of, page.items)) / READ_BYTES)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
