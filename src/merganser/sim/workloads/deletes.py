"""Deletes and expiry: a few keys that are written, deleted, written to expire soon, and read by everyone."""

from __future__ import annotations

from merganser.sim.clients import Clients

LIVES_S = (0, 1, 1, 2, 4)  # runs take some seconds, so that most expire while they last


class Deletes:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share twice as many as ``hot_keys`` keys."""
        self._clients = clients
        self._keys = [clients.key(f"mortal-{number}") for number in range(2 * hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Write, let expire, delete and look again."""
        clients, rng = self._clients, self._clients.rng
        async for machine in clients.turns(operations):
            key, drawn = rng.choice(self._keys), rng.random()
            if drawn < 0.25:
                await clients.write(machine, key, clients.new_value(), client=number)
            elif drawn < 0.45:
                await clients.write(machine, key, clients.new_value(), client=number, lives_s=rng.choice(LIVES_S))
            elif drawn < 0.65:
                await clients.write(machine, key, None, client=number)
            elif drawn < 0.95:
                await clients.read(machine, key, client=number)
            else:
                await clients.scan(client=number, is_reverse=rng.random() < 0.5)
