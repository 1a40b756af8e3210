"""CreateTable, UpdateTable, DescribeTable, ListTables, DeleteTable."""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Callable
from typing import Any, Final

import orjson

from merganser.model.cluster import Table
from merganser.model.errors import TableChangedError, TableExistsError, TableNotFoundError
from merganser.model.index import IndexRequest
from merganser.wire.dynamodb.arns import name_of
from merganser.wire.dynamodb.constraints import Violations, check_table_name_length, require_table_name
from merganser.wire.dynamodb.errors import RESOURCE_IN_USE, ApiError, NotFoundError, ValidationError
from merganser.wire.dynamodb.index_requests import global_definitions
from merganser.wire.dynamodb.index_updates import do_index_updates
from merganser.wire.dynamodb.item_counts import Counts, add_counts, nothing_in
from merganser.wire.dynamodb.session import WIRE, Session
from merganser.wire.dynamodb.table_updates import check_update, described_while_updating, updated
from merganser.wire.dynamodb.tables import (
    check_create,
    definition_for,
    definition_of,
    describe,
    replication_for,
)

PAGE_TABLES_MAX: Final = 100


class Administration:
    """The operations on tables."""

    def __init__(self, *, wall_us: Callable[[], int], rng: random.Random, region: str, account: str) -> None:
        """Take the clock, the dice, and what ARNs are made of."""
        self._wall_us = wall_us
        self._rng = rng
        self._region = region
        self._account = account

    async def create_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Create a table; it is there when this returns, though it is described as CREATING."""
        check_create(request)
        name = name_of(request["TableName"])
        definition = definition_for(request, created_ms=self._now_ms)
        unique_id = self._unique_id()
        try:
            table = await session.catalog.create_table(
                wire=WIRE,
                name=name,
                definition=definition.encoded(),
                unique_id=unique_id,
                replication=replication_for(request),
                deadline=session.deadline,
                indexes=[IndexRequest(index.name, index.encoded()) for index in global_definitions(request)],
            )
        except TableExistsError:
            raise ApiError(RESOURCE_IN_USE, f"Table already exists: {name}") from None
        return self._described("TableDescription", table, "CREATING", nothing_in(table))

    async def update_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Change the settings of a table; it has them when this returns, though it is described as UPDATING."""
        check_update(request)
        name, now_ms = name_of(request["TableName"]), self._now_ms
        before, table = await session.redefine(
            name,
            lambda table: updated(table, request, now_ms=now_ms),
            _not_found(name),
            functools.partial(do_index_updates, session, request, unique_id=self._unique_id()),
        )
        description = self.describe(table, "UPDATING", await session.counts(table))
        return orjson.dumps({"TableDescription": described_while_updating(description, before, definition_of(table))})

    async def describe_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Describe a table."""
        table = await self._named(session, request)
        return self._described("Table", table, "ACTIVE", await session.counts(table))

    async def delete_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Drop a table and everything in it, unless it is protected."""
        while True:
            table = await self._named(session, request, is_newest=True)
            if definition_of(table).is_protected:
                raise ValidationError(
                    "Resource cannot be deleted as it is currently protected against deletion. "
                    "Disable deletion protection first."
                )
            try:
                await session.catalog.drop_table(table, deadline=session.deadline)
            except TableNotFoundError:
                raise _not_found(table.name) from None
            except TableChangedError:  # it may be protected by now
                continue
            return self._described("TableDescription", table, "DELETING", {})

    async def list_tables(self, session: Session, request: dict[str, Any]) -> bytes:
        """List names in order, a page at a time."""
        start = request.get("ExclusiveStartTableName")
        if start is not None:
            check_table_name_length(start, "ExclusiveStartTableName")
        violations = Violations()
        violations.table_pattern(request, "ExclusiveStartTableName")
        violations.between(request, "Limit", least=1, most=PAGE_TABLES_MAX)
        violations.settle()
        limit = int(request.get("Limit") or PAGE_TABLES_MAX)
        names = sorted(table.name for table in session.catalog.tables(WIRE) if start is None or table.name > start)
        page: dict[str, Any] = {"TableNames": names[:limit]}
        if len(names) > limit:
            page["LastEvaluatedTableName"] = names[limit - 1]
        return orjson.dumps(page)

    def describe(self, table: Table, status: str, counts: Counts) -> dict[str, Any]:
        """Return the TableDescription of a table."""
        described = describe(table, status=status, region=self._region, account=self._account, now_ms=self._now_ms)
        return add_counts(described, table, counts)

    def _unique_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    @property
    def _now_ms(self) -> int:
        return self._wall_us() // 1000

    async def _named(self, session: Session, request: dict[str, Any], *, is_newest: bool = False) -> Table:
        require_table_name(request)
        violations = Violations()
        violations.table_pattern(request)
        violations.settle()
        name = name_of(request["TableName"])
        return await session.table(name, _not_found(name).message, is_newest=is_newest)

    def _described(self, member: str, table: Table, status: str, counts: Counts) -> bytes:
        return orjson.dumps({member: self.describe(table, status, counts)})


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"Requested resource not found: Table: {name} not found")
