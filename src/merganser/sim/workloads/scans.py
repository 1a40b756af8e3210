"""Scans under writes: half of the clients write and delete, the others read the whole table page by page.

The rows lie both on single keys all over the ring and under one wide partition key.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.machine import Machine

KEYS = 30
SCAN_COSTS = 5  # a scan asks for so many pages that it counts as so many operations


class Scans:
    """See the module's docstring."""

    NAME = "row"
    """Of the keys."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Write a population of keys; ``hot_keys`` times three of them are rows of one partition key."""
        self._clients = clients
        self._keys = [clients.key(f"{self.NAME}-{number}") for number in range(KEYS)]
        self._keys += [clients.key("wide", f"{self.NAME}-{number}") for number in range(3 * hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Write if the number is even, else scan."""
        if number % 2:
            await self._read(number, operations)
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
            await self._put(machine, key, value, number)

    async def _read(self, number: int, operations: int) -> None:
        for _ in range(operations // SCAN_COSTS):
            await self._clients.think()
            await self._scan(number)

    async def _put(self, machine: Machine, key: bytes, value: bytes | None, client: int) -> None:
        await self._clients.write(machine, key, value, client=client)

    async def _scan(self, client: int) -> None:
        await self._clients.scan(client=client, is_reverse=self._clients.rng.random() < 0.5)
