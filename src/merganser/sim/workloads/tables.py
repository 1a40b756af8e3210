"""Tables: created, dropped and created anew under the same names, looked up and written to, through all nodes.

Half of those that are dropped are only told when to go; whoever is there then sees to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, RequestError, TableNotFoundError, UnavailableError
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, member_of
from merganser.sim.history import TableChange, TableLookup
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.steps import ending
from merganser.storage import keys

NAMES = ("alpha", "beta")
WIRE = "sim"
LASTS_MS_MAX = 3000  # longer than a request, and most faults


class Tables:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Write to ``hot_keys`` keys of each table."""
        self._clients = clients
        self._hot_keys = hot_keys
        self._requests = 0

    async def client(self, number: int, operations: int) -> None:
        """Create, look up, write and drop."""
        clients, rng = self._clients, self._clients.rng
        for _ in range(operations // 2):  # one of these is several requests
            await clients.think()
            machine = clients.any_node()
            if machine is None:
                continue
            name, drawn = rng.choice(NAMES), rng.random()
            if drawn < 0.4:
                await self._create(machine, name, number)
                continue
            table = await self._look_up(machine, name, number)
            if table is not None and drawn < 0.6:
                await self._drop(machine, table, number)
            elif table is not None:
                await self._write(machine, table, number)

    async def _create(self, machine: Machine, name: str, client: int) -> None:
        self._requests += 1
        change = TableChange(name, f"request-{self._requests}", False, _now_s())
        work = member_of(machine).catalog.create_table(
            wire=WIRE, name=name, n=3, definition=b"", unique_id=change.unique_id, deadline=_deadline()
        )
        self._note(change, await self._clients.ask(machine, work, f"create {name}, {change.unique_id}", client))

    async def _drop(self, machine: Machine, table: Table, client: int) -> None:
        catalog, rng = member_of(machine).catalog, self._clients.rng
        change = TableChange(table.name, table.unique_id, True, _now_s())
        if rng.random() < 0.5:
            work: Coroutine[Any, Any, Any] = catalog.drop_table(table, deadline=_deadline())
        else:
            end = ending(EPOCH_US // 1000 + int(_now_s() * 1000) + rng.randrange(LASTS_MS_MAX))
            work = catalog.redefine_table(table, end, deadline=_deadline())
        self._note(change, await self._clients.ask(machine, work, f"drop {table.name}, {table.unique_id}", client))

    async def _look_up(self, machine: Machine, name: str, client: int) -> Table | None:
        began_s = _now_s()
        work = member_of(machine).catalog.table(WIRE, name, deadline=_deadline())
        task = await self._clients.ask(machine, work, f"look up {name}", client)
        if not task.done():
            return None
        error = task.exception()
        if error is None or isinstance(error, TableNotFoundError):
            found = None if error else task.result()
            lookup = TableLookup(name, found.unique_id if found else None, began_s, _now_s())
            self._clients.history.table_lookups.append(lookup)
            return found
        if not isinstance(error, MerganserError):
            raise error
        return None

    async def _write(self, machine: Machine, table: Table, client: int) -> None:
        name = f"hot-{self._clients.rng.randrange(self._hot_keys)}".encode()
        key = keys.row_key(table.id, token_of(name), name)
        await self._clients.write(machine, key, self._clients.new_value(), client=client, table=table)

    def _note(self, change: TableChange, task: asyncio.Task[Any]) -> None:
        self._clients.history.table_changes.append(change)
        if not task.done():
            return
        error = task.exception()
        if error is None:
            change.acked_s = _now_s()
        elif isinstance(error, TableNotFoundError):
            return  # the end that an earlier attempt gave the table may be why it is gone
        elif isinstance(error, RequestError | UnavailableError):
            change.is_certainly_undone = True
        elif not isinstance(error, MerganserError):
            raise error


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _deadline() -> float:
    return _now_s() + REQUEST_TIMEOUT_S
