"""A model of one item and its one entry in an index, walked at random: leaders, late messages, and markers that go.

Both groups have three replicas. Promises of an epoch come one by one, so an epoch is heard of before it begins;
messages stay in the network as long as they like; a leader that is deposed goes on with what it knew. What is walked is
the order of a delivery (docs/internals/indexes.md): note an epoch, confirm, send, apply, acknowledge, clear.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from merganser.core.indexing import Shown, applied, decoded, is_marker
from merganser.model.register import EMPTY, UNWRITTEN, Content, Register, Version

REPLICAS, MAJORITY = 3, 2


class Rules(msgspec.Struct, frozen=True):
    """What is to be walked; each of them broken leads to a stale entry."""

    confirms_after_noting: bool = True
    keeps_markers_of_its_epoch: bool = True
    looks_at_versions: bool = True


class Late(NamedTuple):
    """A message on its way."""

    epoch: int
    shown: Shown


class Group:
    """Three replicas, what they have promised, and who was elected."""

    def __init__(self) -> None:
        self.promised = [1] * REPLICAS
        self.elected = [1]
        self.bid = 1

    def step(self, rng: random.Random) -> int | None:
        """Bid for a new epoch, or have one replica promise the last that was bid for; returns what is won by that."""
        if self.bid in self.elected:
            if rng.random() < 0.2:
                self.bid = max(self.promised) + 1
            return None
        self.promised[rng.randrange(REPLICAS)] = self.bid
        if self.promised.count(self.bid) < MAJORITY:
            return None
        self.elected.append(self.bid)
        return self.bid

    def stands(self, epoch: int) -> bool:
        """Tell whether a majority has promised nothing later."""
        return sum(promised <= epoch for promised in self.promised) >= MAJORITY


class Delivery(msgspec.Struct):
    """One leader of the item, and its round."""

    epoch: int
    view: Shown
    """The item as this leader knows it."""
    taken: Shown
    """The item as it is delivered in this round."""
    noted: int = 0
    """The epoch of the entry's group; 0: none yet."""
    latest: int = 1
    """Such epoch that this leader knows of; others may know of later ones."""
    confirmed: bool = False


class Walk:
    """One run; `is_right` in the end."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.rng = random.Random(seed)
        self.rules = rules
        self.base, self.index = Group(), Group()
        self.head, self.is_behind = Shown(Version(1, 1, 1), None), False
        self.sequence = 1
        self.deliveries = [Delivery(1, self.head, self.head)]
        self.network: list[Late] = []
        self.stored: list[Register] = [UNWRITTEN] * REPLICAS
        self.known = {1: UNWRITTEN}
        """By epoch, what the leader of the entry holds; that is what it has adopted, or written since."""

    def run(self, steps: int) -> bool:
        likely = (self.write, *[self.elect] * 3, *[self.deliver] * 5, self.arrive, self.remove)
        for _ in range(steps):
            self.rng.choice(likely)()
        while self.is_behind:
            self.deliveries = self.deliveries[-1:]
            self.deliver()
            self.settle_elections()
        for late in list(self.network):
            self.apply(late)
        return self.shows == self.head.value

    @property
    def shows(self) -> bytes | None:
        value = self.known[max(self.index.elected)].value
        return None if value is None else decoded(value).value

    # The item.

    def write(self) -> None:
        """The newest leader writes, if a majority still follows it; what it writes is chosen at once."""
        epoch = max(self.base.elected)
        if self.base.stands(epoch):
            self.sequence += 1
            value = None if self.head.value is not None else b"%d" % self.sequence
            self.head, self.is_behind = Shown(Version(epoch, 1, self.sequence), value), True
            self.deliveries[-1].view = self.head

    def elect(self) -> None:
        group = self.rng.choice((self.base, self.index))
        epoch = group.step(self.rng)
        if epoch is not None and group is self.base:
            self.deliveries.append(Delivery(epoch, self.head, self.head))
        elif epoch is not None:
            self.touch(epoch)

    def settle_elections(self) -> None:
        """Let whoever bids win, so that the walk ends."""
        for group in self.base, self.index:
            while group.bid not in group.elected:
                epoch = group.step(self.rng)
                if epoch is not None and group is self.index:
                    self.touch(epoch)
                elif epoch is not None:
                    self.deliveries.append(Delivery(epoch, self.head, self.head))

    def deliver(self) -> None:
        """Some leader of the item, deposed or not, takes the next step of its round."""
        one = self.rng.choice(self.deliveries)
        if not one.noted:
            one.taken = one.view
            one.noted = one.latest = self.rng.choice([epoch for epoch in self.index.elected if epoch >= one.latest])
        elif not one.confirmed and self.rules.confirms_after_noting:
            one.confirmed = self.base.stands(one.epoch)
        else:
            self.network.append(Late(one.noted, one.taken))
            one.noted, one.confirmed = 0, False
            if self.rng.random() < 0.5 or len(self.deliveries) == 1:
                self.apply(self.network.pop())

    # The entry.

    def arrive(self) -> None:
        if self.network:
            self.apply(self.network.pop(self.rng.randrange(len(self.network))))

    def apply(self, late: Late) -> None:
        """The leader of just that epoch takes it, if there is one; acknowledged if a majority keeps it."""
        if late.epoch not in self.known:
            if late.epoch > max(self.index.elected):
                self.network.append(late)  # its leader is not elected yet
            return
        register = self.known[late.epoch]
        decided = applied(register.content, late.shown)
        content = decided.content
        if content is None and not self.rules.looks_at_versions:
            content = applied(EMPTY, late.shown).content
        is_chosen = self.index.stands(late.epoch)
        if content is not None:
            is_chosen = self.keep(late.epoch, content)
        if is_chosen and late.shown.version == self.head.version:
            self.is_behind = False

    def keep(self, epoch: int, content: Content) -> bool:
        """The leader of ``epoch`` writes; returns whether that is chosen. Its own replica keeps it in any case."""
        version = Version(epoch, 1, self.known[epoch].version.sequence + 1)
        register = self.known[epoch] = Register(version, content)
        keeping = [number for number in range(REPLICAS) if self.index.promised[number] <= epoch]
        for number in keeping:
            if self.stored[number].version < version:
                self.stored[number] = register
        return len(keeping) >= MAJORITY

    def touch(self, epoch: int, asked: Sequence[int] = ()) -> None:
        """A new leader asks some majority, which promises its epoch by that, and adopts the latest if they differ."""
        asked = asked or self.rng.sample(range(REPLICAS), MAJORITY)
        for number in asked:
            self.index.promised[number] = epoch
        found = [self.stored[number] for number in asked]
        latest = max(found, key=lambda register: register.version)
        self.known[epoch] = latest
        if any(register != latest for register in found):
            self.keep(epoch, latest.content)

    def remove(self) -> None:
        """The newest leader of the entry removes a marker."""
        epoch = max(self.index.elected)
        register = self.known[epoch]
        is_old = register.version.number < epoch or not self.rules.keeps_markers_of_its_epoch
        if register.value is not None and is_marker(register.value) and is_old and self.index.stands(epoch):
            self.keep(epoch, EMPTY)
