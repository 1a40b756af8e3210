"""Indexes: items that move about in global indexes, by single changes and by transactions, and looks at these.

Some items are changed by single steps, and are judged as registers, too; some by transactions of two, and now and then
by a single step that waits for them. Pages of the indexes are read in between, at the nearest replica.
"""

from __future__ import annotations

from merganser.model.cluster import Table
from merganser.sim import indexes
from merganser.sim.clients import Clients, member_of
from merganser.sim.item_clients import ItemClients
from merganser.sim.item_history import Indexed
from merganser.sim.machine import Machine
from merganser.sim.steps import CompareAndSet, Put

COLORS = (b"red", b"green", b"blue")
SHAPES = (b"", b"round", b"square")
READS, LOOKS, TRANSACTIONS, DELETES = 0.1, 0.2, 0.2, 0.2
OWN = 0.3
"""Share of single changes to items that nobody else changes."""
KEPT = 0.3
"""Share of puts that leave an item its color, and of those half its shape, too."""


class Indexes:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` items of each kind between all clients."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._hot_keys = hot_keys
        self._names = 0
        self._last: dict[bytes, bytes] = {}
        """By key, what was put last."""

    async def client(self, number: int, operations: int) -> None:
        """Change items and look at indexes through any node."""
        clients = self._clients
        for _ in range(operations):
            await clients.think()
            machine = clients.any_node()
            if machine is not None:
                await self.one(machine, number)

    async def one(self, machine: Machine, number: int) -> None:
        """Do one thing, as client ``number``."""
        rng = self._clients.rng
        drawn = rng.random()
        if drawn < READS:
            await self._items.read_item(machine, self._single(number), client=number)
        elif drawn < READS + LOOKS:
            table = self.table(machine)
            if table.indexes:
                await self._items.look_at_index(machine, table, rng.choice(table.indexes).table, client=number)
        elif drawn < READS + LOOKS + TRANSACTIONS:
            both = rng.sample(range(self._hot_keys + 1), 2)
            steps = [(key, self._step(key)) for key in (self._clients.key(f"pair-{one}") for one in both)]
            await self._items.transact(machine, steps, client=number)
        elif drawn < READS + LOOKS + TRANSACTIONS + 0.1:
            key = self._clients.key(f"pair-{rng.randrange(self._hot_keys + 1)}")
            await self._items.change(machine, key, self._step(key), client=number, is_noted=False)
        else:
            await self._change(machine, self._single(number), number)

    async def _change(self, machine: Machine, key: bytes, number: int) -> None:
        step: Put | CompareAndSet = self._step(key)
        if self._clients.rng.random() < DELETES:
            step = CompareAndSet(self._last.get(key), step.value)
        await self._items.change(machine, key, step, client=number)

    def _step(self, key: bytes) -> Put:
        """Return a put of what was never put, or a delete."""
        rng = self._clients.rng
        if rng.random() < DELETES:
            self._clients.history.items.deleted.add(key)
            return Put(None)
        color, shape = rng.choice(COLORS), rng.choice(SHAPES)
        if key in self._last and rng.random() < KEPT:
            color, old, _ = self._last[key].split(b"|")
            shape = rng.choice((old, shape))
        value = self._last[key] = indexes.value_of(color, shape, self._clients.new_value())
        self._clients.history.items.indexed.append(Indexed(key, value, self._clients.now_s()))
        return Put(value)

    def _single(self, client: int) -> bytes:
        rng = self._clients.rng
        if rng.random() < OWN:
            self._names += rng.random() < 0.5
            return self._clients.key(f"own-{client}-{self._names}")
        return self._clients.key(f"hot-{rng.randrange(self._hot_keys)}")

    def table(self, machine: Machine) -> Table:
        """Return the table as a machine knows it."""
        known = None if machine.member is None else member_of(machine).topology.table(self._clients.table.id)
        return known or self._clients.table
