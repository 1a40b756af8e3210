"""CreateTable, UpdateTable, DescribeTable, ListTables, DeleteTable."""

from __future__ import annotations

import contextlib
import functools
import random
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec
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
from merganser.wire.dynamodb.table_states import Transition, refuse_while
from merganser.wire.dynamodb.table_updates import check_update, transition_to, updated
from merganser.wire.dynamodb.tables import (
    TableDefinition,
    check_create,
    definition_for,
    definition_of,
    describe,
    policy_for,
    replication_for,
)

PAGE_TABLES_MAX: Final = 100


class Administration:
    """The operations on tables."""

    def __init__(
        self, *, wall_us: Callable[[], int], rng: random.Random, region: str, account: str, delay_ms: int = 0
    ) -> None:
        """Take the clock, the dice, what ARNs are made of, and how long tables stay in their states."""
        self._wall_us = wall_us
        self._rng = rng
        self._region = region
        self._account = account
        self._delay_ms = delay_ms

    async def create_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Create a table; it is there when this returns, though it is described as CREATING, and not served so long."""
        check_create(request)
        now_ms, unique_id = self._now_ms, self._unique_id()
        begun = Transition("CREATING", now_ms + self._delay_ms)
        definition = definition_for(request, created_ms=now_ms, transition=begun if self._delay_ms else None)
        table = await self._created(session, request, definition, unique_id)
        return self._described(session, "TableDescription", table, begun, nothing_in(table))

    async def update_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Change the settings of a table; it has them when this returns, though it is described as UPDATING."""
        check_update(request)
        name, now_ms = name_of(request["TableName"]), self._now_ms
        before, table = await session.redefine(
            name,
            lambda table: updated(table, request, now_ms=now_ms, delay_ms=self._delay_ms),
            _not_found(name),
            functools.partial(do_index_updates, session, request, unique_id=self._unique_id()),
            refused_while=("CREATING", "UPDATING", "DELETING"),
        )
        begun = transition_to(table, before, definition_of(table), request, until_ms=now_ms + self._delay_ms)
        return self._described(session, "TableDescription", table, begun, await session.counts(table))

    async def describe_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Describe a table."""
        table = await self._named(session, request)
        state = definition_of(table).transition_at(self._now_ms)
        return self._described(session, "Table", table, state, await session.counts(table))

    async def delete_table(self, session: Session, request: dict[str, Any]) -> bytes:
        """Drop a table and everything in it, unless it is protected, now or once it has been DELETING for a while.

        One that is DELETING is described once more.
        """
        while True:
            table = await self._named(session, request, is_newest=True)
            definition = definition_of(table)
            state = definition.transition_at(self._now_ms)
            if state is not None and state.status == "DELETING":
                return self._described(session, "TableDescription", table, state, await session.counts(table))
            refuse_while(("CREATING", "UPDATING"), table.name, state)
            if definition.is_protected:
                raise ValidationError(
                    "Resource cannot be deleted as it is currently protected against deletion. "
                    "Disable deletion protection first."
                )
            begun, counts = Transition("DELETING", self._now_ms + self._delay_ms), await session.counts(table)
            try:
                if self._delay_ms:
                    deleting = msgspec.structs.replace(definition, transition=begun).encoded()
                    table = await session.catalog.redefine_table(table, deleting, deadline=session.deadline)
                else:
                    await session.catalog.drop_table(table, deadline=session.deadline)
            except TableNotFoundError:
                raise _not_found(table.name) from None
            except TableChangedError:  # it may be protected by now
                continue
            return self._described(session, "TableDescription", table, begun, counts)

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
        names = [table.name for table in await session.tables() if start is None or table.name > start]
        page: dict[str, Any] = {"TableNames": names[:limit]}
        if len(names) > limit:
            page["LastEvaluatedTableName"] = names[limit - 1]
        return orjson.dumps(page)

    async def _created(
        self, session: Session, request: dict[str, Any], definition: TableDefinition, unique_id: str
    ) -> Table:
        name = name_of(request["TableName"])
        while True:
            try:
                return await session.catalog.create_table(
                    wire=WIRE,
                    name=name,
                    definition=definition.encoded(),
                    unique_id=unique_id,
                    replication=replication_for(request),
                    policy=policy_for(request),
                    deadline=session.deadline,
                    indexes=[IndexRequest(index.name, index.encoded()) for index in global_definitions(request)],
                )
            except TableExistsError:
                await self._refuse_name(session, name)

    async def _refuse_name(self, session: Session, name: str) -> None:
        """Return if no table has that name any more.

        Raises:
            ApiError: one has.
        """
        with contextlib.suppress(NotFoundError):
            table = await session.table_in_any_state(name)
            refuse_while(("DELETING",), name, definition_of(table).transition_at(self._now_ms))
            raise ApiError(RESOURCE_IN_USE, f"Table already exists: {name}")

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
        return await session.table_in_any_state(name, _not_found(name).message, is_newest=is_newest)

    def _described(
        self, session: Session, member: str, table: Table, transition: Transition | None, counts: Counts
    ) -> bytes:
        region = session.region or self._region
        described = describe(table, transition=transition, region=region, account=self._account, now_ms=self._now_ms)
        return orjson.dumps({member: add_counts(described, table, counts)})


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"Requested resource not found: Table: {name} not found")
