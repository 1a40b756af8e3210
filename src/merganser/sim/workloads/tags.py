"""Tags: values with tags are put, replaced and deleted while others look for them by ranges of tags, page by page.

Each client puts a value or two under keys of its own, once, and never again: no query may ever miss these.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.machine import Machine
from merganser.sim.value_clients import NOTHING_KNOWN, ValueClients

TAGS = 6
QUERIES = 0.3
READS = 0.2
DELETES = 0.15
BLIND = 0.2
OWN = 0.06
"""Puts under a key that is never touched again."""


class Tags:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients, beside those of each."""
        self._values = ValueClients(clients)
        self._clients = clients
        self._keys = [clients.key(f"tagged-{number}") for number in range(hot_keys)]
        self._own = 0

    async def client(self, number: int, operations: int) -> None:
        """Put, replace, delete and look for tags, through any node."""
        rng = self._clients.rng
        async for machine in self._clients.turns(operations):
            drawn, key = rng.random(), rng.choice(self._keys)
            if drawn < QUERIES:
                low = rng.randrange(TAGS)
                await self._values.find(machine, low, rng.randint(low, TAGS - 1), client=number)
            elif drawn < QUERIES + READS:
                await self._values.get(machine, key, client=number)
            elif drawn < QUERIES + READS + OWN:
                self._own += 1
                await self._put(machine, self._clients.key(f"own-{self._own}"), number)
            else:
                await self._put(machine, key, number)

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Look for all tags once more."""
        return await self._values.find(machine, 0, TAGS - 1, client=client)

    async def _put(self, machine: Machine, key: bytes, client: int) -> None:
        rng = self._clients.rng
        knowing = NOTHING_KNOWN if rng.random() < BLIND else self._values.known(client, key)
        is_delete = bool(knowing.seen) and rng.random() < DELETES
        tags = frozenset(rng.sample(range(TAGS), rng.choice((0, 1, 1, 2))))
        await self._values.put(
            machine, key, client=client, knowing=knowing, is_delete=is_delete, tags=frozenset() if is_delete else tags
        )
