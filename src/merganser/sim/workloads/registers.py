"""Registers: writes, deletes and reads at QUORUM of a few hot keys and of many that are written once or twice."""

from __future__ import annotations

from merganser.sim.clients import Clients

READS = 0.4
DELETES = 0.15
HOT = 0.5


class Registers:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._clients = clients
        self._hot_keys = hot_keys
        self._names = 0

    async def client(self, number: int, operations: int) -> None:
        """Read, write and delete through any node."""
        clients = self._clients
        async for machine in clients.turns(operations):
            key = self._key(number)
            if clients.rng.random() < READS:
                await clients.read(machine, key, client=number)
            else:
                value = None if clients.rng.random() < DELETES else clients.new_value()
                await clients.write(machine, key, value, client=number)

    def _key(self, client: int) -> bytes:
        rng = self._clients.rng
        if rng.random() < HOT:
            return self._clients.key(f"hot-{rng.randrange(self._hot_keys)}")
        self._names += rng.random() < HOT
        return self._clients.key(f"own-{client}-{self._names}")
