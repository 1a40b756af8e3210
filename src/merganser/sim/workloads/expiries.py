"""Expiries: items that expire soon, long ago or in a day, whose times move, read by those who write them.

Each item belongs to one client, which does one thing after another to it: so it knows what the item must be, and what
may have become of it since is that it has expired. The table expires its items only from some time in the run on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from merganser.core.expiry import MARGIN_S
from merganser.model.errors import MerganserError, RequestError, UnavailableError
from merganser.service.steps import WIRES
from merganser.sim.checkers.expiries import GONE_S, Expirable, Outcome
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, member_of, name_of
from merganser.sim.machine import Machine
from merganser.sim.steps import EXPIRING, Put, expires_at, payload_of, until

KEYS_EACH = 4
LIVES_S = (-MARGIN_S - 2, -MARGIN_S - 1, -MARGIN_S, 1 - MARGIN_S, 3 - MARGIN_S, 0, 2, 86_400)
"""From the clock of the machine that is asked; most are due at once or in a second or two, as the margin is over."""
WRITES, ENDLESS, DELETES = 0.45, 0.1, 0.05  # the rest are reads
BEGINS_AT = 0.3
"""Of the operations of the first client: then it has items expire."""


class Expiries:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Let each client have items of its own, whatever ``hot_keys`` is."""
        self._clients = clients
        self._history = clients.history.items
        self._latest_s: float = 0.0
        """The latest time at which anything expires that does within the run."""
        self._seen_on_s: float | None = None
        """When items were first seen to expire, by the loop."""

    async def client(self, number: int, operations: int) -> None:
        """Write and read one's own items through any node."""
        clients = self._clients
        for done in range(operations):
            await clients.think()
            if number == 0 and done >= BEGINS_AT * operations and not await self._begin():
                continue
            machine = clients.any_node()
            if machine is not None:
                await self._one(machine, self._key(number), number)

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Read everything once more when all that is to expire has; returns whether all was read."""
        if not await self._begin():
            return False
        assert self._seen_on_s is not None
        await asyncio.sleep(max(0.0, self._latest_s + MARGIN_S + GONE_S - self._now_wall_s))
        await asyncio.sleep(max(0.0, self._seen_on_s + GONE_S - self._clients.now_s()))  # it may have begun just now
        written = dict.fromkeys(record.key for record in self._history.expirables)
        return all([await self._read(machine, key, client, is_settled=True) for key in written])

    async def _begin(self) -> bool:
        """Have the table's items expire; returns whether they do for sure."""
        clients = self._clients
        machine = clients.any_node()
        if machine is None or machine.member is None:
            return False
        table = machine.member.topology.table(clients.table.id)
        if table is None:
            return False
        if table.definition == EXPIRING:
            self._seen_on_s = self._seen_on_s or clients.now_s()
            return True
        if self._history.expires_from_s is None:
            self._history.expires_from_s = clients.now_s()
        work = machine.member.catalog.redefine_table(table, EXPIRING, deadline=clients.now_s() + REQUEST_TIMEOUT_S)
        outcome, _ = await self._asked(machine, work, "let items expire", 0)
        if outcome is not Outcome.DONE:
            return False
        self._seen_on_s = self._seen_on_s or clients.now_s()
        return True

    async def _one(self, machine: Machine, key: bytes, number: int) -> None:
        clients, drawn = self._clients, self._clients.rng.random()
        if drawn < WRITES:
            at_s = machine.wall_us() // 1_000_000 + clients.rng.choice(LIVES_S)
            if at_s < machine.wall_us() // 1_000_000 + 60:
                self._latest_s = max(self._latest_s, at_s)
            await self._write(machine, key, until(clients.new_value(), at_s), number)
        elif drawn < WRITES + ENDLESS:
            await self._write(machine, key, clients.new_value(), number)
        elif drawn < WRITES + ENDLESS + DELETES:
            await self._write(machine, key, None, number)
        else:
            await self._read(machine, key, number)

    async def _write(self, machine: Machine, key: bytes, value: bytes | None, number: int) -> None:
        clients, began_s = self._clients, self._clients.now_s()
        work = member_of(machine).leader_tables.leader_based.change(
            clients.table, key, WIRES, payload_of(Put(value)), deadline=began_s + REQUEST_TIMEOUT_S
        )
        outcome, _ = await self._asked(machine, work, f"{name_of(key)}: {value!r}", number)
        if outcome is Outcome.UNDONE:
            return
        self._note(key, value, outcome, began_s, is_write=True)

    async def _read(self, machine: Machine, key: bytes, number: int, *, is_settled: bool = False) -> bool:
        clients, began_s = self._clients, self._clients.now_s()
        work = member_of(machine).leader_tables.leader_based.read(
            clients.table, key, is_consistent=True, deadline=began_s + REQUEST_TIMEOUT_S
        )
        outcome, led = await self._asked(machine, work, f"read {name_of(key)}", number)
        if outcome is not Outcome.DONE:
            return False
        self._note(key, led.value, outcome, began_s, is_write=False, is_settled=is_settled)
        return True

    async def _asked(
        self, machine: Machine, work: Coroutine[Any, Any, Any], what: str, number: int
    ) -> tuple[Outcome, Any]:
        task = await self._clients.ask(machine, work, what, number)
        if not task.done():
            return Outcome.UNKNOWN, None
        error = task.exception()
        if error is None:
            return Outcome.DONE, task.result()
        if not isinstance(error, MerganserError):
            raise error
        return Outcome.UNDONE if isinstance(error, UnavailableError | RequestError) else Outcome.UNKNOWN, None

    def _note(
        self,
        key: bytes,
        value: bytes | None,
        outcome: Outcome,
        began_s: float,
        *,
        is_write: bool,
        is_settled: bool = False,
    ) -> None:
        latest_wall_s = max(machine.latest_wall_us for machine in self._clients.world.machines) / 1e6
        expires_at_s = None if value is None else expires_at(value)
        self._history.expirables.append(
            Expirable(
                key,
                value,
                expires_at_s,
                is_write,
                outcome,
                began_s,
                self._clients.now_s(),
                latest_wall_s,
                is_settled,
            )
        )

    @property
    def _now_wall_s(self) -> float:
        """What the slowest clock shows."""
        return min(machine.wall_us() for machine in self._clients.world.machines) / 1e6

    def _key(self, client: int) -> bytes:
        return self._clients.key(f"mortal-{client}-{self._clients.rng.randrange(KEYS_EACH)}")
