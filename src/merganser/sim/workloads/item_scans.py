"""Item scans: half of the clients change items, the others read the whole table page by page, consistently or not.

As `sim.workloads.scans`, on items.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.item_clients import ItemClients
from merganser.sim.machine import Machine
from merganser.sim.steps import CompareAndSet, Put
from merganser.sim.workloads.scans import Scans

CONSISTENT = 0.7


class ItemScans(Scans):
    """See the module's docstring."""

    NAME = "item"

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Write a population of items; ``hot_keys`` times three of them are under one partition key."""
        super().__init__(clients, hot_keys)
        self._items = ItemClients(clients)

    async def _put(self, machine: Machine, key: bytes, value: bytes | None, client: int) -> None:
        step = CompareAndSet(None, value) if self._clients.rng.random() < 0.1 else Put(value)
        await self._items.change(machine, key, step, client=client)

    async def _scan(self, client: int) -> None:
        rng = self._clients.rng
        await self._items.scan(client=client, is_reverse=rng.random() < 0.5, is_consistent=rng.random() < CONSISTENT)
