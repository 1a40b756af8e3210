"""A network of messages on virtual time: delay, loss, duplication, reordering, partitions.

Each message draws its own delay, so messages overtake one another. Requests and replies travel
encoded, as on a real wire, so nothing is shared between machines by accident.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from merganser.model.errors import MerganserError, PeerLostError, PeerUnreachableError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import Refused, Reply, Request
from merganser.net.transport import Handler, Traffic, failed, refusal_code
from merganser.sim.loop import Incarnation, SimulatedLoop

_ENCODE = msgspec.msgpack.Encoder().encode
_REQUEST = msgspec.msgpack.Decoder(Request)
_REPLY = msgspec.msgpack.Decoder(Reply)


class Conditions(msgspec.Struct):
    """How the network behaves just now."""

    delay_s: tuple[float, float] = (0.0002, 0.01)
    loss: float = 0.0
    duplication: float = 0.0


class SimulatedNetwork:
    """Carries messages between machines, by address; see the module's docstring."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        """Begin with a healthy network and nobody on it."""
        self.loop = loop
        self.conditions = Conditions()
        self.sent = 0
        self.lost = 0
        self._rng = rng
        self._machines: dict[str, SimulatedTransport] = {}
        self._cuts: Counter[tuple[str, str]] = Counter()

    def attach(self, address: str, machine: SimulatedTransport) -> None:
        """Let ``machine`` receive what is sent to ``address``."""
        self._machines[address] = machine

    def is_listening(self, address: str) -> bool:
        """Tell whether a living machine listens there."""
        machine = self._machines.get(address)
        return machine is not None and not machine.incarnation.is_dead

    def cut(self, sender: str, receiver: str) -> None:
        """Lose everything from ``sender`` to ``receiver`` until it was mended as often as it was cut."""
        self._cuts[sender, receiver] += 1

    def mend(self, sender: str, receiver: str) -> None:
        """Undo one cut, if there is one."""
        self._cuts[sender, receiver] -= 1
        if self._cuts[sender, receiver] <= 0:
            del self._cuts[sender, receiver]

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Tell whether what ``sender`` says to ``receiver`` is lost just now."""
        return (sender, receiver) in self._cuts

    def heal(self) -> None:
        """Undo every cut and return to healthy conditions."""
        self._cuts.clear()
        self.conditions = Conditions()

    def carry(self, sender: str, receiver: str, kind: str, number: int, payload: bytes) -> None:
        """Take a message on its way; it arrives once, twice, or never."""
        self.sent += 1
        copies = 1 + (self._rng.random() < self.conditions.duplication)
        for _ in range(copies):
            if self._rng.random() < self.conditions.loss:
                self.lost += 1
                continue
            delay_s = self._rng.uniform(*self.conditions.delay_s)
            self.loop.call_later(
                delay_s, self._arrive, sender, receiver, kind, number, payload, context=contextvars.Context()
            )

    def _arrive(self, sender: str, receiver: str, kind: str, number: int, payload: bytes) -> None:
        machine = self._machines.get(receiver)
        if machine is None or machine.incarnation.is_dead or self.is_cut(sender, receiver):
            self.lost += 1
            return
        self.loop.note(kind, sender, receiver, number, payload)
        if machine.incarnation.is_paused:  # it waits in the socket
            self.loop.call_in(machine.incarnation, machine.receive, sender, kind, number, payload)
        else:
            machine.receive(sender, kind, number, payload)


class SimulatedTransport:
    """One machine's end of the network; a `Transport`."""

    def __init__(
        self, network: SimulatedNetwork, incarnation: Incarnation, address: str, node: NodeId, rng: random.Random
    ) -> None:
        """Attach ``incarnation`` to ``network`` under ``address``."""
        self.incarnation = incarnation
        self._network = network
        self._loop = network.loop
        self._address = address
        self._node = node
        self._peers: dict[NodeId, str] = {}
        self._handler: Handler | None = None
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self.receive_datagram: Callable[[bytes], None] | None = None
        self.when_greeted: Callable[[NodeId], None] | None = None
        self._number = rng.getrandbits(48)  # replies to an earlier life must not match
        network.attach(address, self)

    def serve(self, handler: Handler) -> None:
        """Answer requests with ``handler`` from now on."""
        self._handler = handler

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Know exactly these peers."""
        self._peers = dict(addresses)

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether the peer's machine is up: a dead one breaks its connections, a cut link does not."""
        return self._network.is_listening(self._peers.get(node, ""))

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Send a request to a peer; see `Transport.request`."""
        return self.introduce(self._peers.get(node, ""), request, timeout_s=timeout_s)

    def introduce(self, address: str, request: Request, *, timeout_s: float) -> asyncio.Future[Reply]:
        """Send a request to an address; see `Transport.introduce`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self._network.is_listening(address):
            return failed(future, PeerUnreachableError(f"nobody listens at {address}"))
        self._number += 1
        number = self._number
        self._waiting[number] = future
        timer = self._loop.call_later(max(0.0, timeout_s), self._give_up, number)
        future.add_done_callback(lambda _: timer.cancel())
        self._network.carry(self._address, address, "request", number, _ENCODE((self._node, request)))
        return future

    def send_datagram(self, node: NodeId, data: bytes) -> None:
        """Send ``data``; see `Transport.send_datagram`."""
        if node in self._peers:
            self._network.carry(self._address, self._peers[node], "datagram", 0, data)

    def receive(self, sender: str, kind: str, number: int, payload: bytes) -> None:
        """Take a message off the network."""
        if kind == "request":
            self._loop.spawn(self.incarnation, self._answer(sender, number, payload))
            return
        if kind == "datagram":
            if self.receive_datagram is not None:
                self._loop.call_in(self.incarnation, self.receive_datagram, payload)
            return
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            return
        reply = _REPLY.decode(payload)
        if isinstance(reply, Refused):
            failed(future, RefusedError(reply.code, reply.message, map_epoch=reply.map_epoch))
        else:
            future.set_result(reply)

    async def _answer(self, sender: str, number: int, payload: bytes) -> None:
        if self._handler is None:
            return
        node, raw = msgspec.msgpack.decode(payload, type=tuple[NodeId, msgspec.Raw])
        try:
            reply = await self._handler(node, _REQUEST.decode(raw))
        except RefusedError as error:
            reply = Refused(error.code, str(error), error.map_epoch)
        except MerganserError as error:
            reply = Refused(refusal_code(error), str(error))
        self._network.carry(self._address, sender, "reply", number, _ENCODE(reply))

    def _give_up(self, number: int) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            failed(future, PeerLostError("no reply in time"))
