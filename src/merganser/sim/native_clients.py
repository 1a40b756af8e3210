"""Native clients (`merganser.client`) on the simulated network: the code that users run, over another transport.

What they ask and hear goes into the history as that of `sim.value_clients`, and is judged the same way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from merganser.client.client import Client
from merganser.client.session import Coordinated, Session
from merganser.client.tables import ValueTable
from merganser.model.errors import MerganserError, RequestError, UnavailableError
from merganser.model.ids import NodeId
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients
from merganser.sim.history import ValuePut, ValuesRead
from merganser.sim.loop import Incarnation
from merganser.sim.network import SimulatedTransport
from merganser.sim.value_clients import Known, ValueClients
from merganser.sim.world import World


def native_client(
    world: World, name: str, *, timeout_s: float = REQUEST_TIMEOUT_S, coordinated: Coordinated = "replica"
) -> Client:
    """Return a client on the network of ``world``, with all machines for seeds; it is to be opened and closed."""
    node = NodeId(f"{world.rng.getrandbits(64):016x}")
    transport = SimulatedTransport(world.network, Incarnation(name), name, node, world.rng, is_client=True)
    seeds = [machine.address for machine in world.machines]
    session = Session(seeds, transport, rng=world.rng, coordinated=coordinated)
    return Client(seeds, timeout_s=timeout_s, session=session)


async def work(client: Client, clients: Clients, operations: int, operate: Callable[[], Awaitable[None]]) -> None:
    """Have a client ``operate`` so often, once it has found the cluster, for which it tries as often; then close it."""
    is_open = False
    for _ in range(operations):
        await clients.think()
        try:
            if not is_open:
                await client.open()
                is_open = True
        except UnavailableError:
            continue
        await operate()
    await client.close()


class NativeClient:
    """One client of a run; see the module's docstring."""

    def __init__(self, clients: Clients, values: ValueClients, number: int) -> None:
        """Be client ``number`` of those who share ``values``."""
        self.client = native_client(clients.world, f"client-{number}")
        self._clients = clients
        self._values = values
        self._number = number
        self._table: ValueTable = self.client.table(clients.table.name)
        self._loop = clients.world.loop

    async def get(self, name: str) -> Known | None:
        """Read a key at QUORUM; None if there was no answer."""
        began_s, key = self._loop.time(), self._clients.key(name)
        try:
            found = await self._table.get(name)
        except MerganserError as error:
            self._tell(f"get {name}", began_s, repr(error))
            return None
        values = frozenset(found.all)
        self._tell(f"get {name}", began_s, f"{sorted(values)}")
        self._clients.history.value_reads.append(ValuesRead(key, values, began_s, self._loop.time(), self._number))
        return self._values.learn(self._number, key, found.context, values)

    async def put(self, name: str, *, knowing: Known, is_delete: bool = False) -> ValuePut:
        """Put a new value (or delete) in the place of what was seen with ``knowing``."""
        began_s, key = self._loop.time(), self._clients.key(name)
        value = self._clients.new_value()
        put = ValuePut(key, value, is_delete, knowing.seen, began_s, client=self._number)
        self._clients.history.value_puts.append(put)
        self._values.puts[value] = put
        what = f"{'delete' if is_delete else 'put'} {name} {value!r} in the place of {sorted(knowing.seen)}"
        try:
            if is_delete:
                context = await self._table.delete(name, context=knowing.context)
            else:
                context = await self._table.put(name, value, context=knowing.context)
        except MerganserError as error:
            put.is_certainly_unwritten = isinstance(error, UnavailableError | RequestError)
            self._tell(what, began_s, repr(error))
            return put
        put.acked_s = self._loop.time()
        self._tell(what, began_s, "done")
        self._values.wrote(self._number, put, knowing, context)
        return put

    def _tell(self, what: str, began_s: float, answer: str) -> None:
        self._loop.tell(f"native client {self._number} at {began_s:.4f} s: {what} -> {answer}")
