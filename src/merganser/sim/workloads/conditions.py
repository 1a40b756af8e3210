"""Conditions: puts and deletes of a few keys that depend on what is there, beside others that do not, and lists.

Contexts are those of the client's last answer, or of any earlier time. Some keys are new ones, for which several put
if there is none; and some clients ask for the same thing twice at once, through two nodes.
"""

from __future__ import annotations

import asyncio

from merganser.model.contents import Condition
from merganser.sim.clients import Clients
from merganser.sim.machine import Machine
from merganser.sim.value_clients import NOTHING_KNOWN, Known, ValueClients

LISTS = 0.06
READS = 0.3
NOT_MODIFIED = 0.5
"""Of the puts and deletes,"""
NONE_MATCH = 0.3
"""and the others depend on nothing."""
NEW = 0.5
"""Of those that ask for none: under a key that hardly anybody has put yet."""
TWICE = 0.3
DELETES = 0.12
BLIND = 0.1
STALE = 0.15


class Conditions:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients, beside new ones."""
        self._values = ValueClients(clients)
        self._clients = clients
        self._keys = [clients.key(f"page-{number}") for number in range(hot_keys)]
        self._earlier: dict[bytes, list[Known]] = {}
        self._new = 0

    async def client(self, number: int, operations: int) -> None:
        """Read, put and delete, through any node."""
        clients, rng = self._clients, self._clients.rng
        for _ in range(operations):
            await clients.think()
            machine, other = clients.any_node(), clients.any_node()
            if machine is None:
                continue
            key, drawn = rng.choice(self._keys), rng.random()
            if rng.random() < LISTS:
                await self._values.list_keys(machine, client=number)
            elif rng.random() < READS:
                await self._values.get(machine, key, client=number)
            elif drawn < NOT_MODIFIED:
                await self._put(machine, other, key, number, Condition.NOT_MODIFIED)
            elif drawn < NOT_MODIFIED + NONE_MATCH:
                await self._put(machine, other, self._perhaps_new(key), number, Condition.NONE_MATCH)
            else:
                await self._put(machine, None, key, number, None)
            self._earlier.setdefault(key, [NOTHING_KNOWN]).append(self._values.known(number, key))

    async def conclude(self, machine: Machine, client: int) -> bool:
        """List all keys once more."""
        return await self._values.list_keys(machine, client=client)

    def _perhaps_new(self, key: bytes) -> bytes:
        rng = self._clients.rng
        if rng.random() >= NEW:
            return key
        self._new += rng.random() < NEW
        return self._clients.key(f"new-{self._new}")

    async def _put(
        self, machine: Machine, other: Machine | None, key: bytes, client: int, only_if: Condition | None
    ) -> None:
        rng = self._clients.rng
        knowing = NOTHING_KNOWN if only_if is Condition.NONE_MATCH else self._drawn(client, key)
        is_delete = only_if is not Condition.NONE_MATCH and rng.random() < DELETES
        through = [machine] if other is None or rng.random() >= TWICE else [machine, other]
        await asyncio.gather(
            *(
                self._values.put(one, key, client=client, knowing=knowing, is_delete=is_delete, only_if=only_if)
                for one in through
            )
        )

    def _drawn(self, client: int, key: bytes) -> Known:
        rng = self._clients.rng
        drawn = rng.random()
        if drawn < BLIND:
            return NOTHING_KNOWN
        is_stale = drawn < BLIND + STALE and key in self._earlier
        return rng.choice(self._earlier[key]) if is_stale else self._values.known(client, key)
