"""Items: puts, deletes, compare-and-set and consistent reads of a few hot items and of many that are hardly used.

What a compare-and-set expects is mostly what its client saw last, so that some succeed. Eventually consistent reads
come in between.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.item_clients import Ended, ItemClients
from merganser.sim.machine import Machine
from merganser.sim.steps import CompareAndSet, Put

HOT = 0.7
CONSISTENT_READS, EVENTUAL_READS, PUTS, DELETES = 0.3, 0.1, 0.25, 0.1  # the rest are compare-and-set
STALE = 0.15


class Items:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._hot_keys = hot_keys
        self._names = 0
        self._seen: dict[tuple[int, bytes], bytes | None] = {}
        """By client and key, what it was when the client heard of it last."""

    async def client(self, number: int, operations: int) -> None:
        """Change and read items through any node."""
        clients = self._clients
        for _ in range(operations):
            await clients.think()
            machine = clients.any_node()
            if machine is not None:
                await self._one(machine, self._key(number), number)

    async def _one(self, machine: Machine, key: bytes, number: int) -> None:
        drawn = self._clients.rng.random()
        if drawn < CONSISTENT_READS:
            read = await self._items.read_item(machine, key, client=number)
            if read is not None:
                self._seen[number, key] = read.value
        elif drawn < CONSISTENT_READS + EVENTUAL_READS:
            await self._items.glance(machine, key, client=number)
        else:
            step = self._step(drawn - CONSISTENT_READS - EVENTUAL_READS, self._seen.get((number, key)))
            answer = await self._items.change(machine, key, step, client=number)
            if answer.ended is Ended.REJECTED:
                self._seen[number, key] = answer.was
            elif answer.ended is Ended.DONE:
                self._seen[number, key] = step.value

    def _step(self, drawn: float, seen: bytes | None) -> Put | CompareAndSet:
        clients = self._clients
        if drawn < PUTS:
            return Put(clients.new_value())
        if drawn < PUTS + DELETES:
            return Put(None)
        expected = None if clients.rng.random() < STALE else seen
        return CompareAndSet(expected, None if clients.rng.random() < DELETES else clients.new_value())

    def _key(self, client: int) -> bytes:
        rng = self._clients.rng
        if rng.random() < HOT:
            return self._clients.key(f"hot-{rng.randrange(self._hot_keys)}")
        self._names += rng.random() < 0.5
        return self._clients.key(f"own-{client}-{self._names}")
