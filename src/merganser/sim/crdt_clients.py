"""What the clients of a run can do to values that merge themselves; all they ask and hear goes into the history.

Each key holds a map of a counter, ``hits``, and a set, ``items``. Who counts under a session sends an update again,
through any node, until it is known to be made, or the session has ended.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from merganser.core.crdt import types
from merganser.model import crdt
from merganser.model.consistency import Consistency, Need
from merganser.model.crdt import Operation, OperationId, Session, Shown
from merganser.model.errors import MerganserError, RequestError, UnavailableError
from merganser.service.shortfall import OUTRANKED
from merganser.sim.checkers.crdts import HITS
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, member_of, name_of
from merganser.sim.history import CrdtRead, CrdtWrite, Failure
from merganser.sim.machine import Machine

ITEMS = "items"
ATTEMPTS = 4


class Counting(msgspec.Struct):
    """A session of a client, and the update that it is at."""

    session: Session
    sequences: dict[bytes, int] = {}
    pending: tuple[bytes, Operation, CrdtWrite] | None = None
    """Key, operation, and what the history knows of an update whose outcome is unknown."""


class CrdtClients:
    """The clients of one run on one such table; see the module's docstring."""

    def __init__(self, clients: Clients) -> None:
        """Ask through ``clients``."""
        self.clients = clients
        self.rng = clients.rng
        self._history = clients.history
        self._loop = clients.world.loop

    async def get(
        self, machine: Machine, key: bytes, *, client: int, level: Consistency = Consistency.QUORUM
    ) -> tuple[bytes, CrdtRead] | None:
        """Read a key at QUORUM, or more; returns the context, too; None if there was no answer."""
        began_s = self._loop.time()
        work = member_of(machine).crdt_values.get(
            self.clients.table, key, level=level, deadline=began_s + REQUEST_TIMEOUT_S
        )
        is_answered, found = await self._ask(machine, key, work, f"get {name_of(key)} at {level.value}", client, level)
        if not is_answered:
            return None
        hits, elements = flat(found.values)
        read = CrdtRead(key, hits, elements, began_s, self._loop.time(), client)
        self._history.crdt_reads.append(read)
        return found.context, read

    async def add(self, machine: Machine, key: bytes, element: str, *, client: int) -> None:
        """Add an element to the set."""
        await self._update(machine, self._addition(key, element, 1, client), _item("add", element))

    async def remove(self, machine: Machine, key: bytes, element: str, *, client: int) -> None:
        """Remove an element, as far as the node sees it, or as far as this client has just seen it."""
        if self.rng.random() < 0.5:
            await self._update(machine, self._removal(key, element, client), _item("remove", element))
            return
        known = await self.get(machine, key, client=client)
        if known is None or machine.member is None:
            return
        context, read = known
        await self.clients.think()
        if machine.member is None or not context:
            return
        removal = self._removal(key, element, client)
        removal.saw_from_s, removal.saw_until_s = read.began_s, read.ended_s
        await self._update(machine, removal, _item("remove", element), context=context)

    async def reset(self, machine: Machine, key: bytes, *, client: int) -> None:
        """Reset the counter, or everything."""
        if self.rng.random() < 0.5:
            operation = Operation(crdt.COUNTER, types.RESET, path=(HITS.encode(),))
            await self._update(machine, self._removal(key, HITS, client), operation)
        else:
            await self._update(machine, self._removal(key, "", client), Operation(crdt.ANY, types.RESET))

    async def count_blindly(self, machine: Machine, key: bytes, *, client: int) -> None:
        """Count once, without an id, and never again."""
        operation, amount = self._increment()
        await self._update(machine, self._addition(key, HITS, amount, client), operation)

    async def open_session(self, machine: Machine, key: bytes, *, client: int) -> Counting | None:
        """Open a session that lasts for some seconds; None if there was no answer."""
        life_s, deadline = self.rng.choice((3, 10, 60)), self._loop.time() + REQUEST_TIMEOUT_S
        work = member_of(machine).crdt_values.open_session(self.clients.table, key, life_s=life_s, deadline=deadline)
        is_answered, session = await self._ask(machine, key, work, "open a session", client, None)
        return Counting(session, {}) if is_answered else None

    async def count(self, counting: Counting, key: bytes, *, client: int) -> bool:
        """Count once, or go on with what is not known yet; returns whether the session is of any use afterwards."""
        is_again = counting.pending is not None
        if counting.pending is None:
            operation, amount = self._increment()
            write = self._addition(key, HITS, amount, client)
            counting.pending = key, operation, write
        key, operation, write = counting.pending
        for attempt in range(ATTEMPTS):
            machine = self.clients.any_node()
            if machine is None:
                continue
            update = OperationId(counting.session, counting.sequences.get(key, 0) + 1)
            outcome = await self._attempt(machine, write, operation, update=update)
            if outcome == "made":
                counting.pending = None
                counting.sequences[key] = update.sequence
                return True
            if outcome == "refused":  # the session has ended
                write.is_certainly_unwritten = not is_again and attempt == 0
                return False
            is_again = is_again or outcome == "unknown"
            await self.clients.think()
        return True

    async def _update(
        self, machine: Machine, write: CrdtWrite, operation: Operation, *, context: bytes | None = None
    ) -> None:
        outcome = await self._attempt(machine, write, operation, context=context)
        write.is_certainly_unwritten = outcome in ("refused", "unwritten")

    async def _attempt(
        self,
        machine: Machine,
        write: CrdtWrite,
        operation: Operation,
        *,
        update: OperationId | None = None,
        context: bytes | None = None,
    ) -> str:
        table, level = self.clients.table, Consistency.QUORUM
        work = member_of(machine).crdt_values.update(
            table,
            write.key,
            (operation,),
            update=update,
            context=context,
            level=level,
            read_level=level,
            deadline=self._loop.time() + REQUEST_TIMEOUT_S,
        )
        told = f"{operation.action} {operation.value!r} at {write.place or 'all'} of {name_of(write.key)}"
        told += f" as {update.sequence} of {update.session.began_us}" if update else ""
        is_answered, found = await self._ask(machine, write.key, work, told, write.client, level)
        if is_answered:
            write.acked_s = self._loop.time()
            if write.saw_until_s == float("inf"):
                write.saw_until_s = write.acked_s
            return "made"
        if isinstance(found, RequestError):
            return "refused"
        return "unwritten" if isinstance(found, UnavailableError) else "unknown"

    async def _ask(
        self,
        machine: Machine,
        key: bytes,
        work: Coroutine[Any, Any, Any],
        what: str,
        client: int,
        level: Consistency | None,
    ) -> tuple[bool, Any]:
        """Return whether there was an answer, and the answer or the error."""
        began_s = self._loop.time()
        task = await self.clients.ask(machine, work, what, client)
        if not task.done():
            error: BaseException | None = None
        elif (error := task.exception()) is None:
            return True, task.result()
        # an update that was made by a clock far behind does not go out again: enough replicas have answered
        is_sealed = error is not None and OUTRANKED in str(error)
        if level is not None and not isinstance(error, RequestError) and not is_sealed:
            required = level.required(self.clients.table.n)
            self._history.failures.append(
                Failure(what, key, machine.node, Need(required, required), began_s, self._loop.time())
            )
        if error is not None and not isinstance(error, MerganserError):
            raise error
        return False, error

    def _increment(self) -> tuple[Operation, int]:
        amount = self.rng.choice((-1, 1, 1)) * self.rng.randint(1, 1000)
        action = "increment" if amount > 0 else "decrement"
        return Operation(crdt.COUNTER, action, abs(amount), (HITS.encode(),)), amount

    def _addition(self, key: bytes, place: str, amount: int, client: int) -> CrdtWrite:
        write = CrdtWrite(key, place, amount, self._loop.time(), client)
        self._history.crdt_writes.append(write)
        return write

    def _removal(self, key: bytes, place: str, client: int) -> CrdtWrite:
        now_s = self._loop.time()
        write = CrdtWrite(key, place, 0, now_s, client, saw_from_s=now_s)
        self._history.crdt_writes.append(write)
        return write


def _item(action: str, element: str) -> Operation:
    return Operation(crdt.SET, action, element.encode(), (ITEMS.encode(),))


def flat(values: Iterable[Shown]) -> tuple[int, frozenset[str]]:
    """Return what the counter and the set of a key say."""
    hits, elements = 0, frozenset[str]()
    for shown in values:
        assert isinstance(shown.value, tuple)
        for field in shown.value:
            assert not isinstance(field, bytes)
            value = field.of.value
            if isinstance(value, int):
                hits = value
            elif isinstance(value, tuple):
                elements = frozenset(one.decode() for one in value if isinstance(one, bytes))
    return hits, elements
