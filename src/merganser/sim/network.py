"""A network of messages on virtual time: delay, loss, duplication, reordering, partitions.

Each message draws its own delay, so messages overtake one another. Requests and replies travel
encoded, as on a real wire, so nothing is shared between machines by accident.

A connection is what one machine's requests to another and their replies go over. It breaks

- by `reset`: what is on its way is lost, who waits for a reply is told at once, and new requests fail at once until
  it is open again, some moments later;
- when its peer loses power, which is told like a reset (the process died, its kernel says so) or not at all (the
  machine is gone). In the latter case requests are lost in silence until the kernel finds out (`UNNOTICED_S_MAX`), or
  the peer is back and answers what it does not know with a reset.

A cut link is silent: to its ends the connection looks well.

Clients are on the network as machines are, and refused what only nodes may ask. What nodes ask one another may come
twice without harm, so that it does; what a client asks goes over one TCP connection in real life, and comes once at
most.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from merganser.model.client_messages import CLIENT_REQUESTS, NOT_FOR_CLIENTS
from merganser.model.errors import (
    MerganserError,
    PeerLostError,
    PeerTooOldError,
    PeerUnreachableError,
    RefusedError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request, withheld
from merganser.model.refusal import Refused
from merganser.model.versions import SPOKEN, Versions
from merganser.net.transport import Handler, Traffic, failed, refusal, refused
from merganser.sim.loop import Incarnation, SimulatedLoop

_ENCODE = msgspec.msgpack.Encoder().encode
_REQUEST = msgspec.msgpack.Decoder(Request)
_REPLY = msgspec.msgpack.Decoder(Reply)
_CALL: msgspec.msgpack.Decoder[tuple[NodeId, msgspec.Raw]] = msgspec.msgpack.Decoder(tuple[NodeId, msgspec.Raw])

UNNOTICED_S_MAX = 11.0  # what `net.sockets` asks of the kernel
_DATAGRAM = "datagram"  # goes over no connection
FAR_S = (0.01, 0.03)  # one way between two data centres of a continent
REOPENED_S = (0.005, 0.5)  # a few of the attempts that `net.link` makes after a connection was lost


class Conditions(msgspec.Struct):
    """How the network behaves just now."""

    delay_s: tuple[float, float] = (0.0002, 0.01)
    loss: float = 0.0
    duplication: float = 0.0


class _Message(msgspec.Struct, frozen=True):
    sender: str
    receiver: str
    kind: str
    number: int
    payload: bytes

    @property
    def connection(self) -> tuple[str, str]:
        """Who opened it, and to whom: a reply goes over that of its request."""
        return (self.sender, self.receiver) if self.kind == "request" else (self.receiver, self.sender)


class SimulatedNetwork:
    """Carries messages between machines, by address; see the module's docstring."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        """Begin with a healthy network and nobody on it."""
        self.loop = loop
        self.conditions = Conditions()
        self.data_centers: dict[str, str] = {}
        """Of machines, by address: what goes from one to another takes `FAR_S` longer."""
        self.unnoticed_share = 0.0
        """How many of those who were connected to a machine that loses power do not learn of it at once."""
        self.sent = 0
        self.lost = 0
        self._rng = rng
        self._machines: dict[str, SimulatedTransport] = {}
        self._unnoticed: set[tuple[str, str]] = set()
        self._breaks: Counter[tuple[str, str]] = Counter()  # what was sent before the last break does not arrive
        self._cuts: Counter[tuple[str, str]] = Counter()

    def attach(self, address: str, machine: SimulatedTransport) -> None:
        """Let ``machine`` receive what is sent to ``address``."""
        self._machines[address] = machine
        for caller, peer in sorted(self._unnoticed):
            if peer == address:
                self._later(self._notice, caller, peer)
            elif caller == address:  # a new life has no old connections
                self._unnoticed.discard((caller, peer))

    def detach(self, address: str) -> None:
        """Lose the machine at ``address``; each of the others learns of it at once, or not for a while."""
        for caller in sorted(self._machines):
            if caller == address:
                continue
            self._breaks[caller, address] += 1
            self._breaks[address, caller] += 1
            if not self.unnoticed_share or self._rng.random() >= self.unnoticed_share:
                self._later(self._break, caller, address)
            else:
                self._unnoticed.add((caller, address))
                unnoticed_s = self._rng.uniform(0.0, UNNOTICED_S_MAX)
                self.loop.call_later(unnoticed_s, self._notice, caller, address, context=contextvars.Context())

    def reset(self, one: str, other: str) -> None:
        """Break the connections between two machines, in both directions."""
        for caller, peer in (one, other), (other, one):
            self._break(caller, peer)

    def is_open(self, caller: str, peer: str) -> bool:
        """Tell whether ``caller`` would send a request to ``peer`` now, as far as it knows."""
        if (caller, peer) in self._unnoticed:
            return True
        machine = self._machines.get(caller)
        return self.is_listening(peer) and (machine is None or machine.may_call(peer))

    def is_listening(self, address: str) -> bool:
        """Tell whether a living machine listens there."""
        machine = self._machines.get(address)
        return machine is not None and not machine.incarnation.is_dead

    def versions_at(self, address: str) -> Versions | None:
        """Return what the machine there speaks, None if there is none."""
        machine = self._machines.get(address)
        return None if machine is None else machine.versions

    def is_client(self, address: str) -> bool:
        """Tell whether a client is there."""
        machine = self._machines.get(address)
        return machine is not None and machine.is_client

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
        message = _Message(sender, receiver, kind, number, payload)
        breaks = self._breaks[message.connection]
        is_doubled = self._rng.random() < self.conditions.duplication
        copies = 1 + (is_doubled and not (self.is_client(sender) or self.is_client(receiver)))
        for _ in range(copies):
            if self._rng.random() < self.conditions.loss:
                self.lost += 1
                continue
            delay_s = self._rng.uniform(*self.conditions.delay_s) + self._distance_s(message)
            self.loop.call_later(delay_s, self._arrive, message, breaks, context=contextvars.Context())

    def _distance_s(self, message: _Message) -> float:
        one, other = self.data_centers.get(message.sender), self.data_centers.get(message.receiver)
        return 0.0 if one == other else self._rng.uniform(*FAR_S)

    def _later(self, what: Callable[[str, str], None], caller: str, peer: str) -> None:
        delay_s = self._rng.uniform(*self.conditions.delay_s)
        self.loop.call_later(delay_s, what, caller, peer, context=contextvars.Context())

    def _notice(self, caller: str, peer: str) -> None:
        if (caller, peer) in self._unnoticed:
            self._unnoticed.discard((caller, peer))
            self._break(caller, peer)

    def _break(self, caller: str, peer: str) -> None:
        self._breaks[caller, peer] += 1
        machine = self._machines.get(caller)
        if machine is not None and not machine.incarnation.is_dead:
            self.loop.note("reset", caller, peer)
            machine.lose_connection(peer, reopened_s=self.loop.time() + self._rng.uniform(*REOPENED_S))

    def _arrive(self, message: _Message, breaks: int) -> None:
        machine = self._machines.get(message.receiver)
        is_broken = message.kind != _DATAGRAM and (
            self._breaks[message.connection] != breaks or message.connection in self._unnoticed
        )
        is_cut = self.is_cut(message.sender, message.receiver)
        if machine is None or machine.incarnation.is_dead or is_broken or is_cut:
            self.lost += 1
            return
        self.loop.note(message.kind, message.sender, message.receiver, message.number, message.payload)
        if machine.incarnation.is_paused:  # it waits in the socket
            self.loop.call_in(machine.incarnation, machine.receive, message)
        else:
            machine.receive(message)


