"""Counters: a few that all clients add to and read, some by an atomic addition and some by compare-and-set."""

from __future__ import annotations

from merganser.sim.checkers.linearizable import number_in
from merganser.sim.clients import Clients
from merganser.sim.item_clients import Ended, ItemClients
from merganser.sim.item_history import Count, Increment
from merganser.sim.machine import Machine
from merganser.sim.steps import Add, CompareAndSet

READS = 0.25
ADDITIONS = 0.5  # the rest read, then compare and set


class Counters:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` counters between all clients."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._keys = [clients.key(f"counter-{number}") for number in range(hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Add to counters and read them through any node."""
        clients = self._clients
        async for machine in clients.turns(operations):
            key, drawn = clients.rng.choice(self._keys), clients.rng.random()
            if drawn < READS:
                await self._read(machine, key, number)
            elif drawn < READS + ADDITIONS:
                await self._add(machine, key, number)
            else:
                await self._read_and_set(machine, key, number)

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Read every counter once more; returns whether all were read."""
        return all([await self._read(machine, key, client) is not None for key in self._keys])

    async def _read(self, machine: Machine, key: bytes, number: int) -> int | None:
        began_s = self._clients.now_s()
        read = await self._items.read_item(machine, key, client=number)
        if read is None:
            return None
        total = number_in(read.value) or 0
        self._clients.history.items.counts.append(Count(key, total, began_s, self._clients.now_s()))
        return total

    async def _add(self, machine: Machine, key: bytes, number: int) -> None:
        began_s, amount = self._clients.now_s(), self._clients.rng.randint(1, 3)
        answer = await self._items.change(machine, key, Add(amount), client=number)
        self._note(key, amount, answer.ended, began_s)

    async def _read_and_set(self, machine: Machine, key: bytes, number: int) -> None:
        total = await self._read(machine, key, number)
        if total is None:
            return
        began_s, amount = self._clients.now_s(), self._clients.rng.randint(1, 3)
        expected = b"%d" % total if total else None
        step = CompareAndSet(expected, b"%d" % (total + amount))
        answer = await self._items.change(machine, key, step, client=number)
        self._note(key, amount, answer.ended, began_s)

    def _note(self, key: bytes, amount: int, ended: Ended, began_s: float) -> None:
        increments = self._clients.history.items.increments
        if ended is Ended.DONE:
            increments.append(Increment(key, amount, began_s, self._clients.now_s()))
        elif ended is Ended.UNKNOWN:
            increments.append(Increment(key, amount, began_s))
