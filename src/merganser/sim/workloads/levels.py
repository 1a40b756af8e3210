"""Levels: each request names its own consistency, so that some of them meet and others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from merganser.model.consistency import (
    Consistency,
    ReadLevel,
    ReadQuorums,
    WriteLevel,
    WriteQuorums,
    needed_to_read,
    needed_to_write,
)
from merganser.sim.clients import Clients

ONE, TWO, QUORUM, ALL, ANY = (
    Consistency.ONE,
    Consistency.TWO,
    Consistency.QUORUM,
    Consistency.ALL,
    Consistency.ANY,
)
WRITE_LEVELS: tuple[WriteLevel, ...] = (
    *(ONE, TWO, QUORUM, ALL, ANY),
    *(WriteQuorums(w=2), WriteQuorums(w=2, pw=1), WriteQuorums(w=3, pw=2)),
)
READ_LEVELS: tuple[ReadLevel, ...] = (
    *(ONE, TWO, QUORUM, ALL),
    *(ReadQuorums(r=2), ReadQuorums(r=2, pr=1), ReadQuorums(r=3, pr=2)),
)

L = TypeVar("L")


class Levels:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share twice as many as ``hot_keys`` keys."""
        self._clients = clients
        self._keys = [clients.key(f"hot-{number}") for number in range(2 * hot_keys)]
        n = clients.table.n
        self._write_levels = [level for level in WRITE_LEVELS if _is_met(needed_to_write, level, n)]
        self._read_levels = [level for level in READ_LEVELS if _is_met(needed_to_read, level, n)]

    async def client(self, number: int, operations: int) -> None:
        """Write and read at any level through any node."""
        clients, rng = self._clients, self._clients.rng
        async for machine in clients.turns(operations):
            key = rng.choice(self._keys)
            if rng.random() < 0.5:
                await clients.read(machine, key, client=number, level=rng.choice(self._read_levels))
            else:
                value = None if rng.random() < 0.1 else clients.new_value()
                await clients.write(machine, key, value, client=number, level=rng.choice(self._write_levels))


def _is_met(needed: Callable[[L, int], object], level: L, n: int) -> bool:
    """Tell whether a table of ``n`` replicas can have ``level`` at all."""
    try:
        needed(level, n)
    except ValueError:
        return False
    return True
