"""Siblings: puts and deletes of a few keys, blind, well informed, or with a context from any earlier time."""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.value_clients import NOTHING_KNOWN, Known, ValueClients

READS = 0.35
DELETES = 0.25
BLIND = 0.15
STALE = 0.3


class Siblings:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._values = ValueClients(clients)
        self._keys = [clients.key(f"note-{number}") for number in range(hot_keys)]
        self._earlier: dict[bytes, list[Known]] = {key: [NOTHING_KNOWN] for key in self._keys}
        """What anybody has known of a key: clients hand contexts on, and keep them for long."""

    async def client(self, number: int, operations: int) -> None:
        """Read, put and delete through any node."""
        clients, rng = self._values.clients, self._values.rng
        async for machine in clients.turns(operations):
            key, drawn = rng.choice(self._keys), rng.random()
            if drawn < READS:
                await self._values.get(machine, key, client=number)
            else:
                knowing = self._drawn(number, key)
                is_delete = rng.random() < DELETES
                await self._values.put(machine, key, client=number, knowing=knowing, is_delete=is_delete)
            self._earlier[key].append(self._values.known(number, key))

    def _drawn(self, client: int, key: bytes) -> Known:
        drawn = self._values.rng.random()
        if drawn < BLIND:
            return NOTHING_KNOWN
        return self._values.rng.choice(self._earlier[key]) if drawn < BLIND + STALE else self._values.known(client, key)
