"""Who leads which group, as one of its replicas decides it: when to bid, whom to let win, when to let go.

A *group* is the replicas of a partition for tables of one n (`model.leadership`). Of one group, at one node::

              nobody leads, and this node is the first              most would                most have
              of the succession that is live and fit                 promise                  promised
    following ----------------------------------------> polling ---------------> campaigning ---------> leading
      | ^ ^                                                |                        ^   |                 |
      | | +--- not enough would, or not in time: later ----+------------------------|---+                 |
      | |                                                                           |                     |
      | |                  the leader hands over to this node                       |                     |
      +-|---------------------------------------------------------------------------+                     |
        +--- a later epoch is heard of | most replicas are silent | unfit | handed over to the first -----+

Owners are spread evenly over the ring, and each is the first to lead its partitions: so leaders are spread evenly
once everybody lives. A leader that is not the first hands over to the first that has lived for a while.

Liveness is told by pulses, which also say what their sender leads. They only decide when to try: a leader is made
by the promises of a majority, each to refuse all earlier epochs, and by nothing else.

A bid that cannot win would depose a leader for nothing: whoever promises itself a later epoch refuses the leader from
then on. So a candidate asks first whether it would win (`would_promise`), and who hears from a leader, or from a
candidate it has just promised something, says no.

Invariants:

- this node bids only epochs that name it, above all that it knows, its own promises among them: never one twice;
- it leads a group in the epoch that most replicas have promised it, and no longer than no later one is known here;
- what is known of a group never falls.

Source: design §5; Ongaro 2014, "Consensus: Bridging Theory and Practice", §4.2.3 and §9.6 (pre-vote), §6.2 (a leader
that hears no majority steps down); Lamport 2001, "Paxos Made Simple", §2.4 (distinguished proposer).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from merganser.model.leadership import NO_EPOCH, Epoch, Group

PULSE_S = 0.25
"""Between two pulses to a peer."""

PULSES_LOST = 4
"""After so many pulses one is not live. Detection by the failure detector takes ten times as long, and an election in
vain costs a poll; with one message in ten lost, four in a row are lost once in 10,000 times."""

PULSES_UNREACHABLE = 1.5
"""The same for one whose connection is broken: a process that died. A connection that was only reset is open again
before that, as a rule."""

PULSES_SETTLED = 12
"""The first replica leads again once it has lived for so long: one that comes and goes does not unsettle its groups."""

PULSES_EXPECTED = 2
"""A candidate that was promised something is expected to lead, and to say so, within this time."""

PULSES_STOPPED = 2
"""A tick that is late by so much: this node was stopped, and the silence it saw was its own."""

BACK_OFF_PULSES = (0.4, 1.2)
"""Before the next bid after one that was lost: drawn between these, so that two candidates fall out of step."""


def majority(replicas: int) -> int:
    """Return how many of ``replicas`` any two sets of that many share one of."""
    return replicas // 2 + 1


def succession(group: Group, preference_list: Sequence[int]) -> tuple[int, ...]:
    """Return the replicas of ``group`` in the order in which they should lead it.

    The owner first; the others by turns. In their order on the ring the groups of a node that is gone would all go to
    the node next to it.
    """
    owner, *others = preference_list
    turn = (group.partition // len(preference_list)) % max(1, len(others))
    return owner, *others[turn:], *others[:turn]


class Joint(msgspec.Struct, frozen=True):
    """What is so of a group while its replicas change (`core.ring.Holders`)."""

    newcomers: tuple[int, ...]
    """They have a say, and do not lead."""
    quorum: int
    """How many have to promise."""


class Heard(msgspec.Struct):
    """What is known of another replica's life."""

    at_s: float
    """When it was heard last."""
    since_s: float
    """Since when it has been live."""
    leading: Mapping[Group, Epoch] = {}
    unfit: Collection[Group] = ()
    is_reluctant: bool = False


