"""Appends: transactions that append to several lists, and depend on others, mixed with snapshots and single operations.

A transaction of unknown outcome that carries a token may be asked for once more through another node, and one that has
happened may be so much later; however often it is asked for, each element is appended once.
"""

from __future__ import annotations

from typing import NamedTuple

from merganser.core.transaction import KEPT_S
from merganser.sim.checkers.serializable import Listed, Transaction
from merganser.sim.clients import Clients
from merganser.sim.item_clients import Ended, ItemClients, actions_of
from merganser.sim.machine import Machine
from merganser.sim.steps import Append, Check, Step, elements_in, value_of

SNAPSHOTS, SINGLE_READS, SINGLE_APPENDS = 0.2, 0.15, 0.25  # the rest are write transactions
CONDITIONS = 0.5
"""Share of write transactions that depend on lists their client has just seen."""
TOKENS, REPEATS = 0.5, 0.7
AGAIN = 0.1
"""Share of requests that are those of transactions which have happened: as of a client that was down meanwhile."""
REPEATED_IN_THE_END = 4


class Request(NamedTuple):
    """A write transaction under a token."""

    steps: list[tuple[bytes, Step]]
    token: bytes
    began_s: float


class Appends:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share two lists more than ``hot_keys``."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._keys = [clients.key(f"list-{number}") for number in range(hot_keys + 2)]
        self._elements = 0
        self._happened: list[Request] = []

    async def client(self, number: int, operations: int) -> None:
        """Append and read through any node."""
        clients = self._clients
        async for machine in clients.turns(operations):
            drawn = clients.rng.random()
            if drawn < SNAPSHOTS:
                await self._snapshot(machine, self._some(2, 4), number)
            elif drawn < SNAPSHOTS + SINGLE_READS:
                await self._items.read_list(machine, clients.rng.choice(self._keys), client=number)
            elif drawn < SNAPSHOTS + SINGLE_READS + SINGLE_APPENDS:
                key, step = clients.rng.choice(self._keys), Append(self._element())
                await self._items.change(machine, key, step, client=number)
            elif self._happened and clients.rng.random() < AGAIN:
                await self._repeat(machine, clients.rng.choice(self._happened), number)
            else:
                await self._write(machine, number)

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Read every list at one instant, and one by one; returns whether all were read."""
        for request in self._happened[:REPEATED_IN_THE_END]:
            await self._repeat(machine, request, client)
        is_seen = await self._snapshot(machine, self._keys, client) is not None
        alone = [await self._items.read_list(machine, key, client=client) is not None for key in self._keys]
        return is_seen and all(alone)

    async def _snapshot(
        self, machine: Machine, names: list[bytes], number: int
    ) -> dict[bytes, tuple[bytes, ...]] | None:
        began_s = self._clients.now_s()
        values = await self._items.snapshot(machine, names, client=number)
        if values is None:
            return None
        lists = {key: elements_in(value) for key, value in zip(names, values, strict=True)}
        actions = tuple(Listed(key, elements) for key, elements in lists.items())
        self._clients.history.items.transactions.append(Transaction(actions, began_s, self._clients.now_s()))
        return lists

    async def _write(self, machine: Machine, number: int) -> None:
        rng, names = self._clients.rng, self._some(1, 3)
        steps: list[tuple[bytes, Step]] = [(key, Append(self._element())) for key in names]
        if rng.random() < CONDITIONS:
            others = self._some(1, 2)
            seen = await self._snapshot(machine, others, number)
            if seen is None:
                return
            steps = [(key, step) for key, step in steps if key not in seen]
            for key, elements in seen.items():
                if rng.random() < 0.5:
                    steps.append((key, Append(self._element(), elements)))
                else:
                    steps.append((key, Check(value_of(elements))))
        token = self._items.new_token() if rng.random() < TOKENS else None
        began_s = self._clients.now_s()
        ended = await self._items.transact(machine, steps, client=number, token=token)
        if ended is Ended.UNKNOWN and token is not None and rng.random() < REPEATS:
            again = self._clients.any_node()
            if again is not None and await self._items.transact(again, steps, client=number, token=token) is Ended.DONE:
                ended = Ended.DONE
        self._items.note_transaction(actions_of(steps), ended, began_s)
        if ended is Ended.DONE and token is not None:
            self._happened.append(Request(steps, token, began_s))

    async def _repeat(self, machine: Machine, request: Request, number: int) -> None:
        if self._clients.now_s() > request.began_s + KEPT_S / 2:  # the run takes long, and tokens are soon forgotten
            return
        await self._items.transact(machine, request.steps, client=number, token=request.token, has_happened=True)

    def _some(self, least: int, most: int) -> list[bytes]:
        rng = self._clients.rng
        return rng.sample(self._keys, rng.randint(least, min(most, len(self._keys))))

    def _element(self) -> bytes:
        self._elements += 1
        return b"%d" % self._elements
