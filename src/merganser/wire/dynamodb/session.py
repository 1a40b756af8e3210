"""One request's way to the cluster: its consistency, its deadline, and the tables of this wire."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from merganser.model.cluster import Table
from merganser.model.consistency import (
    UNSAID,
    Consistency,
    Levels,
    ReadLevel,
    needed_to_read,
    needed_to_write,
)
from merganser.model.errors import (
    MerganserError,
    TableChangedError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.service.steps import WIRES
from merganser.storage.keys import after
from merganser.wire.dynamodb.arns import name_of
from merganser.wire.dynamodb.errors import NotFoundError, ValidationError
from merganser.wire.dynamodb.items import item_in, mutation, size_of, stored
from merganser.wire.dynamodb.steps import (
    DELETING,
    Action,
    ItemStep,
    Measured,
    measured_in,
    payload_of,
    putting,
    rejection_in,
)
from merganser.wire.dynamodb.table_states import UNSERVED, is_over, is_unserved, refuse_while
from merganser.wire.dynamodb.tables import TableDefinition, definition_of
from merganser.wire.dynamodb.tags import LEADERLESS_TAG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence

    from merganser.model.ids import TableId
    from merganser.model.leader_messages import Changed
    from merganser.service.catalog import Catalog
    from merganser.service.coordinator import Coordinator
    from merganser.service.counting import Counting
    from merganser.service.counts import Count
    from merganser.service.leader_based import LeaderBased
    from merganser.service.transactions import Transactions, TransactItem

WIRE: Final = "dynamodb"
INDEX_WIRE: Final = "dynamodb.index"
"""Of the tables of global indexes (`core.cluster_map`)."""


_NOT_FOUND: Final = "Requested resource not found"


class Services(NamedTuple):
    """What serves requests on this node."""

    coordinator: Coordinator
    """Does the reads and writes of leaderless tables, and knows the time."""
    leader_based: LeaderBased
    """Does the reads and writes of leader-based tables."""
    transactions: Transactions
    """Does several of those at once."""
    catalog: Catalog
    """Knows the tables."""
    counting: Counting
    """Knows how many items they have."""

    @property
    def wall_us(self) -> Callable[[], int]:
        """The time: microseconds since 1970."""
        return self.coordinator.wall_us  # asked of here, as compiled modules take no other coordinator for one


class Span(NamedTuple):
    """A range of keys and the way through it."""

    start: bytes
    end: bytes
    reverse: bool = False

    def beyond(self, key: bytes) -> Span:
        """Return what is left of the range once ``key`` was given out."""
        if self.reverse:
            return self._replace(end=min(self.end, key))
        return self._replace(start=max(self.start, after(key)))


class PageRequest(msgspec.Struct, frozen=True):
    """What a page of a range is to be."""

    span: Span
    rows_max: int
    bytes_max: int
    """Of the rows that are looked at; one at least, whatever its size."""
    is_consistent: bool = False
    index: int | None = None
    """Of a local index; such tables have leaders."""


class ItemPage(NamedTuple):
    """Some items of a range, in the order asked for."""

    items: list[bytes]
    """In stored form."""
    resume: bytes | None
    """Where the next page starts (its exclusive end, when reversed); None when nothing is left."""


def require_leaders(table: Table, what: str) -> None:
    """Refuse what only the leader of an item can do.

    Raises:
        ValidationError: the table has none.
    """
    if not table.has_leaders:
        raise ValidationError(
            f"{what} needs a table with leaders, and {table.name} is leaderless: create a table without the tag "
            f"{LEADERLESS_TAG}"
        )


class Session:
    """What the operations see of the cluster while they serve one request."""

    __slots__ = ("_levels", "_services", "deadline", "region")

    def __init__(self, services: Services, *, levels: Levels, deadline: float) -> None:
        """Bind a request to the cluster.

        Args:
            services: of this node.
            levels: what the request asked for, besides what its operation says.
            deadline: the loop's time at which the request is given up.
        """
        self._services = services
        self._levels = levels
        self.deadline = deadline
        self.region: str | None = None
        """Which the request was signed for, if its operation tells ARNs and it was."""

    @property
    def catalog(self) -> Catalog:
        """The tables."""
        return self._services.catalog

    def known(self, request: Mapping[str, object]) -> Table | None:
        """Return the table that a request names, if this node knows it and it is neither made nor deleted just now.

        None of any other, and of what is no name of a table: `table` says more.
        """
        table = self._services.catalog.known(WIRE, request.get("TableName"))
        return table if table is not None and definition_of(table).transition is None else None

    async def table(self, name: str) -> Table:
        """Return a table whose items are served, under the name, or ARN, that the request gives it.

        Raises:
            NotFoundError: with DynamoDB's text.
        """
        table = await self._known(name, _NOT_FOUND)
        if self._is_unserved(table):
            table = await self.table_in_any_state(name, is_newest=True)  # it may be gone by now, and made anew
            if self._is_unserved(table):
                raise NotFoundError(_NOT_FOUND)
        return table

    async def table_in_any_state(self, name: str, not_found: str = _NOT_FOUND, *, is_newest: bool = False) -> Table:
        """Return a table of this wire, under the name, or ARN, that the request gives it, which its answer repeats.

        One whose deletion is over is dropped first, and not found.

        Args:
            name: or ARN.
            not_found: DynamoDB's text.
            is_newest: it is to be as the last change made it, not as this node knows it.

        Raises:
            NotFoundError: with DynamoDB's text ``not_found``.
        """
        table = await self._known(name, not_found, is_newest=is_newest)
        while self._is_over(table):
            await self._drop(table)
            table = await self._known(name, not_found, is_newest=is_newest)
        return table

    async def _known(self, name: str, not_found: str, *, is_newest: bool = False) -> Table:
        arn = None
        if name.startswith("arn:"):
            arn, name = name, name_of(name)
        try:
            table = await self._services.catalog.table(WIRE, name, deadline=self.deadline, is_newest=is_newest)
        except TableNotFoundError:
            raise NotFoundError(not_found) from None
        return table if arn is None else msgspec.structs.replace(table, name=arn)

    async def tables(self) -> list[Table]:
        """Return the tables of this wire, in order of name, without those whose deletion is over, which are dropped."""
        for table in self._services.catalog.tables(WIRE):
            if self._is_over(table):
                with contextlib.suppress(UnavailableError, UnknownOutcomeError):  # it is DELETING until it can be
                    await self._drop(table)
        return self._services.catalog.tables(WIRE)

    async def counts(self, table: Table) -> Mapping[TableId, Count]:
        """Return how many items a table and its global indexes have, as far as that is counted."""
        if not table.has_leaders:
            return {}
        tables = [table.id, *(index.table for index in table.indexes)]
        counted = await asyncio.gather(*(self._services.counting.count(one, table.rule) for one in tables))
        return dict(zip(tables, counted, strict=True))

    async def bytes_around(self, table: Table, key: bytes) -> int | None:
        """Return the size of what the partition of a key of a table with leaders holds, if anybody can tell.

        What local indexes show of it counts, too.
        """
        count = await self._services.counting.around(table, key)
        return None if count is None else count.size_bytes + sum(size for _, _, size in count.local)

    async def redefine(
        self,
        name: str,
        change: Callable[[Table], TableDefinition],
        not_found: NotFoundError,
        make: Callable[[Table, bytes], Awaitable[Table]] | None = None,
        *,
        refused_while: Collection[str] = UNSERVED,
    ) -> tuple[TableDefinition, Table]:
        """Change the definition of a table; returns what it was, and the table as it is afterwards.

        Args:
            name: of the table, no ARN.
            change: of the table as it is; may be called several times, each time with a newer one; raises to give up.
            not_found: raised if there is no such table.
            make: makes the table, if it still is as it was shown to ``change``, what is wanted, in one step of the
                catalog's; `remake`, unless the indexes change with the definition.
            refused_while: states in which it may not be changed.

        Raises:
            ApiError: it is in one of them.
        """
        while True:
            # not as known here, or it may seem done already
            table = await self.table_in_any_state(name, not_found.message, is_newest=True)
            before = definition_of(table)
            refuse_while(refused_while, name, before.transition_at(self.now_ms))
            wanted = change(table)
            definition = table.definition if wanted == before else wanted.encoded()
            try:
                return before, await (make or self.remake)(table, definition)
            except TableNotFoundError:
                raise not_found from None
            except TableChangedError:  # by somebody else; this node knows to what
                continue

    async def remake(self, table: Table, definition: bytes) -> Table:
        """Give a table another definition, if it has not got it; raises as `Catalog.redefine_table`."""
        if table.definition == definition:
            return table
        return await self.catalog.redefine_table(table, definition, deadline=self.deadline)

    async def replace(self, table: Table, key: bytes, item: bytes | None) -> None:
        """Put an item, in stored form, or delete it (None), whatever is there.

        At QUORUM unless the request said otherwise, if the table is leaderless.
        """
        if table.has_leaders:
            await self._change(table, key, DELETING if item is None else putting(item))
            return
        level = self._levels.write or Consistency.QUORUM
        try:
            needed_to_write(level, table.n)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        await self._services.coordinator.write(table, key, mutation(item), level=level, deadline=self.deadline)

    async def replace_all(self, writes: Sequence[tuple[Table, bytes, bytes | None]]) -> list[MerganserError | None]:
        """Do several of them at once, as `replace`, and return how each of them failed, if it did."""
        if all(table.has_leaders for table, _, _ in writes):
            self._refuse_levels()
            changes = [(table, key, DELETING if item is None else putting(item)) for table, key, item in writes]
            done = await self._services.leader_based.change_all(changes, WIRES, deadline=self.deadline)
            return [one if isinstance(one, MerganserError) else None for one in done]
        return await self._replace_each(writes)

    async def _replace_each(self, writes: Sequence[tuple[Table, bytes, bytes | None]]) -> list[MerganserError | None]:
        async def failure_of(write: tuple[Table, bytes, bytes | None]) -> MerganserError | None:
            try:
                await self.replace(*write)
            except MerganserError as error:
                return error
            return None

        return await asyncio.gather(*[failure_of(write) for write in writes])

    async def replace_measured(self, table: Table, key: bytes, item: bytes | None) -> Measured:
        """As `replace`, and return what it took; of a leaderless table nobody knows what was there before."""
        if table.has_leaders:
            action = Action.DELETE if item is None else Action.PUT
            return measured_in(await self.step(table, key, ItemStep(action, item or b"", measures=True)))
        await self.replace(table, key, item)
        return Measured(0, 0 if item is None else size_of(item))

    async def step(self, table: Table, key: bytes, step: ItemStep) -> bytes:
        """Do a step on an item of a leader-based table; returns the JSON of the attributes it returns, or nothing.

        If the step measures, it is a `Measured` instead.

        Raises:
            ApiError: the step was rejected.
        """
        changed = await self._change(table, key, payload_of(step))
        if changed.is_rejected:
            raise rejection_in(changed.answer).error()
        return changed.answer

    def item_at_once(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        """Return what `item` does, b"" for none, if it is here and nothing has to be waited for; None: ask `item`."""
        if table.has_leaders:
            if self._levels is not UNSAID:
                return None
            return self._services.leader_based.value_at_once(table, key, is_consistent=is_consistent)
        level = self._reading(table, is_consistent=is_consistent)
        found = self._services.coordinator.at_once(table, key, level=level)
        if found is None:
            return None
        return b"" if found.row is None else item_in(key, found.row, self._now_s) or b""

    def item(self, table: Table, key: bytes, *, is_consistent: bool) -> Coroutine[Any, Any, bytes | None]:
        """Return an item in stored form, None if there is none."""
        return self._item(table, key, is_consistent=is_consistent)

    async def items_of(self, items: Sequence[TransactItem]) -> list[bytes | None]:
        """Return the items of a transaction as they are: a repeated one takes what it takes to read them."""
        return await asyncio.gather(*[self._item(item.table, item.key, is_consistent=True) for item in items])

    async def _item(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        if table.has_leaders:
            self._refuse_levels()
            led = await self._services.leader_based.read(
                table, key, is_consistent=is_consistent, deadline=self.deadline
            )
            return led.value
        row = await self._services.coordinator.read(
            table, key, level=self._reading(table, is_consistent=is_consistent), deadline=self.deadline
        )
        return stored(row, self._now_s)

    async def page(self, table: Table, wanted: PageRequest) -> ItemPage:
        """Return items of a range, as `Coordinator.read_range` or `LeaderBased.read_range` does."""
        start, end, reverse = wanted.span
        if table.has_leaders:
            self._refuse_levels()
            led = await self._services.leader_based.read_range(
                table,
                start,
                end,
                reverse=reverse,
                is_consistent=wanted.is_consistent,
                rows_max=wanted.rows_max,
                bytes_max=wanted.bytes_max,
                deadline=self.deadline,
                index=wanted.index,
            )
            return ItemPage([value for _, value in led.rows], led.resume)
        page = await self._services.coordinator.read_range(
            table,
            start,
            end,
            reverse=reverse,
            level=self._reading(table, is_consistent=wanted.is_consistent),
            rows_max=wanted.rows_max,
            bytes_max=wanted.bytes_max,
            deadline=self.deadline,
        )
        now_s = self._now_s
        items = [stored(row, now_s) for _, row in page.rows]
        return ItemPage([item for item in items if item is not None], page.resume)  # None: it expired on the way

    async def entries(self, index: Table, wanted: PageRequest) -> ItemPage:
        """Return what a global index shows in a range of its table, as `LeaderBased.read_index` does."""
        start, end, reverse = wanted.span
        self._refuse_levels()
        led = await self._services.leader_based.read_index(
            index,
            start,
            end,
            reverse=reverse,
            rows_max=wanted.rows_max,
            bytes_max=wanted.bytes_max,
            deadline=self.deadline,
        )
        return ItemPage([value for _, value in led.rows], led.resume)

    async def transact(self, items: Sequence[TransactItem], *, token: bytes | None, digest: bytes) -> list[bytes]:
        """Do steps on several items, all or none, and return their answers; as `Transactions.write`."""
        self._refuse_levels()
        return await self._services.transactions.write(items, token=token, digest=digest, deadline=self.deadline)

    async def snapshot(self, places: Sequence[tuple[Table, bytes]]) -> list[bytes | None]:
        """Return several items as they were at one instant; raises as `Transactions.get`."""
        self._refuse_levels()
        return await self._services.transactions.get(places, deadline=self.deadline)

    async def _change(self, table: Table, key: bytes, payload: bytes) -> Changed:
        self._refuse_levels()
        return await self._services.leader_based.change(table, key, WIRES, payload, deadline=self.deadline)

    def _refuse_levels(self) -> None:
        if self._levels is not UNSAID:
            raise ValidationError(
                "x-merganser-consistency is for leaderless tables, and this table has leaders: leave it out and use "
                f"ConsistentRead, or create the table with the tag {LEADERLESS_TAG}"
            )

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970, for what tables are on their way to."""
        return self._services.coordinator.wall_us() // 1000

    def _is_unserved(self, table: Table) -> bool:
        transition = definition_of(table).transition
        return transition is not None and is_unserved(transition, self.now_ms)

    def _is_over(self, table: Table) -> bool:
        transition = definition_of(table).transition
        return transition is not None and is_over(transition, self.now_ms)

    async def _drop(self, table: Table) -> None:
        table = msgspec.structs.replace(table, name=name_of(table.name))  # it may go by its ARN
        with contextlib.suppress(TableChangedError):  # this node knows to what
            await self._services.catalog.drop_table(table, deadline=self.deadline)

    @property
    def _now_s(self) -> int:
        """Seconds since 1970, for expiry."""
        return self._services.coordinator.wall_us() // 1_000_000

    def _reading(self, table: Table, *, is_consistent: bool) -> ReadLevel:
        level = self._levels.read or (Consistency.QUORUM if is_consistent else Consistency.ONE)
        try:
            needed_to_read(level, table.n)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return level
