"""Lead groups, and know who does: the shell of `core.leadership`, which decides when to bid and when to let go.

    every pulse, and when something is news: who is due? --poll--> campaign --majority--> Led
    promise of a later epoch, refusal, silence of most, handover ------------> Led.deposed

All groups that are due and have the same replicas are bid for together: one message to each of them, one fsync at each.
There is nothing to do, and nothing is done, while no table has leaders.

Invariants:

- a `Led` stands only while the promises of this node name its epoch, or none later: it is deposed in the turn of the
  loop in which it promises another one;
- this node has promised itself an epoch, durably, before it asks anyone for it.

Source: design §5; docs/internals/leadership.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from merganser.core.leadership import PULSE_S, Elections, Joint, succession
from merganser.core.policy_changes import Forks
from merganser.model.cluster import ClusterMap
from merganser.model.errors import MerganserError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Campaign, Confirm, Pulse, TakeOver
from merganser.model.leadership import Epoch, Group, LeadershipView
from merganser.model.messages import Done, Reply
from merganser.service.asking import Asker
from merganser.service.campaigning import Campaigning, Roots
from merganser.service.confirming import Confirmations
from merganser.service.hash_trees import HashTrees
from merganser.service.promises import Promises
from merganser.service.pulses import Pulses
from merganser.service.tasks import Tasks
from merganser.service.terms import Led as Led
from merganser.service.topology import Topology
from merganser.service.voting import Voting
from merganser.storage.engine import Batch, Engine

HANDOVER_S = 0.5  # changes are held while those in flight end; clients wait for it
HANDOVERS_AT_ONCE = 32  # groups; all of them at once would make a storm of first touches at the heir
TAKE_OVER_TIMEOUT_S = 0.5
CLOSE_S = 1.0  # for what is in flight when a node stops
LINGER_S = 0.25
"""After that, changes that were on their way here are told who leads; lost with a connection, nobody would know what
became of them."""


async def _is_quiet(_led: Led, _deadline: float) -> bool:
    return True


class Leadership:
    """What this node leads, and what it knows of other leaders; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        promises: Promises,
        engine: Engine,
        trees: HashTrees,
        *,
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        on_error: Callable[[BaseException], None],
        pulse_s: float = PULSE_S,
    ) -> None:
        """Take part in the elections of the groups of ``topology``, from `run` on.

        Args:
            topology: knows the tables and what this node holds.
            asker: reaches the other replicas.
            promises: of this node.
            engine: tells how the disk is.
            trees: whose roots go with a promise.
            rng: draws how long to back off.
            catch_up: fetches a newer map from a peer.
            on_error: told of bugs.
            pulse_s: between two pulses.
        """
        self._topology = topology
        self._asker = asker
        self._promises = promises
        self._engine = engine
        self._pulse_s = pulse_s
        self._loop = asyncio.get_running_loop()
        self._elections = Elections(topology.me.number, now_s=self._loop.time(), draw=rng.random, pulse_s=pulse_s)
        self._confirmations = Confirmations(topology, asker, known=self.known, learned=self.learned)
        self._voting = Voting(
            topology, promises, self._elections, trees, catch_up=catch_up, may_vote=lambda group: self.may_vote(group)
        )
        self._pulses = Pulses(topology, asker, self._elections, self._voting, learned=self.learned, pulse_s=pulse_s)
        self._campaigning = Campaigning(
            topology,
            asker,
            promises,
            self._elections,
            self._voting,
            elected=self._elect,
            learned=self.learned,
        )
        self._led: dict[Group, Led] = {}
        self._terms_begun = 0
        self._basis: tuple[object, ...] | None = None
        """What the groups of the last map rest on."""
        self._handing_over: dict[Group, None] = {}
        self._when_elected: list[Callable[[Led], None]] = []
        self._when_deposed: list[Callable[[Led], None]] = []
        self._when_regrouped: list[Callable[[Led], None]] = []
        self._tasks = Tasks(on_error)
        self.is_draining = False
        """Leave what is led here to others, and lead only what nobody else can; set by an operator."""
        self._is_running = self._is_closing = False
        self.may_vote: Callable[[Group], bool] = lambda _group: True
        """Whether this node remembers what it has promised and stored: else it promises and leads nothing."""
        self.quiesce: Callable[[Led, float], Awaitable[bool]] = _is_quiet
        """Stops taking changes; true once nothing is in flight, false if something is at the deadline (loop time).
        Then changes are taken again; after true they are until it is deposed, in the same turn of the loop."""
        promises.when_promised(self._promised)
        topology.when_split(self._split)
        topology.when_forked(self._fork)
        topology.when_changed(self._take)

    # What is led, and by whom

    def led(self, group: Group) -> Led | None:
        """Return this node's term as the leader of ``group``, None if it does not lead it."""
        return self._led.get(group)

    def leading(self) -> list[Led]:
        """Return all that this node leads."""
        return list(self._led.values())

    def known(self, group: Group) -> Epoch:
        """Return the latest epoch this node knows of, of any group: its leader is the one to ask. It may not lead yet,
        or no more."""
        return self._elections.known(group)

    def is_silent(self, number: int) -> bool:
        """Tell whether a node has sent no pulse for a second, and should have: what it is asked gets no answer."""
        return self._is_running and self._elections.is_silent(number, self._loop.time())

    def learned(self, group: Group, epoch: Epoch) -> None:
        """Take note of an epoch that a refusal named."""
        if self._elections.learned(group, epoch):
            self._depose(group)

    def confirm(self, led: Led, *, deadline: float) -> Coroutine[Any, Any, None]:
        """Return once a majority has said, after this call, that it has promised nothing later.

        Raises:
            RefusedError: it has, and ``led`` is deposed (code `NOT_LEADING`).
            UnavailableError: it did not answer by ``deadline``, loop time.
        """
        return self._confirmations.confirm(led, deadline=deadline)

    def begin_to_confirm(self, led: Led, *, deadline: float) -> asyncio.Future[bool]:
        """Begin as `confirm`; `check_confirmed` tells what the future has come to when it is done.

        Raises:
            RefusedError: ``led`` is deposed already.
        """
        return self._confirmations.begin(led, deadline=deadline)

    def check_confirmed(self, led: Led, confirmed: asyncio.Future[bool]) -> None:
        """Return if a majority has said so; raises as `confirm`."""
        self._confirmations.check(led, confirmed)

    def vouches(self, group: Group, epoch: Epoch) -> bool:
        """Tell whether this node, asked to `Confirm`, would say that ``epoch`` stands, and have nothing to write."""
        return self._promises.stands(group, epoch) and self.may_vote(group)

    def when_elected(self, listener: Callable[[Led], None]) -> None:
        """Call ``listener`` with each term in the turn of the loop in which it begins."""
        self._when_elected.append(listener)

    def when_deposed(self, listener: Callable[[Led], None]) -> None:
        """Call ``listener`` with each term in the turn of the loop in which it ends."""
        self._when_deposed.append(listener)

    def when_regrouped(self, listener: Callable[[Led], None]) -> None:
        """Call ``listener`` with each term whose replicas are others than before, in the turn in which they are."""
        self._when_regrouped.append(listener)

    def view(self) -> LeadershipView:
        """Return what is so just now."""
        unled = len(self._elections.without_leader(self._loop.time()))
        return LeadershipView(len(self._led), unled, self._terms_begun, self._terms_begun - len(self._led))

    # Its life

    async def run(self) -> None:
        """Send pulses, bid for what is due, hand over what others should lead."""
        self._is_running = True
        self._take(self._topology.map)
        while True:
            self._tick()
            await asyncio.sleep(self._pulse_s)

    async def close(self) -> None:
        """Leave all that is led to others, as far as they take it."""
        self._is_closing = True
        heirs = self._elections.heirs(self._loop.time())
        self._elections.fitness_is(self._may_lead, is_reluctant=True)
        if heirs:
            deadline = self._loop.time() + CLOSE_S
            await asyncio.gather(*(self._hand_over(heir, groups, deadline) for heir, groups in heirs.items()))
            await asyncio.sleep(LINGER_S)
        for led in self.leading():
            self._depose(led.group)
        self._is_running = False
        await self._tasks.close()
        self._confirmations.close()

    def _take(self, current: ClusterMap) -> None:
        """Take part in the elections of the groups of a new map, at once."""
        if not self._is_running:
            return
        rules = sorted({table.rule for table in current.tables if table.has_leaders})
        basis = current.placed, current.nodes, current.policies, rules
        if basis == self._basis:  # who replicates what is as before
            return
        self._basis = basis
        ring, me = self._topology.ring, self._topology.node
        successions: dict[Group, tuple[int, ...]] = {}
        joint: dict[Group, Joint] = {}
        for n in rules:
            for group in (Group(n, PartitionId(p)) for p in range(ring.partitions)):
                holders = ring.holders(group.partition, n)
                if me in holders.members:
                    successions[group] = self._succession(group, holders)
                    if holders.extra:
                        joint[group] = Joint(self._numbers_of(holders.newcomers), holders.quorum)
        for group in successions:
            self._elections.learned(group, self._promises.of(group))
        for group in self._elections.groups_are(successions, self._loop.time(), joint=joint):
            self._depose(group)
        for led in self.leading():
            self._regroup(led)
        self._look()

    def _split(self, _batch: Batch, _factor: int) -> Callable[[], None]:
        """Lead nothing any more when the ring is cut: each part of a partition has a leader again in a later epoch."""
        return self._forget

    def _forget(self) -> None:
        for led in self.leading():
            self._depose(led.group)
        self._elections.forget()
        self._basis = None
        self._pulses.forget()
        self._handing_over.clear()

    def _fork(self, forks: Forks) -> None:
        """Lead nothing any more of what tables go over from: a leader of before must not vouch for what others lead.

        What is left of it is led again in a later epoch, and so is what they go over to.
        """
        left = {old for _, old in forks}
        for led in self.leading():
            if led.group.rule in left:
                self._depose(led.group)

    def _succession(self, group: Group, holders: Holders) -> tuple[int, ...]:
        """Return who is to lead, those first who stay: whoever leaves hands over before it goes."""
        listed = succession(group, self._numbers_of(holders.serving))
        leaving = self._numbers_of(holders.leaving) if holders.extra else ()
        return tuple(sorted(listed, key=lambda number: number in leaving))

    def _regroup(self, led: Led) -> None:
        """Have a term go on with the replicas that its group has by the newest map, if they are others."""
        holders = self._topology.ring.holders(led.group.partition, led.group.rule)
        is_same = led.is_of(holders)
        led.are(holders, self._topology.map.placed)
        if is_same:
            return
        self._confirmations.regrouped(led)
        for listener in self._when_regrouped:
            listener(led)

    def _tick(self) -> None:
        unreachable = [
            number for number in self._elections.peers if not self._asker.is_reachable(self._node_of(number))
        ]
        self._elections.tick(unreachable, self._loop.time())
        if self._is_closing:  # what it leads is left to others once nothing is in flight
            self._pulses.send()
            return
        is_reluctant = self.is_draining or self._engine.shortage is not None
        may_lead = self.may_vote if self._engine.failure is None else self._may_lead
        for group in self._elections.fitness_is(may_lead, is_reluctant=is_reluctant):
            self._depose(group)
        self._pulses.send()
        self._look()
        for heir, groups in self._elections.handovers(self._loop.time()).items():
            left = [group for group in groups if group not in self._handing_over][:HANDOVERS_AT_ONCE]
            if left:
                self._tasks.begin(self._hand_over(heir, left, self._loop.time() + HANDOVER_S))

    def _may_lead(self, group: Group) -> bool:
        return not self._is_closing and self._engine.failure is None and self.may_vote(group)

    def _look(self) -> None:
        """Bid for what is due now."""
        if self._is_running and not self._is_closing:
            self._bid_for(self._elections.due(self._loop.time()))

    def _bid_for(self, groups: Iterable[Group], *, is_handover: bool = False) -> None:
        for some in self._campaigning.together(groups):
            bids = self._elections.bid(some)
            if bids:
                partitions = self._topology.ring.partitions
                self._tasks.begin(self._campaigning.bid(bids, is_handover=is_handover, partitions=partitions))

    # Terms

    def _elect(self, group: Group, epoch: Epoch, roots: Roots, placed: int) -> None:
        current = self._topology.map.placed
        if self._is_closing or placed != current or not self._elections.won(group, epoch):
            return
        holders = self._topology.ring.holders(group.partition, group.rule)
        led = self._led[group] = Led(group, epoch, holders, placed, roots)
        self._terms_begun += 1
        self._tell_soon()
        for listener in self._when_elected:
            listener(led)

    def _depose(self, group: Group) -> None:
        self._elections.let_go(group)
        led = self._led.pop(group, None)
        if led is None:
            return
        led.is_standing = False
        led.deposed.set_result(None)
        self._confirmations.deposed(led)
        self._tell_soon()
        for listener in self._when_deposed:
            listener(led)

    def _promised(self, group: Group, epoch: Epoch) -> None:
        if self._elections.promised(group, epoch, self._loop.time()):
            self._depose(group)

    def _tell_soon(self) -> None:
        if self._is_running:
            self._pulses.send_soon()

    # What others ask

    async def pulse(self, sender: NodeId, request: Pulse) -> Reply:
        """Hear from a peer that it lives, and what it leads; see `Pulses.hear`."""
        return await self._pulses.hear(sender, request)

    async def campaign(self, sender: NodeId, request: Campaign) -> Reply:
        """Promise the sender what it bids for; see `Voting.campaign`."""
        return await self._voting.campaign(sender, request)

    def begin_to_confirm_claims(self, sender: NodeId, request: Confirm) -> Reply | None:
        """Do as `confirm_claims`, None if that has to wait."""
        return self._voting.confirm_claims_at_once(sender, request)

    async def confirm_claims(self, sender: NodeId, request: Confirm) -> Reply:
        """Tell whether the epochs in which the sender leads still stand; see `Voting.confirm_claims`."""
        return await self._voting.confirm_claims(sender, request)

    async def take_over(self, sender: NodeId, request: TakeOver) -> Reply:
        """Campaign for groups that the sender has let go of.

        Raises:
            RefusedError: it or this node is not a replica.
        """
        await self._voting.admit(sender, request.map_epoch, [(request.n, partition) for partition, _ in request.groups])
        free = []
        for partition, epoch in request.groups:
            group = Group(request.n, partition)
            self.learned(group, Epoch(*epoch))
            if self.known(group) == epoch and self.may_vote(group):
                free.append(group)
        if self._is_running and not self._is_closing:
            self._bid_for(free, is_handover=True)
        return Done()

    # Handovers

    async def _hand_over(self, heir: int, groups: list[Group], deadline: float) -> None:
        """Let go of ``groups`` once nothing is in flight there, and have ``heir`` campaign for them."""
        self._handing_over.update(dict.fromkeys(groups))
        try:
            left = await asyncio.gather(*(self._leave(group, deadline) for group in groups))
            self._pulses.send()
            by_n: dict[int, list[tuple[PartitionId, Epoch]]] = {}
            for group, epoch in zip(groups, left, strict=True):
                if epoch is not None:
                    by_n.setdefault(group.rule, []).append((group.partition, epoch))
            for n, some in by_n.items():
                request = TakeOver(self._topology.map.epoch, n, tuple(some))
                await self._asker.ask(self._node_of(heir), request, timeout_s=TAKE_OVER_TIMEOUT_S)
        except MerganserError:  # whoever is due bids for what nobody leads
            return
        finally:
            for group in groups:
                self._handing_over.pop(group, None)

    async def renew(self, group: Group) -> None:
        """Lead ``group`` in a new epoch, if nothing is in flight there soon, and nobody else is made its leader."""
        if group in self._handing_over:
            return
        self._handing_over[group] = None
        try:
            left = await self._leave(group, self._loop.time() + HANDOVER_S)
        finally:
            self._handing_over.pop(group, None)
        if left is not None and self._is_running and not self._is_closing:
            self._bid_for((group,), is_handover=True)

    async def _leave(self, group: Group, deadline: float) -> Epoch | None:
        led = self._led.get(group)
        if led is None or not await self.quiesce(led, deadline) or not led.is_standing:
            return None
        self._depose(group)
        return led.epoch

    # Helpers

    def _numbers_of(self, nodes: Iterable[NodeId]) -> tuple[int, ...]:
        return tuple(number for node in nodes if (number := self._topology.number_of(node)) is not None)

    def _node_of(self, number: int) -> NodeId:
        node = self._topology.node_of(number)
        assert node is not None
        return node
