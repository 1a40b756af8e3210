"""Carts: the application of the Dynamo paper. Everyone adds items to a few carts, some with contexts long out of date.

A client puts the union of what it read last and one item more, in the place of what it had seen. Most look into the
cart right before, as the paper's application does. Nothing is taken out, so that every item that was ever added to a
cart must be in the union of its siblings, for ever.

Source: DeCandia 2007 §4.4 ("add to cart" operations are never lost).
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.machine import Machine
from merganser.sim.value_clients import NOTHING_KNOWN, Known, ValueClients

READS = 0.3
INFORMED = 0.6
BLIND = 0.1


class Carts:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` carts between all clients."""
        self._values = ValueClients(clients)
        self._keys = [clients.key(f"cart-{number}") for number in range(hot_keys)]
        self._items = 0

    async def client(self, number: int, operations: int) -> None:
        """Look at carts and add to them, through any node."""
        clients, rng = self._values.clients, self._values.rng
        async for machine in clients.turns(operations):
            key = rng.choice(self._keys)
            if rng.random() < READS:
                await self._values.get(machine, key, client=number)
                continue
            drawn = rng.random()
            if drawn < INFORMED:
                await self._values.get(machine, key, client=number)
                if machine.member is None:
                    continue
            is_blind = drawn >= 1 - BLIND
            await self._add(machine, key, number, NOTHING_KNOWN if is_blind else self._values.known(number, key))

    async def _add(self, machine: Machine, key: bytes, client: int, knowing: Known) -> None:
        self._items += 1
        there = [self._values.puts[value].items for value in knowing.seen]
        items = frozenset({f"item-{self._items}"}).union(*there)
        await self._values.put(machine, key, client=client, knowing=knowing, items=items)
