"""Bank: transfers between a few accounts by write transactions, looks at all of them by read transactions.

A transfer takes only what is there, which its condition says, and an account that was never used holds `START`.
Single accounts are read, too.
"""

from __future__ import annotations

from merganser.sim.checkers.linearizable import number_in
from merganser.sim.clients import Clients
from merganser.sim.item_clients import Ended, ItemClients
from merganser.sim.item_history import Balances
from merganser.sim.machine import Machine
from merganser.sim.steps import Add, Check

START = 10
LOOKS, SINGLE_READS = 0.25, 0.15
CHECKS = 0.3
"""Share of transfers that also depend on a third account, which they leave alone."""
REPEATS = 0.5  # of transfers with a token whose outcome is unknown


class Bank:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share two accounts more than ``hot_keys``."""
        self._clients = clients
        self._items = ItemClients(clients)
        self._keys = [clients.key(f"account-{number}") for number in range(hot_keys + 2)]
        self._seen: dict[bytes, bytes | None] = {}
        clients.history.items.bank_total = START * len(self._keys)

    async def client(self, number: int, operations: int) -> None:
        """Transfer and look through any node."""
        clients = self._clients
        async for machine in clients.turns(operations):
            drawn = clients.rng.random()
            if drawn < LOOKS:
                await self.conclude(machine, number)
            elif drawn < LOOKS + SINGLE_READS:
                await self._read_one(machine, number)
            else:
                await self._transfer(machine, number)

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Look at all accounts at one instant; returns whether they were seen."""
        began_s = self._clients.now_s()
        values = await self._items.snapshot(machine, self._keys, client=client)
        if values is None:
            return False
        self._seen.update(zip(self._keys, values, strict=True))
        self._note(values, began_s, is_of_all=True)
        return True

    async def _read_one(self, machine: Machine, number: int) -> None:
        began_s, key = self._clients.now_s(), self._clients.rng.choice(self._keys)
        read = await self._items.read(machine, key, client=number)
        if read is not None:
            self._note([read.value], began_s, is_of_all=False)

    async def _transfer(self, machine: Machine, number: int) -> None:
        rng = self._clients.rng
        source, target, third = rng.sample(self._keys, 3)
        amount = rng.randint(1, START)
        steps = [(source, Add(-amount, start=START, least=0)), (target, Add(amount, start=START))]
        more = [(third, Check(self._seen.get(third)))] if rng.random() < CHECKS else []
        token = self._items.new_token() if rng.random() < 0.5 else None
        ended = await self._items.transact(machine, [*steps, *more], client=number, token=token)
        if ended is Ended.UNKNOWN and token is not None and rng.random() < REPEATS:
            again = self._clients.any_node()
            if again is not None:
                await self._items.transact(again, [*steps, *more], client=number, token=token)

    def _note(self, values: list[bytes | None], began_s: float, *, is_of_all: bool) -> None:
        numbers = tuple(START if value is None else number_in(value) or 0 for value in values)
        self._clients.history.items.balances.append(Balances(numbers, is_of_all, began_s, self._clients.now_s()))
