"""Item scans: half of the clients change items, the others read the whole table page by page, consistently or not.

The items lie both on single keys all over the ring and under one wide partition key.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.item_clients import ItemClients
from merganser.sim.steps import CompareAndSet, Put

KEYS = 30
SCAN_COSTS = 5  # a scan asks for so many pages that it counts as so many operations
CONSISTENT = 0.7


class ItemScans:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Write a population of items; ``hot_keys`` times three of them are under one partition key."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._keys = [clients.key(f"item-{number}") for number in range(KEYS)]
        self._keys += [clients.key("wide", f"item-{number}") for number in range(3 * hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Write if the number is even, else scan."""
        if number % 2:
            await self._scan(number, operations)
        else:
            await self._write(number, 2 * operations)

    async def _write(self, number: int, operations: int) -> None:
        clients, rng = self._clients, self._clients.rng
        for index in range(operations):
            await clients.think()
            machine = clients.any_node()
            if machine is None:
                continue
            # at first each once, so that the scans find something
            key = self._keys[(index * 2 + number // 2) % len(self._keys)] if index < 15 else rng.choice(self._keys)
            value = None if rng.random() < 0.1 else clients.new_value()
            step = CompareAndSet(None, value) if rng.random() < 0.1 else Put(value)
            await self._items.change(machine, key, step, client=number)

    async def _scan(self, number: int, operations: int) -> None:
        rng = self._clients.rng
        for _ in range(operations // SCAN_COSTS):
            await self._clients.think()
            await self._items.scan(
                client=number, is_reverse=rng.random() < 0.5, is_consistent=rng.random() < CONSISTENT
            )
