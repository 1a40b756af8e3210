"""Members on virtual time, as few lines as it takes: a heap of packets under way and of members to be woken."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

import msgspec

from merganser.core import membership
from merganser.core.membership import (
    Answered,
    Changed,
    Effect,
    Event,
    Heard,
    MembersAre,
    Membership,
    Send,
    SendReliably,
    Woken,
)
from merganser.model.gossip import PACKET_BYTES_MAX, Claim, Packet, State
from merganser.model.ids import ClusterId, NodeId
from merganser.net.packets import decode, encode

CLUSTER = ClusterId("0" * 16)
PERIOD_S = membership.PERIOD_S
DELAY_S = (0.0, 0.3)  # packets overtake one another; a round trip may outlast the probe's timeout of 0.5 s


def names_of(count: int) -> tuple[NodeId, ...]:
    """Return so many node ids, as long as real ones."""
    return tuple(NodeId(f"{number:016x}") for number in range(count))


class Weather(msgspec.Struct):
    """What happens to packets."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.01)
    has_connections: bool = True


class Cluster:
    """Members that talk, may crash, be paused and be cut off; every step of theirs is checked."""

    def __init__(self, seed: int, count: int) -> None:
        """Start ``count`` members."""
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.weather = Weather()
        self.names = names_of(count)
        self.members: dict[NodeId, Membership] = {}
        self.paused: set[NodeId] = set()
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.changes: list[tuple[float, NodeId, Changed]] = []
        self.pinged: list[tuple[float, NodeId, NodeId]] = []
        """When which member began to probe which."""
        self._highest = dict.fromkeys(self.names, 0)
        """Of each member the highest incarnation that it ever had."""
        self._woken_at_s: dict[NodeId, float] = {}
        self._held: dict[NodeId, list[tuple[Event, float | None]]] = {}
        self._due: list[tuple[float, int, NodeId, Membership, Event, float | None]] = []
        self._pushed = 0
        for name in self.names:
            self.start(name)

    # Faults.

    def start(self, name: NodeId) -> None:
        """Begin a new life of a member."""
        self.members[name] = Membership(name, draw=self.rng.randrange, now_s=self.now_s)
        self.paused.discard(name)
        self._held.pop(name, None)
        self._woken_at_s.pop(name, None)
        self.step(name, MembersAre(self.names))

    def crash(self, name: NodeId) -> None:
        """End the life of a member."""
        del self.members[name]
        self.resume(name)

    def pause(self, name: NodeId) -> None:
        """Stop a member; what is sent to it waits."""
        self.paused.add(name)

    def resume(self, name: NodeId) -> None:
        """Let it go on."""
        self.paused.discard(name)
        for event, answer_by_s in self._held.pop(name, []):
            if name in self.members:
                self.step(name, event, answer_by_s)

    def cut_off(self, name: NodeId) -> None:
        """Lose what goes to and from a member."""
        self.cuts |= {pair for other in self.names for pair in ((name, other), (other, name))}

    # Time.

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end_s = self.now_s + seconds
        while self._due and self._due[0][0] <= end_s:
            at_s, _, name, life, event, answer_by_s = heapq.heappop(self._due)
            self.now_s = at_s
            is_stale = self.members.get(name) is not life or self._woken_at_s[name] != at_s
            if name not in self.members or (type(event) is Woken and is_stale):
                continue
            if name in self.paused:
                self._held.setdefault(name, []).append((event, answer_by_s))
            else:
                self.step(name, event, answer_by_s)
        self.now_s = end_s

    def step(self, name: NodeId, event: Event, answer_by_s: float | None = None) -> None:
        """Have a member take in ``event``, check what comes of it and carry it on."""
        member = self.members[name]
        before = {other: member.belief(other).claim for other in self.names if other != name}
        incarnation = member.incarnation
        effects = member.step(event, self.now_s)
        self._check(member, event, before, incarnation, effects)
        self._perform(name, event, effects, answer_by_s)
        if self._woken_at_s.get(name) != member.due_s:
            self._woken_at_s[name] = member.due_s
            self._push(max(member.due_s, self.now_s), name, Woken(), None)

    def _check(
        self, member: Membership, event: Event, before: dict[NodeId, Claim], incarnation: int, effects: list[Effect]
    ) -> None:
        assert member.incarnation >= incarnation, "no member takes back an incarnation"
        self._highest[member.me] = max(self._highest[member.me], member.incarnation)
        told = {effect.node: effect.state for effect in effects if type(effect) is Changed}
        for other, claim in before.items():
            belief = member.belief(other).claim
            assert belief.incarnation <= self._highest[other], "only a member itself raises its incarnation"
            if type(event) is not Answered:
                assert (belief.incarnation, belief.state) >= (claim.incarnation, claim.state), "beliefs only grow"
            assert told.get(other, claim.state) is belief.state, "each change is told"
        assert member.me not in told

    def _perform(self, name: NodeId, event: Event, effects: Iterable[Effect], answer_by_s: float | None) -> None:
        asker = event.packet.sender if type(event) is Heard else None
        for effect in effects:
            if type(effect) is Changed:
                self.changes.append((self.now_s, name, effect))
            elif type(effect) is SendReliably:
                self._carry(name, effect.to, effect.packet, self.now_s + effect.timeout_s, is_request=True)
            elif type(effect) is Send and answer_by_s is not None and effect.to == asker:
                self._carry(name, effect.to, effect.packet, answer_by_s, is_request=False)
                answer_by_s = None
            elif type(effect) is Send:
                self._carry(name, effect.to, effect.packet, None, is_request=False)

    def _carry(self, name: NodeId, to: NodeId, packet: Packet, by_s: float | None, *, is_request: bool) -> None:
        sent = encode(CLUSTER, packet)
        assert len(sent) <= PACKET_BYTES_MAX
        assert decode(CLUSTER, sent) == packet
        self.pinged.append((self.now_s, name, to))
        weather = self.weather
        is_datagram = by_s is None
        copies = 1 + (is_datagram and self.rng.random() < weather.duplication)
        for _ in range(copies):
            arrives_s = self.now_s + self.rng.uniform(*weather.delay_s)
            is_lost = is_datagram and self.rng.random() < weather.loss
            is_late = by_s is not None and (arrives_s > by_s or not weather.has_connections)
            if not (is_lost or is_late or (name, to) in self.cuts):
                self._push(arrives_s, to, Heard(packet), by_s if is_request else None)

    def _push(self, at_s: float, name: NodeId, event: Event, answer_by_s: float | None) -> None:
        self._pushed += 1
        life = self.members.get(name)
        if life is not None:
            heapq.heappush(self._due, (at_s, self._pushed, name, life, event, answer_by_s))

    # Looking.

    def state(self, observer: NodeId, of: NodeId) -> State:
        """Return what ``observer`` believes."""
        return self.members[observer].belief(of).state

    def states(self) -> set[State]:
        """Return all that anyone alive believes of anyone."""
        return {self.state(one, other) for one in self.members for other in self.names if one != other}

    def run_until(self, is_so: Callable[[], bool], *, seconds: float, what: str) -> float:
        """Let time pass until ``is_so``, and return how much; fails with ``what`` after ``seconds``."""
        began_s = self.now_s
        while not is_so():
            assert self.now_s - began_s < seconds, f"not {what} within {seconds:g} s"
            self.run(0.1)
        return self.now_s - began_s
