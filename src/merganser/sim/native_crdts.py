"""Native clients of values that merge themselves; the history has what they ask and hear, as of `sim.crdt_clients`."""

from __future__ import annotations

from collections.abc import Awaitable

from merganser.client.crdts import Crdt
from merganser.model.errors import MerganserError, RequestError, UnavailableError
from merganser.sim.checkers.crdts import HITS
from merganser.sim.clients import Clients
from merganser.sim.crdt_clients import ITEMS, flat
from merganser.sim.history import CrdtRead, CrdtWrite
from merganser.sim.native_clients import native_client

AMOUNT_MAX = 1000


class NativeCrdts:
    """One client of a run; see the module's docstring."""

    def __init__(self, clients: Clients, number: int) -> None:
        """Be client ``number``."""
        self.client = native_client(clients.world, f"client-{number}")
        self._clients = clients
        self._number = number
        self._loop = clients.world.loop

    async def get(self, name: str) -> tuple[bytes, CrdtRead] | None:
        """Read a key at QUORUM; returns the context, too; None if there was no answer."""
        began_s = self._loop.time()
        try:
            found = await self._at(name).fetch()
        except MerganserError as error:
            self._tell(f"get {name}", began_s, repr(error))
            return None
        hits, elements = flat(found.values)
        read = CrdtRead(self._clients.key(name), hits, elements, began_s, self._loop.time(), self._number)
        self._clients.history.crdt_reads.append(read)
        self._tell(f"get {name}", began_s, f"{hits} {sorted(elements)}")
        return found.context, read

    async def count(self, name: str) -> None:
        """Count up or down, once, however often the client has to send it."""
        amount = self._clients.rng.choice((-1, 1, 1)) * self._clients.rng.randint(1, AMOUNT_MAX)
        counter = self._at(name).counter(HITS)
        work = counter.increment(amount) if amount > 0 else counter.decrement(-amount)
        await self._update(f"count {amount} at {name}", self._write(name, HITS, amount), work)

    async def add(self, name: str, element: str) -> None:
        """Add an element to the set."""
        work = self._at(name).set(ITEMS).add(element)
        await self._update(f"add {element} to {name}", self._write(name, element, 1), work)

    async def remove(self, name: str, element: str) -> None:
        """Remove an element, as far as this client has just seen it."""
        known = await self.get(name)
        if known is None:
            return
        context, read = known
        await self._clients.think()
        write = self._write(name, element, 0)
        write.saw_from_s, write.saw_until_s = read.began_s, read.ended_s
        work = self._at(name).set(ITEMS).remove(element, context=context)
        await self._update(f"remove {element} from {name}", write, work)

    async def reset(self, name: str) -> None:
        """Reset the counter, or everything, as far as the node sees it."""
        home = self._at(name)
        if self._clients.rng.random() < 0.5:
            await self._update(f"reset {HITS} of {name}", self._write(name, HITS, 0), home.counter(HITS).reset())
        else:
            await self._update(f"reset {name}", self._write(name, "", 0), home.reset())

    async def _update(self, what: str, write: CrdtWrite, work: Awaitable[bool]) -> None:
        try:
            await work
        except MerganserError as error:
            write.is_certainly_unwritten = isinstance(error, UnavailableError | RequestError)
            self._tell(what, write.began_s, repr(error))
            return
        write.acked_s = self._loop.time()
        if write.saw_until_s == float("inf"):
            write.saw_until_s = write.acked_s
        self._tell(what, write.began_s, "made")

    def _write(self, name: str, place: str, amount: int) -> CrdtWrite:
        now_s = self._loop.time()
        write = CrdtWrite(self._clients.key(name), place, amount, now_s, self._number)
        if not amount:
            write.saw_from_s = now_s
        self._clients.history.crdt_writes.append(write)
        return write

    def _at(self, name: str) -> Crdt:
        return self.client.crdt(self._clients.table.name, name)

    def _tell(self, what: str, began_s: float, answer: str) -> None:
        self._loop.tell(f"native client {self._number} at {began_s:.4f} s: {what} -> {answer}")
