"""One request's way to the cluster: its consistency, its deadline, and the tables of this wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, Levels, ReadLevel, needed_to_read, needed_to_write
from merganser.model.errors import TableNotFoundError
from merganser.model.row import Mutation
from merganser.wire.dynamodb.errors import NotFoundError, ValidationError
from merganser.wire.dynamodb.items import stored

if TYPE_CHECKING:
    from merganser.service.catalog import Catalog
    from merganser.service.coordinator import Coordinator, RangePage

WIRE: Final = "dynamodb"


class Session:
    """What the operations see of the cluster while they serve one request."""

    __slots__ = ("_coordinator", "_levels", "catalog", "deadline")

    def __init__(
        self,
        coordinator: Coordinator,
        catalog: Catalog,
        *,
        levels: Levels,
        deadline: float,
    ) -> None:
        """Bind a request to the cluster.

        Args:
            coordinator: does the reads and writes.
            catalog: knows the tables.
            levels: what the request asked for, besides what its operation says.
            deadline: the loop's time at which the request is given up.
        """
        self._coordinator = coordinator
        self._levels = levels
        self.catalog = catalog
        self.deadline = deadline

    @property
    def now_s(self) -> int:
        """Seconds since 1970, for expiry."""
        return self._coordinator.wall_us() // 1_000_000

    async def table(self, name: str, not_found: str = "Requested resource not found") -> Table:
        """Return a table of this wire.

        Raises:
            NotFoundError: with DynamoDB's text ``not_found``.
        """
        try:
            return await self.catalog.table(WIRE, name, deadline=self.deadline)
        except TableNotFoundError:
            raise NotFoundError(not_found) from None

    async def write(self, table: Table, key: bytes, mutation: Mutation) -> None:
        """Write a row, at QUORUM unless the request said otherwise."""
        level = self._levels.write or Consistency.QUORUM
        try:
            needed_to_write(level, table.n)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        await self._coordinator.write(table, key, mutation, level=level, deadline=self.deadline)

    async def item(self, table: Table, key: bytes, *, is_consistent: bool) -> bytes | None:
        """Return the stored item of a row, None if there is none."""
        row = await self._coordinator.read(
            table, key, level=self._reading(table, is_consistent=is_consistent), deadline=self.deadline
        )
        return stored(row, self.now_s)

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
    ) -> RangePage:
        """Return rows of a range, as `Coordinator.read_range` does."""
        return await self._coordinator.read_range(
            table,
            start,
            end,
            reverse=reverse,
            level=self._reading(table, is_consistent=is_consistent),
            rows_max=rows_max,
            bytes_max=bytes_max,
            deadline=self.deadline,
        )

    def _reading(self, table: Table, *, is_consistent: bool) -> ReadLevel:
        level = self._levels.read or (Consistency.QUORUM if is_consistent else Consistency.ONE)
        try:
            needed_to_read(level, table.n)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return level