class Elections:
    """What one node knows of its groups, and decides; nodes are named by their numbers. See the module's docstring."""

    def __init__(self, me: int, *, now_s: float, draw: Callable[[], float], pulse_s: float = PULSE_S) -> None:
        """Begin with no groups.

        Args:
            me: this node's number.
            now_s: the time.
            draw: returns a random number from 0 up to 1.
            pulse_s: between two pulses.
        """
        self._me = me
        self._draw = draw
        self._pulse_s = pulse_s
        self._ticked_s = now_s
        self._replicas: dict[Group, tuple[int, ...]] = {}
        self._joint: Mapping[Group, Joint] = {}
        self._known: dict[Group, Epoch] = {}
        self._leading: dict[Group, Epoch] = {}
        self._bidding: dict[Group, Epoch] = {}
        self._heard: dict[int, Heard] = {}
        self._unreachable: Collection[int] = ()
        self._retry_s: dict[Group, float] = {}
        self._expected: dict[Group, tuple[Epoch, float]] = {}
        self._unfit: dict[Group, None] = {}
        self._is_reluctant = False

    # What there is

    def groups_are(
        self, replicas: Mapping[Group, tuple[int, ...]], now_s: float, *, joint: Mapping[Group, Joint] = {}
    ) -> list[Group]:
        """Take note of the groups this node is a replica of, each with its succession; ``joint`` of those that change.

        Returns:
            The groups it leads no longer.
        """
        self._replicas, self._joint = dict(replicas), joint
        electorates = (self.replicas(group) for group in replicas)
        peers = dict.fromkeys(number for listed in electorates for number in listed if number != self._me)
        self._heard = {number: self._heard.get(number) or Heard(now_s, now_s) for number in peers}
        for of_group in (self._retry_s, self._expected, self._unfit):
            for group in [group for group in of_group if group not in replicas]:
                del of_group[group]
        return [group for group in self._leading if self._me not in replicas.get(group, ())]

    def forget(self) -> None:
        """Know of no group any more, nor what others said of any: their partitions have other numbers from now on.

        Who lives is still known; what is led is let go of before, and `groups_are` is to follow.
        """
        assert not self._leading, "what is led is let go of before"
        for of_group in (self._known, self._bidding, self._retry_s, self._expected, self._unfit):
            of_group.clear()
        for heard in self._heard.values():
            heard.leading, heard.unfit = {}, ()

    @property
    def peers(self) -> list[int]:
        """The nodes that share a group with this one."""
        return list(self._heard)

    def replicas(self, group: Group) -> tuple[int, ...]:
        """Return the succession of a group of this node, and its newcomers; of another group, nothing."""
        joint = self._joint.get(group)
        return self._replicas.get(group, ()) if joint is None else (*self._replicas.get(group, ()), *joint.newcomers)

    def quorum(self, group: Group) -> int:
        """Return how many replicas of a group have to promise an epoch."""
        joint = self._joint.get(group)
        return majority(len(self._replicas.get(group, ()))) if joint is None else joint.quorum

    def fitness_is(self, may_lead: Callable[[Group], bool], *, is_reluctant: bool) -> list[Group]:
        """Take note of which groups this node may lead, and whether others should; returns those it must let go of.

        It leads none of which it has not heard of most replicas: others that do might wait for it in vain.
        """
        self._is_reluctant = is_reluctant
        self._unfit = {group: None for group in self._replicas if not may_lead(group)}
        if self._silent(self._ticked_s):
            for group in self._replicas:
                if not self._hears_most(group, self._ticked_s):
                    self._unfit[group] = None
        return [group for group in self._leading if group in self._unfit]

    @property
    def unfit(self) -> list[Group]:
        """The groups this node may not lead."""
        return list(self._unfit)

    @property
    def is_reluctant(self) -> bool:
        """Whether others should lead, if there are any."""
        return self._is_reluctant

    # Epochs

    def known(self, group: Group) -> Epoch:
        """Return the latest epoch known of any group; NO_EPOCH if none is."""
        return self._known.get(group, NO_EPOCH)

    def news(self, leading: Mapping[Group, Epoch]) -> dict[Group, Epoch]:
        """Return which of these epochs are later than what is known; the others need not be `learned`."""
        known = self._known
        return {group: epoch for group, epoch in leading.items() if epoch > known.get(group, NO_EPOCH)}

    def learned(self, group: Group, epoch: Epoch) -> bool:
        """Take note that there is such an epoch; returns whether this node has led in an earlier one until now."""
        if epoch > self.known(group):
            self._known[group] = epoch
        led = self._leading.get(group)
        return led is not None and epoch > led

    def promised(self, group: Group, epoch: Epoch, now_s: float) -> bool:
        """Take note of a promise of this node; as `learned`."""
        if epoch.leader != self._me:
            self._expected[group] = epoch, now_s + PULSES_EXPECTED * self._pulse_s
        return self.learned(group, epoch)

    @property
    def leading(self) -> Mapping[Group, Epoch]:
        """What this node leads, and in which epoch."""
        return self._leading

    def let_go(self, group: Group) -> None:
        """Lead a group no more."""
        self._leading.pop(group, None)

    # Lives

    def heard(
        self,
        number: int,
        leading: Mapping[Group, Epoch],
        unfit: Collection[Group],
        now_s: float,
        *,
        is_reluctant: bool = False,
    ) -> list[tuple[Group, Epoch]]:
        """Take in a pulse.

        Returns:
            The groups its sender thinks it leads, of which a later epoch is known here.
        """
        before = self._heard.get(number)
        if before is not None:  # else no group is shared by this node's map
            since_s = before.since_s if self._is_live(number, now_s) else now_s
            self._heard[number] = Heard(now_s, since_s, leading, unfit, is_reluctant)
        later, known_of = [], self._known.get
        for group, epoch in leading.items():
            known = known_of(group, NO_EPOCH)
            if known > epoch:
                later.append((group, known))
            elif known < epoch:
                self._known[group] = epoch
        return later

    def answered(self, number: int, now_s: float) -> None:
        """Take note of an answer of another node: it is there."""
        before = self._heard.get(number)
        if before is not None:
            if not self._is_live(number, now_s):
                before.since_s = now_s
            before.at_s = now_s

    def tick(self, unreachable: Collection[int], now_s: float) -> None:
        """Take note of the time, once a pulse, and of who cannot be reached; `fitness_is` is to follow."""
        late_s = now_s - self._ticked_s - self._pulse_s
        if late_s > PULSES_STOPPED * self._pulse_s:
            for heard in self._heard.values():
                heard.at_s = min(now_s, heard.at_s + late_s)
        self._ticked_s, self._unreachable = now_s, unreachable

    def _is_live(self, number: int, now_s: float) -> bool:
        heard = self._heard.get(number)
        if heard is None:
            return False
        pulses = PULSES_UNREACHABLE if number in self._unreachable else PULSES_LOST
        return now_s < heard.at_s + pulses * self._pulse_s

    def is_silent(self, number: int, now_s: float) -> bool:
        """Tell whether a node that sends pulses to this one has not been heard for as long as makes one dead."""
        heard = self._heard.get(number)
        if heard is None or now_s > self._ticked_s + PULSES_STOPPED * self._pulse_s:  # it is this node that was stopped
            return False
        return heard.at_s <= now_s - PULSES_LOST * self._pulse_s

    def _silent(self, now_s: float) -> list[int]:
        """Return who has not been heard for as long as makes one dead."""
        heard_since_s = now_s - PULSES_LOST * self._pulse_s
        return [number for number, heard in self._heard.items() if heard.at_s <= heard_since_s]

    def _hears_most(self, group: Group, now_s: float) -> bool:
        listed, silent = self.replicas(group), self._silent(now_s)
        return len(listed) - sum(number in silent for number in listed) >= self.quorum(group)

    # Bids

    def due(self, now_s: float) -> list[Group]:
        """Return the groups to poll for now."""
        well = [
            number
            for number, heard in self._heard.items()
            if not (heard.unfit or heard.is_reluctant) and self._is_live(number, now_s)
        ]
        return [  # almost always the first is this node, and leads, or somebody else who is well
            group
            for group, listed in self._replicas.items()
            if listed[0] not in well and group not in self._leading and self._is_due(group, now_s)
        ]

    def _is_due(self, group: Group, now_s: float) -> bool:
        return (
            group not in self._bidding
            and self._retry_s.get(group, 0.0) <= now_s
            and self._first(group, now_s) == self._me
            and not self._is_led(group, now_s, besides=self._me)
        )

    def _first(self, group: Group, now_s: float) -> int | None:
        """Return the first replica that is live and fit to lead, before those that would rather not."""
        reluctant = None
        for number in self._replicas[group]:
            if not self._can_lead(number, group, now_s):
                continue
            if not (self._is_reluctant if number == self._me else self._heard[number].is_reluctant):
                return number
            reluctant = number if reluctant is None else reluctant
        return reluctant

    def _can_lead(self, number: int, group: Group, now_s: float) -> bool:
        if number == self._me:
            return group not in self._unfit
        return self._is_live(number, now_s) and group not in self._heard[number].unfit

    def _is_led(self, group: Group, now_s: float, *, besides: int) -> bool:
        """Tell whether anybody besides that node leads, or is expected to, as far as is known."""
        if group in self._leading:
            return besides != self._me
        known = self.known(group)
        for number in self.replicas(group):
            if number not in (self._me, besides) and self._is_live(number, now_s):
                claimed = self._heard[number].leading.get(group)
                if claimed is not None and claimed >= known:
                    return True
        epoch, until_s = self._expected.get(group, (NO_EPOCH, 0.0))
        return epoch.leader != besides and now_s < until_s and self._is_live(epoch.leader, now_s)

    def without_leader(self, now_s: float) -> list[Group]:
        """Return the groups of this node that nobody leads, as far as is known."""
        return [group for group in self._replicas if not self._is_led(group, now_s, besides=0)]

    def bid(self, groups: Iterable[Group]) -> dict[Group, Epoch]:
        """Return the epochs to poll and campaign for; `bid_ended` is to follow."""
        bids = {}
        for group in groups:
            is_heir = self._me in self._replicas.get(group, ())
            if is_heir and group not in self._bidding and group not in self._leading:
                bids[group] = Epoch(self.known(group).number + 1, self._me)
        self._bidding.update(bids)
        return bids

    def won(self, group: Group, epoch: Epoch) -> bool:
        """Lead a group that most replicas have promised ``epoch``; returns False if a later one is known by now."""
        if self._me not in self._replicas.get(group, ()) or epoch < self.known(group) or group in self._unfit:
            return False
        self._known[group] = self._leading[group] = epoch
        self._retry_s.pop(group, None)
        return True

    def bid_ended(self, groups: Iterable[Group], now_s: float) -> None:
        """Take note that the bids for these groups are won or lost; back off where they are lost."""
        for group in groups:
            self._bidding.pop(group, None)
            if group not in self._leading and group in self._replicas:
                least, most = BACK_OFF_PULSES
                self._retry_s[group] = now_s + self._pulse_s * (least + (most - least) * self._draw())

    def would_promise(self, group: Group, epoch: Epoch, now_s: float, *, is_handover: bool = False) -> bool:
        """Tell whether to promise ``epoch`` to its leader, or to say so when polled.

        Args:
            group: that this node is a replica of.
            epoch: above all that this node has promised.
            now_s: the time.
            is_handover: the last leader has let go.
        """
        if group not in self._replicas:  # its map is older, or no table needs a leader any more
            return True
        return is_handover or not self._is_led(group, now_s, besides=epoch.leader)

    # Handovers

    def handovers(self, now_s: float) -> dict[int, list[Group]]:
        """Return the groups this node leads that others should, by those others."""
        wanted: dict[int, list[Group]] = {}
        for group in self._leading:
            first = self._first(group, now_s)
            if first is not None and first != self._me and self._is_settled(first, now_s):
                wanted.setdefault(first, []).append(group)
        return wanted

    def heirs(self, now_s: float) -> dict[int, list[Group]]:
        """Return the groups this node leads, by whom to leave them to when it goes; without those nobody can take."""
        wanted: dict[int, list[Group]] = {}
        for group in self._leading:
            for number in self._replicas[group]:
                is_other = number != self._me and number not in self._unreachable
                if is_other and self._can_lead(number, group, now_s):
                    wanted.setdefault(number, []).append(group)
                    break
        return wanted

    def _is_settled(self, number: int, now_s: float) -> bool:
        if number in self._unreachable:
            return False
        return now_s >= self._heard[number].since_s + PULSES_SETTLED * self._pulse_s


