"""Nodes that elect leaders without a shell, on virtual time: a heap of what is to happen, and disks that forget.

What is judged is seen from outside: who was elected in which epoch, and which epochs were confirmed when.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence

from merganser.core.leadership import PULSE_S, Elections, Tally, majority, succession
from merganser.model.ids import PartitionId
from merganser.model.leadership import NO_EPOCH, Epoch, Group

POLL_S, CAMPAIGN_S = 0.25, 0.5
PARTITIONS = 6
Epochs = dict[Group, Epoch]


class Node:
    """One node; a crash leaves it with the promises that were synced."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.disk: Epochs = {}
        self.memory: Epochs = {}
        self.told: Epochs = {}
        """What it has promised whom who asked for it."""
        self.life = 0
        self.is_up = self.is_paused = False
        self.held: list[Callable[[], None]] = []
        self.campaigned: dict[Group, int] = {}
        """The highest number it ever asked for, in all its lives."""
        self.elections: Elections

    def promised(self, group: Group) -> Epoch:
        return self.memory.get(group, NO_EPOCH)


class Cluster:
    """One cluster; planted bugs replace the methods of the first group."""

    def __init__(self, seed: int, *, nodes: int = 3, n: int = 3) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.loss = 0.0
        self.slow = 0.0
        """Share of messages that take up to seconds."""
        self.sync_s = 0.02
        """How long a disk takes at most."""
        self.cuts: set[tuple[int, int]] = set()
        self.nodes = [Node(number) for number in range(1, nodes + 1)]
        self.groups = {
            group: succession(group, [(p + i) % nodes + 1 for i in range(n)])
            for p in range(PARTITIONS)
            for group in [Group(n, PartitionId(p))]
        }
        self.elected: dict[tuple[Group, Epoch], float] = {}
        self.campaigns: list[float] = []
        self.confirmed = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for node in self.nodes:
            self.start(node)

    # What a careless node would do

    def syncs_own_promise(self) -> bool:
        return True

    def syncs_before_reply(self) -> bool:
        return True

    def refuses_earlier(self) -> bool:
        return True

    # Time and faults

    def at(self, time_s: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time_s, self._count, what))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, what = heapq.heappop(self._heap)
            what()
        self.now_s = end_s

    def on(self, node: Node, what: Callable[[], None]) -> Callable[[], None]:
        """Return ``what`` as something of the node's present life."""
        life = node.life

        def run() -> None:
            if node.is_up and node.life == life:
                if node.is_paused:
                    node.held.append(run)
                else:
                    what()

        return run

    def later(self, node: Node, delay_s: float, what: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, self.on(node, what))

    def send(self, sender: int, receiver: int, what: Callable[[Node], None]) -> None:
        """Do ``what`` at the receiver, once the message is there."""
        node = self.nodes[receiver - 1]

        def arrive() -> None:
            if (sender, receiver) not in self.cuts:
                self.on(node, lambda: what(node))()

        for _ in range(1 + (self.random.random() < self.loss / 2)):
            if self.random.random() >= self.loss:
                most_s = 3.0 if self.random.random() < self.slow else 0.01
                self.at(self.now_s + self.random.uniform(0.0002, most_s), arrive)

    def start(self, node: Node) -> None:
        node.life += 1
        node.is_up, node.is_paused, node.held = True, False, []
        node.memory = dict(node.disk)
        for group, epoch in node.told.items():
            assert node.promised(group) >= epoch, f"node {node.number} has forgotten that it promised {epoch}"
        node.elections = Elections(node.number, now_s=self.now_s, draw=self.random.random)
        held = {group: listed for group, listed in self.groups.items() if node.number in listed}
        for group in held:
            node.elections.learned(group, node.promised(group))
        node.elections.groups_are(held, self.now_s)
        self.on(node, lambda: self.tick(node))()

    def crash(self, node: Node) -> None:
        node.is_up = False

    def resume(self, node: Node) -> None:
        node.is_paused = False
        held, node.held = node.held, []
        for what in held:
            what()

    def heal(self) -> None:
        self.cuts.clear()
        self.loss, self.slow, self.sync_s = 0.0, 0.0, 0.02
        for node in self.nodes:
            if not node.is_up:
                self.start(node)
            elif node.is_paused:
                self.resume(node)

    # A node

    def tick(self, node: Node) -> None:
        elections = node.elections
        elections.tick((), self.now_s)
        for group in elections.fitness_is(lambda _group: True, is_reluctant=False):
            elections.let_go(group)
        self.pulse(node)
        self.bid(node, elections.due(self.now_s), is_handover=False)
        for heir, groups in elections.handovers(self.now_s).items():
            self.hand_over(node, heir, groups)
        for group, epoch in elections.leading.items():
            if self.random.random() < 0.3:
                self.confirm(node, group, epoch)
        self.later(node, PULSE_S, lambda: self.tick(node))

    def pulse(self, node: Node) -> None:
        leading, unfit = dict(node.elections.leading), node.elections.unfit
        for peer in node.elections.peers:
            self.send(node.number, peer, lambda other: self.hear(other, node, leading, unfit))

    def hear(self, node: Node, sender: Node, leading: Epochs, unfit: list[Group]) -> None:
        for group, epoch in leading.items():
            self.learn(node, group, epoch)
        later = node.elections.heard(sender.number, leading, unfit, self.now_s)
        life = sender.life

        def answered(asker: Node) -> None:
            if asker.life == life:
                asker.elections.answered(node.number, self.now_s)
                for group, epoch in later:
                    self.learn(asker, group, epoch)

        self.send(node.number, sender.number, answered)

    def learn(self, node: Node, group: Group, epoch: Epoch) -> None:
        if node.elections.learned(group, epoch):
            node.elections.let_go(group)

    def promise(self, node: Node, group: Group, epoch: Epoch) -> None:
        if epoch > node.promised(group) or not self.refuses_earlier():
            node.memory[group] = epoch
            if node.elections.promised(group, epoch, self.now_s):
                node.elections.let_go(group)

    def sync(self, node: Node, then: Callable[[], None], *, waits: bool = True) -> None:
        synced = dict(node.memory)

        def done() -> None:
            for group, epoch in synced.items():
                if not self.refuses_earlier() or epoch > node.disk.get(group, NO_EPOCH):
                    node.disk[group] = epoch
            if waits:
                then()

        self.later(node, self.random.uniform(0.0001, self.sync_s), done)
        if not waits:
            then()

    def hand_over(self, node: Node, heir: int, groups: Sequence[Group]) -> None:
        left = {group: node.elections.leading[group] for group in groups}
        for group in groups:
            node.elections.let_go(group)
        self.pulse(node)

        def take_over(other: Node) -> None:
            for group, epoch in left.items():
                self.learn(other, group, epoch)
            free = [group for group, epoch in left.items() if other.elections.known(group) == epoch]
            self.bid(other, free, is_handover=True)

        self.send(node.number, heir, take_over)

    # Bids

    def bid(self, node: Node, groups: Iterable[Group], *, is_handover: bool) -> None:
        bids = node.elections.bid(groups)
        for group, epoch in bids.items():
            self.poll(node, {group: epoch}) if not is_handover else self.campaign(node, {group: epoch}, is_handover)

    def poll(self, node: Node, bids: Epochs) -> None:
        def ended(tally: Tally) -> None:
            if tally.won:
                self.campaign(node, tally.won, False)
            else:
                for group, epoch in tally.met:
                    self.learn(node, group, epoch)
                node.elections.bid_ended(bids, self.now_s)

        tally = self.tally(bids)
        tally.promised(node.number, bids)
        self.ask(node, tally, lambda _news: None, ended, is_poll=True, is_handover=False)

    def campaign(self, node: Node, bids: Epochs, is_handover: bool) -> None:
        self.campaigns.append(self.now_s)
        for group, epoch in bids.items():
            node.campaigned[group] = max(epoch.number, node.campaigned.get(group, 0))
            self.promise(node, group, epoch)

        def promised() -> None:
            tally = self.tally(bids)
            node.told.update({group: epoch for group, epoch in bids.items() if node.promised(group) == epoch})
            self.elect(node, tally, tally.promised(node.number, {group: node.promised(group) for group in bids}))
            self.ask(
                node,
                tally,
                lambda news: self.elect(node, tally, news),
                lambda _tally: node.elections.bid_ended(bids, self.now_s),
                is_poll=False,
                is_handover=is_handover,
            )

        self.sync(node, promised, waits=self.syncs_own_promise())

    def tally(self, bids: Epochs) -> Tally:
        return Tally(bids, self.groups)

    def ask(
        self,
        node: Node,
        tally: Tally,
        news: Callable[[list[Group]], None],
        ended: Callable[[Tally], None],
        *,
        is_poll: bool,
        is_handover: bool,
    ) -> None:
        life, is_over = node.life, False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                ended(tally)

        def reply(other: Node, promised: Epochs) -> None:
            def count(asker: Node) -> None:
                if asker.life == life and not is_over:
                    news(tally.promised(other.number, promised))
                    if tally.is_settled:
                        end()

            self.send(other.number, node.number, count)

        def question(bids: Epochs) -> Callable[[Node], None]:
            return lambda other: self.vote(
                other, bids, lambda promised: reply(other, promised), is_poll=is_poll, is_handover=is_handover
            )

        for peer in node.elections.peers:
            bids = tally.bids_of(peer)
            if bids:
                self.send(node.number, peer, question(bids))
        self.later(node, POLL_S if is_poll else CAMPAIGN_S, end)
        if tally.is_settled:
            end()

    def vote(
        self, node: Node, bids: Epochs, reply: Callable[[Epochs], None], *, is_poll: bool, is_handover: bool
    ) -> None:
        wanted = {
            group: epoch
            for group, epoch in bids.items()
            if (epoch > node.promised(group) or not self.refuses_earlier())
            and node.elections.would_promise(group, epoch, self.now_s, is_handover=is_handover)
        }
        if is_poll:
            reply({group: wanted.get(group, node.promised(group)) for group in bids})
            return
        for group, epoch in wanted.items():
            self.promise(node, group, epoch)

        def answer() -> None:
            promised = {group: node.promised(group) for group in bids}
            node.told.update({group: epoch for group, epoch in promised.items() if epoch == bids[group]})
            reply(promised)

        self.sync(node, answer, waits=self.syncs_before_reply())

    def elect(self, node: Node, tally: Tally, groups: Iterable[Group]) -> None:
        for group in groups:
            epoch = tally.won[group]
            assert epoch.leader == node.number
            if node.elections.won(group, epoch):
                assert (group, epoch) not in self.elected, f"{epoch} was elected twice in {group}"
                self.elected[group, epoch] = self.now_s
                self.pulse(node)

    # Confirmations

    def confirm(self, node: Node, group: Group, epoch: Epoch) -> None:
        asked_s, life, standing = self.now_s, node.life, [node.number]

        def stands(other: Node) -> None:
            if node.life == life and other.number not in standing:
                standing.append(other.number)
                if len(standing) == majority(len(self.groups[group])):
                    self.judge(group, epoch, asked_s)

        def check(other: Node) -> None:
            self.promise(other, group, epoch)
            if other.promised(group) == epoch:
                self.sync(other, lambda: self.send(other.number, node.number, lambda _asker: stands(other)))

        for peer in self.groups[group]:
            if peer != node.number:
                self.send(node.number, peer, check)

    def judge(self, group: Group, epoch: Epoch, asked_s: float) -> None:
        self.confirmed += 1
        for (other, later), elected_s in self.elected.items():
            assert not (other == group and later > epoch and elected_s <= asked_s), (
                f"{epoch} was confirmed in {group} at {asked_s}, and {later} elected at {elected_s}"
            )

    # What is so

    def leaders(self, group: Group) -> list[int]:
        return [node.number for node in self.nodes if node.is_up and group in node.elections.leading]

    def is_led_by_owners(self) -> bool:
        return all(self.leaders(group) == [listed[0]] for group, listed in self.groups.items())