class SimulatedTransport:
    """One machine's end of the network; a `Transport`."""

    def __init__(
        self,
        network: SimulatedNetwork,
        incarnation: Incarnation,
        address: str,
        node: NodeId,
        rng: random.Random,
        *,
        versions: Versions = SPOKEN,
        is_client: bool = False,
    ) -> None:
        """Attach ``incarnation``, which speaks ``versions``, to ``network`` under ``address``."""
        self.is_client = is_client
        self.versions = versions
        self.incarnation = incarnation
        self._network = network
        self._loop = network.loop
        self._address = address
        self._node = node
        self._peers: dict[NodeId, str] = {}
        self._handler: Handler | None = None
        self._waiting: dict[int, tuple[asyncio.Future[Reply], str]] = {}
        self._reopened_s: dict[str, float] = {}
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

    def require(self, version: int) -> None:
        """Speak nothing older than ``version``."""
        self.versions = Versions(max(self.versions.oldest, version), self.versions.newest)

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether the connection to the peer is up, as far as this machine knows; a cut link does not break it."""
        return self._network.is_open(self._address, self._peers.get(node, ""))

    def may_call(self, address: str) -> bool:
        """Tell whether the connection to ``address`` is not known to be broken."""
        return self._reopened_s.get(address, 0.0) <= self._loop.time()

    def lose_connection(self, address: str, *, reopened_s: float) -> None:
        """Fail what waits for ``address``, and call it no more until ``reopened_s``, loop time."""
        self._reopened_s[address] = reopened_s
        for number in [number for number, (_, peer) in self._waiting.items() if peer == address]:
            self._give_up(number, "the connection was reset")

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Send a request to a peer; see `Transport.request`."""
        return self.introduce(self._peers.get(node, ""), request, timeout_s=timeout_s)

    def introduce(self, address: str, request: Request, *, timeout_s: float) -> asyncio.Future[Reply]:
        """Send a request to an address; see `Transport.introduce`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self._network.is_open(self._address, address):
            return failed(future, PeerUnreachableError(f"nobody listens at {address}"))
        objection = self._objection(address, request)
        if objection is not None:
            return failed(future, objection)
        self._number += 1
        number = self._number
        self._waiting[number] = future, address
        timer = self._loop.call_later(max(0.0, timeout_s), self._give_up, number, "no reply in time")
        future.add_done_callback(lambda _: timer.cancel())
        self._network.carry(self._address, address, "request", number, _ENCODE((self._node, request)))
        return future

    def _objection(self, address: str, request: Request) -> PeerUnreachableError | None:
        """Return why the peer cannot be asked that, as `net.handshake` and `net.link` find out; None if it can be."""
        theirs = self._network.versions_at(address)
        if theirs is None or theirs == self.versions:
            return None
        version = self.versions.common(theirs)
        if version is None:
            return PeerUnreachableError(f"{address} speaks {theirs} and {self._address} speaks {self.versions}")
        return PeerTooOldError(f"{address} has no such request") if type(request) in withheld(version) else None

    def send_datagram(self, node: NodeId, data: bytes) -> None:
        """Send ``data``; see `Transport.send_datagram`."""
        if node in self._peers:
            self._network.carry(self._address, self._peers[node], _DATAGRAM, 0, data)

    def receive(self, message: _Message) -> None:
        """Take a message off the network."""
        if message.kind == "request":
            self._loop.spawn(self.incarnation, self._answer(message.sender, message.number, message.payload))
            return
        if message.kind == _DATAGRAM:
            if self.receive_datagram is not None:
                self._loop.call_in(self.incarnation, self.receive_datagram, message.payload)
            return
        future, _ = self._waiting.pop(message.number, (None, ""))
        if future is None or future.done():
            return
        reply = _REPLY.decode(message.payload)
        if isinstance(reply, Refused):
            failed(future, refusal(reply))
        else:
            future.set_result(reply)

    async def _answer(self, sender: str, number: int, payload: bytes) -> None:
        if self._handler is None:
            return
        node, raw = _CALL.decode(payload)
        request = _REQUEST.decode(raw)
        reply: Reply
        try:
            if type(request) not in CLIENT_REQUESTS and self._network.is_client(sender):
                raise RefusedError(NOT_FOR_CLIENTS, f"a client may not ask a node for {type(request).__name__}")
            reply = await self._handler(node, request)
        except MerganserError as error:
            reply = refused(error)
        self._network.carry(self._address, sender, "reply", number, _ENCODE(reply))

    def _give_up(self, number: int, why: str) -> None:
        future, _ = self._waiting.pop(number, (None, ""))
        if future is not None and not future.done():
            failed(future, PeerLostError(why))
