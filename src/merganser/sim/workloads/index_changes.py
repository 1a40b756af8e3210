"""Index changes: indexes are added to a table that is written to, and dropped, while clients go on as with `indexes`.

One client adds what is missing and drops what there is, in drawn order; what is there in the end is complete.
"""

from __future__ import annotations

import asyncio

from merganser.model.errors import MerganserError
from merganser.model.index import IndexRequest
from merganser.sim import indexes
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, member_of
from merganser.sim.machine import Machine
from merganser.sim.workloads.indexes import Indexes

CHANGES = 0.25
"""Share of what that client does."""
DROPS = 0.4


class IndexChanges:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` items of each kind between all clients."""
        self._clients = clients
        self._indexes = Indexes(clients, hot_keys)
        self._changes = 0

    async def client(self, number: int, operations: int) -> None:
        """Change items, look at indexes, and, as client 0, make and drop them."""
        clients = self._clients
        async for machine in clients.turns(operations):
            if number == 0 and clients.rng.random() < CHANGES:
                await self._change(machine, number)
            else:
                await self._indexes.one(machine, number)

    async def _change(self, machine: Machine, number: int) -> None:
        if machine.member is None:
            return
        rng, table, catalog = self._clients.rng, self._indexes.table(machine), member_of(machine).catalog
        name = rng.choice((indexes.BY_COLOR, indexes.BY_SHAPE, indexes.BY_BOTH))
        deadline = self._clients.now_s() + REQUEST_TIMEOUT_S
        self._changes += 1
        if any(index.name == name for index in table.indexes):
            if rng.random() >= DROPS:
                return
            what, work = f"drop {name}", catalog.drop_index(table, name, deadline=deadline)
        else:
            work = catalog.add_index(table, IndexRequest(name), unique_id=f"index-{self._changes}", deadline=deadline)
            what = f"add {name}"
        task = await self._clients.ask(machine, work, what, number)
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is not None and not isinstance(error, MerganserError | asyncio.CancelledError):
            raise error
