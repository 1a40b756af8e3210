"""Native: what `Siblings` does, by the native client, which finds its own way to the replicas."""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.native_clients import NativeClient, work
from merganser.sim.value_clients import NOTHING_KNOWN, Known, ValueClients
from merganser.sim.workloads.siblings import BLIND, DELETES, READS, STALE


class Native:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients."""
        self._clients = clients
        self._values = ValueClients(clients)
        self._names = [f"note-{number}" for number in range(hot_keys)]
        self._earlier: dict[str, list[Known]] = {name: [NOTHING_KNOWN] for name in self._names}

    async def client(self, number: int, operations: int) -> None:
        """Read, put and delete; a client that does not find the cluster tries again."""
        native, rng = NativeClient(self._clients, self._values, number), self._clients.rng

        async def operate() -> None:
            name, drawn = rng.choice(self._names), rng.random()
            if drawn < READS:
                await native.get(name)
            else:
                await native.put(name, knowing=self._drawn(number, name), is_delete=rng.random() < DELETES)
            self._earlier[name].append(self._values.known(number, self._clients.key(name)))

        await work(native.client, self._clients, operations, operate)

    def _drawn(self, client: int, name: str) -> Known:
        drawn = self._clients.rng.random()
        if drawn < BLIND:
            return NOTHING_KNOWN
        if drawn < BLIND + STALE:
            return self._clients.rng.choice(self._earlier[name])
        return self._values.known(client, self._clients.key(name))
