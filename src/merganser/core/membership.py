"""Who is alive: SWIM with Lifeguard, as one member runs it.

The members come from the cluster map; here is only observed which of them are ALIVE, SUSPECT or DEAD, and
nothing is ever done about it but telling. Each period one member is probed (`core.probe`); who stays
silent is accused, and refutes or is believed dead (`core.suspicion`); what is news rides on the packets of the
probes (`core.dissemination`); a member that doubts itself takes more time (`core.local_health`)::

    Woken ------> [ probe | relayed pings | suspicions ] --> Send, SendReliably
    Heard ------> [ beliefs <-- claims                 ] --> Changed
    Answered ---> [                                    ]
    MembersAre -> [                                    ]

Each round every member is pinged once, in an order drawn anew; one believed DEAD too, without consequences,
so that one that is back, or was never gone, is found. Whoever is pinged while not believed ALIVE is told so in
the same packet, and its answer refutes it. A member suspected by a failed probe is pinged again twice a period.

A member that was restarted begins at incarnation 0. It learns from the first answer what is said of it.

Invariants:
- a belief changes only to a greater claim (`suspicion.merge`), but for `Answered`, which is proof by itself;
- only a member itself raises its incarnation;
- a member is probed at least once in 2n - 1 periods (n members but this one), whatever is drawn;
- packets have at most `PACKET_BYTES_MAX` bytes, whatever others have claimed.

Source: DeCandia 2007 §4.8; Das, Gupta, Motivala 2002, "SWIM"; Dadgar, Phillips, Currey 2018, "Lifeguard".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from merganser.core import suspicion
from merganser.core.dissemination import Dissemination, sends_max
from merganser.core.local_health import LocalHealth
from merganser.core.probe import Probe
from merganser.model.gossip import (
    INCARNATION_MAX,
    PACKET_BYTES_MAX,
    Ack,
    Body,
    Claim,
    Nack,
    Packet,
    Ping,
    PingRequest,
    State,
)
from merganser.model.ids import NodeId

PERIOD_S = 1.0
PROBE_TIMEOUT_S = 0.5
"""Of the period, what is left after the timeout is for the others; each half is far above a round trip."""

RELAYS = 3
"""k of SWIM: with 3 of 10 packets lost, each relay's way of four packets works in 1 of 4 cases."""

NACK_AFTER_S = 0.8 * PROBE_TIMEOUT_S
"""A relay must say that it is there before its asker's half period is over (Lifeguard §IV-A)."""

RELAYED_MAX = 1024
"""Pings under way for others; beyond that requests are ignored, as if lost."""

OVERSLEPT_S = 0.5 * PERIOD_S
"""Woken that much too late, this node was stopped or starved: the silence it saw was its own."""

AGAIN_MAX = 8
"""Pings out of turn in one tick, to suspects or to the dead: bounds the load when many fail at once."""

PROOF_HOLDS_S = 3.0
"""Accusations heard so soon after proof of the contrary are older than it: gossip takes a few periods."""

HEADER_BYTES = 100
"""Room for everything but the claims: two ids, the numbers and the envelope."""

CLAIM_BYTES_MAX = 100
"""Of one claim, with all its accusers."""

NUMBERS = 2**32


class Heard(msgspec.Struct, frozen=True):
    """A packet came in."""

    packet: Packet


class Woken(msgspec.Struct, frozen=True):
    """It is `Membership.due_s`, or later."""


class Answered(msgspec.Struct, frozen=True):
    """``node`` answered a request or opened a connection: whatever is said of it, it is alive."""

    node: NodeId


class MembersAre(msgspec.Struct, frozen=True):
    """The cluster map names these members, this one left out or not."""

    nodes: tuple[NodeId, ...]


Event = Heard | Woken | Answered | MembersAre


class Send(msgspec.Struct, frozen=True):
    """Send ``packet`` as a datagram: it may get lost."""

    to: NodeId
    packet: Packet


class SendReliably(msgspec.Struct, frozen=True):
    """Send ``packet`` over a connection, and give up after ``timeout_s``; what comes back is `Heard`."""

    to: NodeId
    packet: Packet
    timeout_s: float


class Changed(msgspec.Struct, frozen=True):
    """``node`` is believed to be in ``state`` from now on."""

    node: NodeId
    state: State


Effect = Send | SendReliably | Changed


class Belief(msgspec.Struct, gc=False):
    """What is believed of a member, and since when."""

    claim: Claim
    since_s: float
    is_own_accusation: bool = False
    proven_until_s: float = -1.0

    @property
    def state(self) -> State:
        """The state believed."""
        return self.claim.state


