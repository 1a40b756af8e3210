"""Index queries: half of the clients change the items of a few partition keys, the others query those by a local index.

Each write moves its item in the index. Some are transactions over items of one partition key or of several, so that
queries meet items that are locked, and stand in the index for two values.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.item_clients import ItemClients
from merganser.sim.steps import CompareAndSet, Put

COLLECTIONS = 3
QUERY_COSTS = 2  # a query asks for so many pages that it counts as so many operations
CONSISTENT = 0.8
TRANSACTIONS, COMPARE_AND_SETS, DELETES = 0.2, 0.1, 0.15
TOGETHER_MAX = 3


class IndexQueries:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` items of each partition key between all clients."""
        self._clients = clients
        self._items = ItemClients(clients)
        names = [f"collection-{number}" for number in range(COLLECTIONS)]
        self._collections = [clients.key(name) for name in names]
        self._keys = [clients.key(name, f"item-{number}") for name in names for number in range(hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Write if the number is even, else query."""
        for _ in range(operations if number % 2 == 0 else operations // QUERY_COSTS):
            await self._clients.think()
            machine = self._clients.any_node()
            if machine is None:
                continue
            rng = self._clients.rng
            if number % 2:
                await self._items.query(
                    machine,
                    rng.choice(self._collections),
                    client=number,
                    is_reverse=rng.random() < 0.5,
                    is_consistent=rng.random() < CONSISTENT,
                )
            elif rng.random() < TRANSACTIONS:
                drawn = rng.sample(self._keys, min(len(self._keys), rng.randint(2, TOGETHER_MAX)))
                await self._items.put_together(machine, [(key, self._value()) for key in drawn], client=number)
            else:
                value = self._value()
                step = CompareAndSet(None, value) if rng.random() < COMPARE_AND_SETS else Put(value)
                await self._items.change(machine, rng.choice(self._keys), step, client=number)

    def _value(self) -> bytes | None:
        return None if self._clients.rng.random() < DELETES else self._clients.new_value()
