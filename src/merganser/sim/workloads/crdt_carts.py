"""Carts of the Dynamo paper as sets: everyone adds items to a few carts, and some take out what they see there.

Nobody reads before adding, and nobody merges: an item stays until somebody takes it out who has seen it.

Source: DeCandia 2007 §4.4, where deleted items came back at times.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.crdt_clients import CrdtClients

READS = 0.3
ADDS = 0.75


class CrdtCarts:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` carts between all clients."""
        self._crdts = CrdtClients(clients)
        self._keys = [clients.key(f"cart-{number}") for number in range(hot_keys)]
        self._items = 0

    async def client(self, number: int, operations: int) -> None:
        """Look into carts, add to them and take out of them, through any node."""
        clients, rng = self._crdts.clients, self._crdts.rng
        async for machine in clients.turns(operations):
            key = rng.choice(self._keys)
            if rng.random() < READS:
                await self._crdts.get(machine, key, client=number)
            elif rng.random() < ADDS or not self._items:
                self._items += 1
                await self._crdts.add(machine, key, f"item-{self._items}", client=number)
            else:
                item = f"item-{rng.randint(max(1, self._items - 12), self._items)}"
                await self._crdts.remove(machine, key, item, client=number)