class _Relayed(msgspec.Struct, frozen=True):
    asker: NodeId
    number: int
    target: NodeId
    nack_at_s: float


class Membership:
    """One member's view of all others; see the module's docstring."""

    def __init__(self, me: NodeId, *, draw: Callable[[int], int], now_s: float) -> None:
        """Begin to observe as ``me``, without other members yet.

        Args:
            me: this member.
            draw: returns a random integer from 0 below its argument.
            now_s: any clock that never goes back.
        """
        self.me = me
        self.incarnation = 0
        self.health = LocalHealth()
        self._draw = draw
        self._began_s = now_s
        self._order: list[NodeId] = []
        """All members but this one; those before `_next` were probed in this round."""
        self._next = 0
        self._members: frozenset[NodeId] = frozenset()
        self._beliefs: dict[NodeId, Belief] = {}
        """Of those who were ever claimed to be anything but ALIVE in incarnation 0."""
        self._doubted: dict[NodeId, Belief] = {}
        """Those of them who are not believed ALIVE."""
        self._news = Dissemination()
        self._probe: Probe | None = None
        self._relayed: dict[int, _Relayed] = {}
        """By the number of our ping, in the order of their time."""
        self._number = draw(NUMBERS)  # an ack to an earlier life must not match
        self._begin_at_s = now_s + PERIOD_S * draw(1000) / 1000  # members do not probe in step
        self._effects: list[Effect] = []

    @property
    def due_s(self) -> float:
        """When to be `Woken` next."""
        due_s = self._begin_at_s if self._probe is None else self._probe.due_s
        for relayed in self._relayed.values():
            return min(due_s, relayed.nack_at_s)
        return due_s

    def belief(self, node: NodeId) -> Belief:
        """Return what is believed of a member, or of a node that is none."""
        return self._beliefs.get(node) or Belief(Claim(node, State.ALIVE, 0), self._began_s)

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """Take in ``event`` and return what to do now, in order."""
        _STEPS[type(event)](self, event, now_s)
        effects, self._effects = self._effects, []
        return effects

    # Members.

    def _set_members(self, event: MembersAre, now_s: float) -> None:
        members = frozenset(event.nodes) - {self.me}
        gone = [node for node in self._order if node not in members]
        new = [node for node in event.nodes if node in members and node not in self._members]
        for node in gone:
            self._forget(node)
        self._next -= sum(node not in members for node in self._order[: self._next])
        self._order = [node for node in self._order if node in members] + new
        self._members = members

    def _forget(self, node: NodeId) -> None:
        self._beliefs.pop(node, None)
        self._doubted.pop(node, None)
        self._news.discard(node)
        if self._probe is not None and self._probe.target == node:
            self._probe.is_answered = True  # nobody is to be accused

    # Time.

    def _wake(self, _event: Woken, now_s: float) -> None:
        late_s = now_s - self.due_s
        if late_s < 0:
            return
        if late_s > OVERSLEPT_S:
            self._make_up_for(late_s)
        self._nack_overdue(now_s)
        probe = self._probe
        if probe is not None and now_s < probe.due_s:
            return
        self._judge_suspicions(now_s)
        if probe is not None and not probe.is_answered:
            if not probe.is_indirect:
                self._probe_through_others(probe, now_s)
                return
            self._accuse_silent(probe, now_s)
        if probe is not None or now_s >= self._begin_at_s:
            self._begin_probe(now_s)

    def _make_up_for(self, late_s: float) -> None:
        """Judge nobody by the time that this node slept through."""
        self.health.worsen()
        self._relayed.clear()
        if self._probe is not None:
            self._probe.is_answered = True
        for belief in self._doubted.values():
            if belief.state is State.SUSPECT:
                belief.since_s += late_s

    # Probing.

    def _begin_probe(self, now_s: float) -> None:
        period_s = PERIOD_S * self.health.multiplier
        self._begin_at_s = now_s + period_s
        self._probe = None
        self._ping_suspects_again()
        target = self._next_target()
        if target is None:
            return
        number = self._ping(target)
        self._probe = Probe(
            target, number, timeout_at_s=now_s + PROBE_TIMEOUT_S * self.health.multiplier, ends_s=self._begin_at_s
        )

    def _next_target(self) -> NodeId | None:
        """Return whom to probe; those in turn before it who are believed dead get a ping and no more."""
        for _ in range(min(AGAIN_MAX, len(self._order))):
            node = self._draw_next()
            belief = self._doubted.get(node)
            if belief is None or belief.state is not State.DEAD:
                return node
            self._ping(node)
        return None

    def _draw_next(self) -> NodeId:
        """Return the next of this round: one step of a Fisher-Yates shuffle."""
        order = self._order
        if self._next >= len(order):
            self._next = 0
        chosen = self._next + self._draw(len(order) - self._next)
        order[self._next], order[chosen] = order[chosen], order[self._next]
        self._next += 1
        return order[self._next - 1]

    def _probe_through_others(self, probe: Probe, now_s: float) -> None:
        probe.ask_others(self._draw_relays(probe.target))
        for relay in probe.relays:
            self._send(relay, PingRequest(probe.number, probe.target))
        ping = self._packet(probe.target, Ping(probe.number))
        self._effects.append(SendReliably(probe.target, ping, probe.ends_s - now_s))
        self._ping_suspects_again()

    def _draw_relays(self, target: NodeId) -> list[NodeId]:
        """Return up to `RELAYS` members believed alive."""
        relays: list[NodeId] = []
        alive = len(self._order) - len(self._doubted) - (target not in self._doubted)
        for _ in range(10 * RELAYS if alive else 0):  # of few members some are drawn often
            node = self._order[self._draw(len(self._order))]
            if node != target and node not in self._doubted and node not in relays:
                relays.append(node)
                if len(relays) == min(RELAYS, alive):
                    break
        return relays

    def _accuse_silent(self, probe: Probe, now_s: float) -> None:
        if probe.is_own_fault_likely:
            self.health.worsen()
        belief = self.belief(probe.target)
        if belief.state is State.DEAD or belief.proven_until_s > now_s:
            return
        accused = suspicion.accuse(belief.claim, self.me)
        if accused is not belief.claim:
            self._adopt(accused, now_s)
        self._doubted[probe.target].is_own_accusation = True
        self._ping(probe.target)  # tells it at once

    def _ping_suspects_again(self) -> None:
        """One lost packet must not condemn: those who accuse keep asking."""
        again = [node for node, belief in self._doubted.items() if belief.is_own_accusation]
        for node in again[:AGAIN_MAX]:
            self._ping(node)

    def _ping(self, node: NodeId) -> int:
        self._number = (self._number + 1) % NUMBERS
        self._send(node, Ping(self._number))
        return self._number

    # Suspicions.

    def _judge_suspicions(self, now_s: float) -> None:
        alive = len(self._order) - len(self._doubted)
        for belief in list(self._doubted.values()):
            if belief.state is State.SUSPECT:
                patience_s = suspicion.timeout_s(
                    confirmations=max(0, len(belief.claim.accusers) - 1),  # gossip may name nobody known here
                    confirmers=alive,
                    cluster_size=len(self._order) + 1,
                    period_s=PERIOD_S,
                )
                if now_s - belief.since_s >= patience_s:
                    claim = belief.claim
                    self._adopt(Claim(claim.node, State.DEAD, claim.incarnation), now_s)

    # Packets.

    def _hear(self, event: Heard, now_s: float) -> None:
        packet = event.packet
        sender = packet.sender
        if sender not in self._members:
            return
        incarnation = self.incarnation
        self._consider(Claim(sender, State.ALIVE, packet.incarnation), now_s)
        for claim in packet.claims:
            self._consider(claim, now_s)
        _BODIES[type(packet.body)](self, sender, packet.body, now_s)
        if self.incarnation != incarnation and type(packet.body) is not Ping:
            self._ping(sender)  # no answer is due that would tell it better

    def _hear_ping(self, sender: NodeId, ping: Ping, _now_s: float) -> None:
        self._send(sender, Ack(ping.number))

    def _hear_ping_request(self, sender: NodeId, request: PingRequest, now_s: float) -> None:
        if request.target not in self._members or len(self._relayed) >= RELAYED_MAX:
            return
        number = self._ping(request.target)
        self._relayed[number] = _Relayed(sender, request.number, request.target, now_s + NACK_AFTER_S)

    def _hear_ack(self, sender: NodeId, ack: Ack, _now_s: float) -> None:
        relayed = self._relayed.get(ack.number)
        if relayed is not None and relayed.target == sender:
            del self._relayed[ack.number]
            self._send(relayed.asker, Ack(relayed.number))
        elif self._probe is not None and self._probe.acked(sender, ack.number):
            self.health.improve()

    def _hear_nack(self, sender: NodeId, nack: Nack, _now_s: float) -> None:
        if self._probe is not None:
            self._probe.nacked(sender, nack.number)

    def _nack_overdue(self, now_s: float) -> None:
        for number, relayed in list(self._relayed.items()):
            if relayed.nack_at_s > now_s:
                return
            del self._relayed[number]
            self._send(relayed.asker, Nack(relayed.number))

    def _send(self, to: NodeId, body: Body) -> None:
        self._effects.append(Send(to, self._packet(to, body)))

    def _packet(self, to: NodeId, body: Body) -> Packet:
        """Return a packet with what is held against ``to`` first, and as much news as fits."""
        belief = self._doubted.get(to)
        if belief is None and not len(self._news):
            return Packet(self.me, self.incarnation, body)
        room_bytes = PACKET_BYTES_MAX - HEADER_BYTES
        claims: Sequence[Claim] = ()
        if belief is not None:
            claims = (belief.claim,)
            room_bytes -= CLAIM_BYTES_MAX
        news = self._news.take(room_bytes, sends_max=sends_max(len(self._order) + 1))
        return Packet(self.me, self.incarnation, body, (*claims, *news))

    # Claims.

    def _consider(self, claim: Claim, now_s: float) -> None:
        if claim.state is not State.ALIVE and claim.incarnation >= INCARNATION_MAX:
            return  # no number is left to refute it with
        if claim.node == self.me:
            self._answer_claim(claim)
            return
        if claim.node not in self._members:
            return
        if claim.accusers:
            claim = self._with_known_accusers(claim)
        belief = self._beliefs.get(claim.node)
        if belief is None:
            if claim.state is State.ALIVE and claim.incarnation == 0:
                return
            belief = self.belief(claim.node)
        merged = suspicion.merge(belief.claim, claim)
        is_overtaken = belief.proven_until_s > now_s and claim.incarnation <= belief.claim.incarnation
        if merged is not belief.claim and not is_overtaken:
            self._adopt(merged, now_s)

    def _with_known_accusers(self, claim: Claim) -> Claim:
        """Return ``claim`` as this member would have made it: it came from outside, and is passed on."""
        known: set[NodeId] = set()
        if claim.state is State.SUSPECT:
            known.update(accuser for accuser in claim.accusers if accuser in self._members or accuser == self.me)
        return msgspec.structs.replace(claim, accusers=tuple(sorted(known)[: suspicion.ACCUSERS_MAX]))

    def _answer_claim(self, claim: Claim) -> None:
        """Refute what others say of this member, or go on from where an earlier life was."""
        if claim.incarnation < self.incarnation:
            return
        if claim.state is State.ALIVE:
            self.incarnation = claim.incarnation
            return
        self.incarnation = claim.incarnation + 1
        self.health.worsen()
        self._news.add(Claim(self.me, State.ALIVE, self.incarnation))

    def _adopt(self, claim: Claim, now_s: float) -> None:
        """Believe ``claim`` and spread it."""
        before = self.belief(claim.node)
        is_same = (before.claim.state, before.claim.incarnation) == (claim.state, claim.incarnation)
        if is_same:
            before.claim = claim
            belief = before
        else:
            is_own = before.is_own_accusation and claim.state is State.SUSPECT
            belief = Belief(claim, now_s, is_own)
        self._believe(belief)
        self._news.add(claim)
        if before.state is not claim.state:
            self._effects.append(Changed(claim.node, claim.state))

    def _believe(self, belief: Belief) -> None:
        node = belief.claim.node
        self._beliefs[node] = belief
        if belief.state is State.ALIVE:
            self._doubted.pop(node, None)
        else:
            self._doubted[node] = belief

    def _prove(self, event: Answered, now_s: float) -> None:
        belief = self._doubted.get(event.node)
        if belief is None:
            return
        self._number = (self._number + 1) % NUMBERS
        told = self._packet(event.node, Ping(self._number))  # so that it refutes, for everyone
        self._effects.append(SendReliably(event.node, told, PERIOD_S))
        self._news.discard(event.node)
        claim = Claim(event.node, State.ALIVE, belief.claim.incarnation)
        self._believe(Belief(claim, now_s, proven_until_s=now_s + PROOF_HOLDS_S))
        self._effects.append(Changed(event.node, State.ALIVE))


_STEPS: dict[type, Callable[[Membership, Any, float], None]] = {
    Heard: Membership._hear,
    Woken: Membership._wake,
    Answered: Membership._prove,
    MembersAre: Membership._set_members,
}

_BODIES: dict[type, Callable[[Membership, NodeId, Any, float], None]] = {
    Ping: Membership._hear_ping,
    PingRequest: Membership._hear_ping_request,
    Ack: Membership._hear_ack,
    Nack: Membership._hear_nack,
}
