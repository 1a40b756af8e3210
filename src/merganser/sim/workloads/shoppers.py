"""Shoppers: carts as their owners fill them, to count how many versions a read sees.

Each client is the front of a shop for customers of its own, as many as keys are asked for. A customer looks into the
cart, adds an item to what is there, thinks, and looks again; now and then a cart is paid for and emptied. Of all visits
few are by somebody who uses the same cart through another front at the same time, a second device or another member of
the household.

Source: DeCandia 2007 §6.3: one version in 99.94 % of the reads of a day, two in 0.00057 %, three in 0.00047 %.
"""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.value_clients import ValueClients

TOGETHER = 0.01
"""Visits to a cart of another front."""
LOOKS = 0.5
"""Visits that add nothing."""
PAYS = 0.1


class Shoppers:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Give each client ``hot_keys`` carts of its own."""
        self._values = ValueClients(clients)
        self._carts = hot_keys
        self._fronts = 1
        self._items = 0

    async def client(self, number: int, operations: int) -> None:
        """Serve customers, through any node."""
        clients, rng = self._values.clients, self._values.rng
        self._fronts = max(self._fronts, number + 1)
        async for machine in clients.turns(operations):
            front = rng.randrange(self._fronts) if rng.random() < TOGETHER else number
            key = clients.key(f"cart-{front}-{rng.randrange(self._carts)}")
            known = await self._values.get(machine, key, client=number)
            if known is None or machine.member is None or rng.random() < LOOKS:
                continue
            self._items += 1
            there = [self._values.puts[value].items for value in known.seen if value in self._values.puts]
            items = frozenset({f"item-{self._items}"}).union(*there)
            await self._values.put(
                machine,
                key,
                client=number,
                knowing=known,
                items=items,
                is_delete=bool(known.values) and rng.random() < PAYS,
            )
