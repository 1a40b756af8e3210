"""Tell who is alive: the shell of `core.membership`, which decides everything.

    datagrams, answered requests, connections --> step --> datagrams, requests with a packet, beliefs
                                                   ^
                                                one timer

What is believed is told to operators (admin port) and to `Asker`, which asks nodes that are not believed alive
after the others. It moves no data.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec

from merganser.core.membership import (
    Answered,
    Changed,
    Event,
    Heard,
    MembersAre,
    Membership,
    Send,
    SendReliably,
    Woken,
)
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RefusedError
from merganser.model.gossip import Packet, State
from merganser.model.ids import NodeId
from merganser.model.messages import Gossip, Gossiped, Reply
from merganser.net import packets
from merganser.net.transport import Transport
from merganser.service.topology import Topology


class MemberView(msgspec.Struct, frozen=True):
    """What this node believes of another."""

    state: str
    incarnation: int
    since_s: float
    """Seconds since it has been believed, or since this node began to look."""
    accusers: tuple[NodeId, ...]


class View(msgspec.Struct, frozen=True):
    """What this node believes, and how it does; packets are counted since its start."""

    incarnation: int
    local_health: int
    """0 is healthy; each step more makes its timeouts one time longer, up to 9 times (`core.local_health`)."""
    members: dict[NodeId, MemberView]
    datagrams_sent: int
    datagrams_heard: int
    datagrams_ignored: int
    """Damaged, of another release or cluster, or no packets at all."""
    sent_over_connections: int


class FailureDetector:
    """Who is alive, as this node sees it; see the module's docstring."""

    def __init__(self, topology: Topology, transport: Transport, *, rng: random.Random) -> None:
        """Observe the nodes of ``topology`` through ``transport``, from `start` on."""
        self.doubted: dict[NodeId, State] = {}
        """The nodes that are not believed alive."""
        self._topology = topology
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._membership = Membership(topology.node, draw=rng.randrange, now_s=self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._is_closed = False
        self._datagrams_sent = 0
        self._datagrams_heard = 0
        self._datagrams_ignored = 0
        self._sent_over_connections = 0

    def start(self) -> None:
        """Begin to probe, and to hear what others say."""
        self._transport.receive_datagram = self._hear
        self._transport.when_greeted = self.answered
        self._topology.when_changed(self._know_members)
        self._know_members(self._topology.map)

    def close(self) -> None:
        """Fall silent."""
        self._is_closed = True
        self._transport.receive_datagram = self._transport.when_greeted = None
        if self._timer is not None:
            self._timer.cancel()

    def answered(self, node: NodeId) -> None:
        """Take note that ``node`` answered a request or opened a connection."""
        if node in self.doubted:
            self._step(Answered(node))

    async def answer(self, sender: NodeId, request: Gossip) -> Reply:
        """Take in a packet that came over a connection; what is due to its sender goes back the same way."""
        if request.packet.sender != sender:
            self._datagrams_ignored += 1
            return Gossiped(None)
        return Gossiped(self._step(Heard(request.packet), answers=sender))

    def view(self) -> View:
        """Return what is believed just now."""
        members = [node.id for node in self._topology.map.nodes if node.id != self._topology.node]
        return View(
            incarnation=self._membership.incarnation,
            local_health=self._membership.health.score,
            members={node: self._view_of(node) for node in members},
            datagrams_sent=self._datagrams_sent,
            datagrams_heard=self._datagrams_heard,
            datagrams_ignored=self._datagrams_ignored,
            sent_over_connections=self._sent_over_connections,
        )

    def _view_of(self, node: NodeId) -> MemberView:
        belief = self._membership.belief(node)
        claim = belief.claim
        since_s = round(self._loop.time() - belief.since_s, 1)
        return MemberView(claim.state.name.lower(), claim.incarnation, since_s, claim.accusers)

    def _know_members(self, current: ClusterMap) -> None:
        members = tuple(node.id for node in current.nodes)
        for node in self.doubted.keys() - set(members):
            del self.doubted[node]
        self._step(MembersAre(members))

    def _hear(self, data: bytes) -> None:
        packet = packets.decode(self._topology.map.cluster_id, data)
        if packet is None:
            self._datagrams_ignored += 1
            return
        self._datagrams_heard += 1
        self._step(Heard(packet))

    def _wake(self) -> None:
        self._timer = None
        self._step(Woken())

    def _step(self, event: Event, *, answers: NodeId | None = None) -> Packet | None:
        """Take in ``event`` and do what follows; the first packet to ``answers`` is returned instead of sent."""
        if self._is_closed:
            return None
        now_s = self._loop.time()
        if type(event) is Woken:
            now_s = max(now_s, self._timer_at_s)  # a timer may go off a little early
        answer: Packet | None = None
        for effect in self._membership.step(event, now_s):
            if type(effect) is Send and effect.to == answers and answer is None:
                answer = effect.packet
            else:
                _PERFORM[type(effect)](self, effect)
        self._wake_when_due()
        return answer

    def _wake_when_due(self) -> None:
        due_s = self._membership.due_s
        if self._timer is not None:
            if due_s == self._timer_at_s:
                return
            self._timer.cancel()
        self._timer_at_s = due_s
        self._timer = self._loop.call_at(due_s, self._wake)

    def _send(self, effect: Send) -> None:
        self._datagrams_sent += 1
        self._transport.send_datagram(effect.to, packets.encode(self._topology.map.cluster_id, effect.packet))

    def _send_reliably(self, effect: SendReliably) -> None:
        self._sent_over_connections += 1
        asked = self._transport.request(effect.to, Gossip(effect.packet), timeout_s=effect.timeout_s)
        asked.add_done_callback(lambda reply: self._replied(effect.to, reply))

    def _replied(self, node: NodeId, reply: asyncio.Future[Reply]) -> None:
        error = None if reply.cancelled() else reply.exception()
        if isinstance(error, RefusedError):  # it is there, whatever it objects to
            self.answered(node)
        elif not reply.cancelled() and error is None:
            gossiped = reply.result()
            if isinstance(gossiped, Gossiped) and gossiped.packet is not None and gossiped.packet.sender == node:
                self._step(Heard(gossiped.packet))

    def _note(self, effect: Changed) -> None:
        if effect.state is State.ALIVE:
            self.doubted.pop(effect.node, None)
        else:
            self.doubted[effect.node] = effect.state


_PERFORM: dict[type, Callable[[FailureDetector, Any], None]] = {
    Send: FailureDetector._send,
    SendReliably: FailureDetector._send_reliably,
    Changed: FailureDetector._note,
}
