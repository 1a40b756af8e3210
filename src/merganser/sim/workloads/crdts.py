"""Values that merge themselves: all count, add to and remove from the same few sets, and reset them at times.

Half the clients count under sessions, and send again what they do not know the outcome of, through any node.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.crdt_clients import Counting, CrdtClients

READS = 0.25
COUNTS = 0.4
RESETS = 0.04
ADDS = 0.6
GIVES_UP = 0.1
"""The chance that a client opens another session though the one it has is good."""
ELEMENTS = 5


class Crdts:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._crdts = CrdtClients(clients)
        self._keys = [clients.key(f"page-{number}") for number in range(hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Read and update through any node."""
        clients, rng = self._crdts.clients, self._crdts.rng
        counting: Counting | None = None
        async for machine in clients.turns(operations):
            key, drawn = rng.choice(self._keys), rng.random()
            if drawn < READS:
                await self._crdts.get(machine, key, client=number)
            elif drawn < READS + COUNTS and number % 2:
                await self._crdts.count_blindly(machine, key, client=number)
            elif drawn < READS + COUNTS:
                if counting is None or rng.random() < GIVES_UP:
                    counting = await self._crdts.open_session(machine, key, client=number)
                if counting is not None and not await self._crdts.count(counting, key, client=number):
                    counting = None
            elif drawn < READS + COUNTS + RESETS:
                await self._crdts.reset(machine, key, client=number)
            else:
                change = self._crdts.add if rng.random() < ADDS else self._crdts.remove
                await change(machine, key, f"item-{rng.randrange(ELEMENTS)}", client=number)
