"""Levels: each request names its own consistency, so that some of them meet and others do not."""

from __future__ import annotations

from merganser.model.consistency import Consistency
from merganser.sim.clients import Clients

WRITE_LEVELS = (Consistency.ONE, Consistency.TWO, Consistency.QUORUM, Consistency.ALL)
READ_LEVELS = (Consistency.ONE, Consistency.TWO, Consistency.QUORUM, Consistency.ALL)


class Levels:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share twice as many as ``hot_keys`` keys."""
        self._clients = clients
        self._keys = [clients.key(f"hot-{number}") for number in range(2 * hot_keys)]
        n = clients.table.n
        self._write_levels = [level for level in WRITE_LEVELS if level is not Consistency.TWO or n > 1]
        self._read_levels = [level for level in READ_LEVELS if level is not Consistency.TWO or n > 1]

    async def client(self, number: int, operations: int) -> None:
        """Write and read at any level through any node."""
        clients, rng = self._clients, self._clients.rng
        for _ in range(operations):
            await clients.think()
            machine = clients.any_node()
            if machine is None:
                continue
            key = rng.choice(self._keys)
            if rng.random() < 0.5:
                await clients.read(machine, key, client=number, level=rng.choice(self._read_levels))
            else:
                value = None if rng.random() < 0.1 else clients.new_value()
                await clients.write(machine, key, value, client=number, level=rng.choice(self._write_levels))
