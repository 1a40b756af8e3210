"""Native, crdts: what `Crdts` does, by the native client, which numbers and repeats what it counts by itself."""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.native_clients import work
from merganser.sim.native_crdts import NativeCrdts
from merganser.sim.workloads.crdts import ADDS, COUNTS, ELEMENTS, READS, RESETS


class NativeCrdtUse:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._clients = clients
        self._names = [f"page-{number}" for number in range(hot_keys)]

    async def client(self, number: int, operations: int) -> None:
        """Read and update; a client that does not find the cluster tries again."""
        native, rng = NativeCrdts(self._clients, number), self._clients.rng

        async def operate() -> None:
            name, drawn = rng.choice(self._names), rng.random()
            if drawn < READS:
                await native.get(name)
            elif drawn < READS + COUNTS:
                await native.count(name)
            elif drawn < READS + COUNTS + RESETS:
                await native.reset(name)
            else:
                change = native.add if rng.random() < ADDS else native.remove
                await change(name, f"item-{rng.randrange(ELEMENTS)}")

        await work(native.client, self._clients, operations, operate)
