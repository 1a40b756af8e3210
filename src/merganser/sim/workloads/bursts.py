"""Bursts: many requests at one moment to one node, more than it may serve at once and more than may wait for it."""

from __future__ import annotations

import asyncio

from merganser.core.admission import AdmissionLimits
from merganser.sim.clients import Clients
from merganser.sim.machine import Machine

LIMITS = AdmissionLimits(
    requests_max=4, requests_min=2, waiting_max=4, patience_s=0.2, operations_max=6, served_max=5, served_bytes_max=2000
)
"""So low that four clients reach each of them."""
BURST = (4, 16)


class Bursts:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys, and let half of the requests ask to be admitted, as the wires do."""
        self._clients = clients
        self._keys = [clients.key(f"hot-{number}") for number in range(hot_keys)]
        clients.is_admission_asked = True

    async def client(self, number: int, operations: int) -> None:
        """Ask for much at once, and rest."""
        clients, rng = self._clients, self._clients.rng
        left = operations
        while left > 0:
            await clients.think()
            machine = clients.any_node()
            if machine is None:
                left -= 1
                continue
            size = min(left, rng.randint(*BURST))
            left -= size
            await asyncio.gather(*(self._request(machine, number) for _ in range(size)))

    async def _request(self, machine: Machine, client: int) -> None:
        clients, rng = self._clients, self._clients.rng
        key = rng.choice(self._keys)
        if not machine.is_up or machine.member is None:
            return
        if rng.random() < 0.3:
            await clients.read(machine, key, client=client)
        else:
            await clients.write(machine, key, clients.new_value(), client=client)