class Tally:
    """Counts what replicas promise for bids, or would promise."""

    def __init__(
        self,
        bids: Mapping[Group, Epoch],
        replicas: Mapping[Group, Sequence[int]],
        quorums: Mapping[Group, int] | None = None,
    ) -> None:
        """Count for ``bids``, with the replicas of each group, and how many have to promise (None: a majority)."""
        self._bids = dict(bids)
        self._waiting = {group: list(replicas[group]) for group in bids}
        self._silent = dict.fromkeys(bids, 0)
        quorums = quorums or {group: majority(len(listed)) for group, listed in self._waiting.items()}
        self._missing = {group: quorums[group] for group in bids}
        self.won: dict[Group, Epoch] = {}
        """Those that most replicas have promised."""
        self.met: list[tuple[Group, Epoch]] = []
        """The later epochs that stood in the way."""

    @property
    def is_settled(self) -> bool:
        """Tell whether no answer can change anything any more."""
        return all(group in self.won or self._is_hopeless(group) for group in self._bids)

    def bids_of(self, number: int) -> dict[Group, Epoch]:
        """Return the bids that a replica has a say in."""
        return {group: epoch for group, epoch in self._bids.items() if number in self._waiting[group]}

    def promised(self, number: int, promised: Mapping[Group, Epoch]) -> list[Group]:
        """Count the answer of a replica; returns what is won by it."""
        news = []
        for group, epoch in promised.items():
            if number not in self._waiting.get(group, ()):
                continue
            self._waiting[group].remove(number)
            if epoch == self._bids[group]:
                self._missing[group] -= 1
                if self._missing[group] == 0:
                    self.won[group] = epoch
                    news.append(group)
            elif epoch > self._bids[group]:
                self.met.append((group, epoch))
        return news

    def failed(self, number: int) -> None:
        """Count a replica out that did not answer."""
        for group, waiting in self._waiting.items():
            if number in waiting:
                waiting.remove(number)
                self._silent[group] += 1

    @property
    def open(self) -> dict[Group, Epoch]:
        """The bids that may be won yet, if those answer that did not."""
        return {
            group: epoch
            for group, epoch in self._bids.items()
            if group not in self.won and len(self._waiting[group]) + self._silent[group] >= self._missing[group]
        }

    def _is_hopeless(self, group: Group) -> bool:
        return len(self._waiting[group]) < self._missing[group]
