"""Handoff: every write to a key of its own, most of them at ANY or a sloppy quorum, so that hints must carry them."""

from __future__ import annotations

from merganser.model.consistency import Consistency, ReadQuorums, WriteQuorums
from merganser.sim.clients import Clients

READS = 0.2


class Handoff:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Let one write in ``hot_keys`` repeat a key, so that hints meet hints."""
        self._clients = clients
        self._hot_keys = hot_keys
        self._written = 0
        n = clients.table.n
        self._write_levels = (Consistency.ANY, Consistency.ANY, WriteQuorums(w=min(2, n)), Consistency.QUORUM)
        self._read_level = ReadQuorums(r=min(2, n))

    async def client(self, number: int, operations: int) -> None:
        """Write through any node that can be reached, and look at what others wrote."""
        clients, rng = self._clients, self._clients.rng
        async for machine in clients.turns(operations):
            if self._written and rng.random() < READS:
                key = clients.key(f"handed-{rng.randrange(self._written)}")
                await clients.read(machine, key, client=number, level=self._read_level)
            else:
                self._written += rng.randrange(self._hot_keys + 1) > 0
                key = clients.key(f"handed-{self._written}")
                await clients.write(
                    machine, key, clients.new_value(), client=number, level=rng.choice(self._write_levels)
                )
