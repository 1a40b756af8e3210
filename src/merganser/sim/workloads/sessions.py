"""Sessions: each client writes and reads the same few keys at QUORUM, every request through another node."""

from __future__ import annotations

from merganser.sim.clients import Clients

READS_AFTER = (0, 1, 1, 2)
"""How many reads follow a write."""


class Sessions:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all sessions; each has one of its own as well."""
        self._clients = clients
        self._hot_keys = hot_keys

    async def client(self, number: int, operations: int) -> None:
        """Write and read back, again and again."""
        clients, rng = self._clients, self._clients.rng
        own = clients.key(f"session-{number}")
        left = operations
        while left > 0:
            key = own if rng.random() < 0.3 else clients.key(f"hot-{rng.randrange(self._hot_keys)}")
            machine = clients.any_node()
            if machine is not None and rng.random() < 0.6:
                await clients.write(machine, key, clients.new_value(), client=number)
            for _ in range(rng.choice(READS_AFTER)):
                machine = clients.any_node()
                if machine is not None:
                    await clients.read(machine, key, client=number)
                left -= 1
            await clients.think()
            left -= 1
