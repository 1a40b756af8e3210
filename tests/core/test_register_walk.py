"""The register under random walks: proposers and voters that crash, a network that loses, repeats and reorders.

A walk is replayed by its seed. What is decided is judged from outside: whatever a majority of voters ever had
durably under one ballot, and whatever a proposer was told is decided.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
import pytest

from merganser.core import cluster_map
from merganser.core.quorum import Verdict
from merganser.core.register import (
    NO_BALLOT,
    AcceptorState,
    AcceptRound,
    PrepareRound,
    next_ballot,
    others_needed,
    rejoining_ballot,
)
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.ids import ClusterId, NodeId
from merganser.model.messages import Accept, Accepted, Ballot, Prepare, Promise

STEPS = 1_000
SEEDS = 150
FOUNDING = cluster_map.found(
    ClusterId("f" * 16), [NodeRecord(id=NodeId("a"), number=1, peer_address="a:1")], partitions=1
)

History = tuple[str, ...]
"""The changes that a map is made of, first to last."""


def history_of(value: ClusterMap) -> History:
    return tuple(table.unique_id for table in value.tables)


class Voter:
    """An acceptor with a disk; a crash leaves it with what the disk has, a cut of its log with what it had once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.disk = self.memory = AcceptorState(value=FOUNDING)
        self.once: list[AcceptorState] = [self.disk]
        self.is_lost = False
        self.highest_used = 0
        self.answers: dict[NodeId, Ballot] = {}
        self.round: PrepareRound | AcceptRound | None = None

    def keep(self, state: AcceptorState) -> None:
        self.disk = state
        self.once.append(state)


class Proposer:
    """Makes one change after another; a crash leaves it with its highest used round and the change in hand."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.highest_used = 0
        self.changes_done = 0
        self.forget()

    def forget(self) -> None:
        self.highest_seen = NO_BALLOT
        self.round: PrepareRound | AcceptRound | None = None
        self.proposal = FOUNDING

    def change(self, value: ClusterMap) -> ClusterMap:
        """Return ``value`` with the change in hand, which it may have already."""
        name = f"{self.number}.{self.changes_done}"
        return cluster_map.with_table(value, name=name, wire="w", n=1, definition=b"", unique_id=name)


class Walk:
    """One cluster, walked at random; planted bugs replace the methods of the first group."""

    def __init__(self, seed: int, *, voters: int) -> None:
        self.random = random.Random(seed)
        self.voters = {NodeId(f"v{i}"): Voter(i) for i in range(voters)}
        self.proposers = [Proposer(number) for number in (11, 12, 13)]
        self.network: list[Callable[[], None]] = []
        self.loss = self.random.choice([0, 0.1, 0.3])
        self.crashes = self.random.choice([0, 0.02, 0.1])
        self.losses = self.random.choice([0, 0.005, 0.03]) if voters > 1 else 0
        self.rejoined = 0
        self.holders: dict[tuple[Ballot, History], set[NodeId]] = defaultdict(set)
        self.decided: set[tuple[Ballot, History]] = set()

    def state_after_crash(self, disk: AcceptorState) -> AcceptorState:
        return disk

    def rounds_used_after_crash(self, highest_used: int) -> int:
        return highest_used

    def voters_asked(self) -> Sequence[NodeId]:
        return tuple(self.voters)

    def value_to_build_on(self, prepare: PrepareRound, last: Promise) -> ClusterMap | None:
        return prepare.value

    def syncs_before_reply(self) -> bool:
        return True

    def votes_after_loss(self) -> bool:
        return False

    def others_asked(self) -> int:
        return others_needed(len(self.voters))

    # The network and its failures

    def run(self) -> Walk:
        for _ in range(STEPS):
            chance = self.random.random()
            if chance < self.crashes:
                self.crash()
            elif chance < self.crashes + self.losses:
                self.lose()
            elif self.network and chance < 0.9:
                self.deliver()
            else:
                self.tick(self.random.choice(self.proposers))
                lost = next((voter_id for voter_id, voter in self.voters.items() if voter.is_lost), None)
                if lost is not None and self.random.random() < 0.3:
                    self.rejoin(lost)
        return self

    def send(self, delivery: Callable[[], None]) -> None:
        if self.random.random() >= self.loss:
            self.network.append(delivery)
        if self.random.random() < 0.05:
            self.network.append(delivery)

    def deliver(self) -> None:
        place = self.random.randrange(len(self.network)) if self.random.random() < 0.6 else 0
        self.network.pop(place)()

    def crash(self) -> None:
        if self.random.random() < 0.5:
            voter = self.random.choice(list(self.voters.values()))
            voter.memory = voter.disk = self.state_after_crash(voter.disk)
            voter.round, voter.answers = None, {}
        else:
            proposer = self.random.choice(self.proposers)
            proposer.forget()
            proposer.highest_used = self.rounds_used_after_crash(proposer.highest_used)

    def lose(self) -> None:
        """Cut the log of one voter, if none has forgotten anything just now."""
        if any(voter.is_lost for voter in self.voters.values()):
            return
        voter = self.random.choice(list(self.voters.values()))
        del voter.once[self.random.randint(1, len(voter.once)) :]
        voter.memory = voter.disk = voter.once[-1]
        voter.highest_used = 0
        voter.round, voter.answers = None, {}
        voter.is_lost = not self.votes_after_loss()

    # Voters

    def serve(self, voter_id: NodeId, request: Prepare | Accept, answer: Callable[[Promise | Accepted], None]) -> None:
        voter = self.voters[voter_id]
        if voter.is_lost:
            return
        state: AcceptorState
        reply: Promise | Accepted
        if isinstance(request, Prepare):
            state, reply = voter.memory.prepare(request.ballot)
        else:
            state, reply = voter.memory.accept(request.ballot, request.value)
        if self.random.random() < self.crashes:  # before anything reached the disk
            voter.memory = voter.disk
            return
        voter.memory = state
        if self.syncs_before_reply():
            voter.keep(state)
            self.record(voter_id, state)
        self.send(lambda: answer(reply))

    def record(self, voter_id: NodeId, state: AcceptorState) -> None:
        assert state.value is not None
        version = (state.accepted, history_of(state.value))
        self.holders[version].add(voter_id)
        if len(self.holders[version]) > len(self.voters) // 2:
            self.decided.add(version)

    # Voters that rejoin

    def rejoin(self, voter_id: NodeId) -> None:
        """Ask the others what they have promised, to leap above it."""
        voter = self.voters[voter_id]
        others = tuple(other for other in self.voters if other != voter_id)
        answers: dict[NodeId, Ballot] = {}
        voter.round, voter.answers = None, answers

        def heard(other: NodeId, reply: Promise | Accepted) -> None:
            if voter.is_lost and voter.answers is answers and voter.round is None:
                answers[other] = reply.promised
                if len(answers) >= self.others_asked():
                    self.leap_over(voter_id, others)

        self.ask(others, Prepare(NO_BALLOT), heard)

    def leap_over(self, voter_id: NodeId, others: Sequence[NodeId]) -> None:
        voter = self.voters[voter_id]
        ballot = rejoining_ballot(voter.answers.values(), highest_used=voter.highest_used, proposer=voter.number)
        voter.highest_used = ballot.round
        voter.round = prepare = PrepareRound(others, ballot, required=self.others_asked())

        def heard(other: NodeId, reply: Promise | Accepted) -> None:
            if voter.round is prepare and isinstance(reply, Promise) and prepare.promised(other, reply):
                self.have_accepted(voter_id, others, prepare)

        self.ask(others, Prepare(ballot), heard)

    def have_accepted(self, voter_id: NodeId, others: Sequence[NodeId], prepare: PrepareRound) -> None:
        voter, value = self.voters[voter_id], prepare.value
        if prepare.outcome is Verdict.HOPELESS or value is None:
            voter.round = None
            return
        voter.round = accept = AcceptRound(others, prepare.ballot, required=self.others_asked())

        def heard(other: NodeId, reply: Promise | Accepted) -> None:
            if voter.round is accept and isinstance(reply, Accepted) and accept.accepted(other, reply):
                voter.round = None
                if accept.outcome is Verdict.SUCCEEDED:
                    self.rejoined += 1
                    voter.is_lost = False
                    voter.memory = AcceptorState(accept.ballot, accept.ballot, value)
                    voter.keep(voter.memory)
                    self.record(voter_id, voter.memory)

        self.ask(others, Accept(prepare.ballot, value), heard)

    # Proposers

    def tick(self, proposer: Proposer) -> None:
        if proposer.round is None or self.random.random() < 0.2:  # idle, or out of patience
            self.start(proposer)

    def start(self, proposer: Proposer) -> None:
        ballot = next_ballot(proposer.highest_seen, highest_used=proposer.highest_used, proposer=proposer.number)
        proposer.highest_used = ballot.round
        voters = self.voters_asked()
        proposer.round = prepare = PrepareRound(voters, ballot)

        def heard(voter_id: NodeId, reply: Promise | Accepted) -> None:
            if proposer.round is prepare and isinstance(reply, Promise) and prepare.promised(voter_id, reply):
                self.go_on(proposer, voters, prepare, reply)

        self.ask(voters, Prepare(ballot), heard)

    def go_on(self, proposer: Proposer, voters: Sequence[NodeId], prepare: PrepareRound, last: Promise) -> None:
        proposer.highest_seen = prepare.highest_seen
        if prepare.outcome is Verdict.HOPELESS:
            proposer.round = None
            return
        value = self.value_to_build_on(prepare, last)
        assert value is not None
        proposer.proposal = proposer.change(value)
        proposer.round = accept = AcceptRound(voters, prepare.ballot)

        def heard(voter_id: NodeId, reply: Promise | Accepted) -> None:
            if proposer.round is accept and isinstance(reply, Accepted) and accept.accepted(voter_id, reply):
                self.finish(proposer, accept)

        self.ask(voters, Accept(prepare.ballot, proposer.proposal), heard)

    def finish(self, proposer: Proposer, accept: AcceptRound) -> None:
        proposer.highest_seen = accept.highest_seen
        proposer.round = None
        if accept.outcome is Verdict.SUCCEEDED:
            proposer.changes_done += 1
            self.decided.add((accept.ballot, history_of(proposer.proposal)))

    def ask(
        self,
        voters: Sequence[NodeId],
        request: Prepare | Accept,
        heard: Callable[[NodeId, Promise | Accepted], None],
    ) -> None:
        def request_to(voter_id: NodeId) -> Callable[[], None]:
            return lambda: self.serve(voter_id, request, lambda reply: heard(voter_id, reply))

        for voter_id in voters:
            self.send(request_to(voter_id))


def violation_of(walk: Walk) -> str | None:
    """What is wrong with the decided values, in order of ballot, if anything."""
    ordered = sorted(walk.decided)
    for (ballot, earlier), (later_ballot, later) in itertools.pairwise(ordered):
        if ballot == later_ballot:
            return f"{ballot} decided both {earlier} and {later}"
        if later[: len(earlier)] != earlier:
            return f"{later} of {later_ballot} is not built on {earlier} of {ballot}"
    by_epoch: dict[int, History] = {}
    for _, history in ordered:
        if by_epoch.setdefault(len(history), history) != history:
            return f"two decided changes build on one epoch: {by_epoch[len(history)]} and {history}"
        if len(set(history)) != len(history):
            return f"a change was made twice: {history}"
    return None


class ForgetsPromise(Walk):
    """A voter that keeps only what it accepted."""

    def state_after_crash(self, disk: AcceptorState) -> AcceptorState:
        return msgspec.structs.replace(disk, promised=disk.accepted)


class RepliesBeforeDurable(Walk):
    """A voter whose reply sometimes leaves before its state is on disk."""

    def syncs_before_reply(self) -> bool:
        return self.random.random() < 0.5


class MajorityOfOne(Walk):
    """A proposer that is content with any one voter."""

    def voters_asked(self) -> Sequence[NodeId]:
        return (self.random.choice(list(self.voters)),)


class BuildsOnLastPromise(Walk):
    """A proposer that takes the value it heard last for the one to build on."""

    def value_to_build_on(self, prepare: PrepareRound, last: Promise) -> ClusterMap | None:
        return last.value


class UsesBallotsAgain(Walk):
    """A proposer that forgets in a crash which ballots it used."""

    def rounds_used_after_crash(self, highest_used: int) -> int:
        return 0


class VotesFromItsOldState(Walk):
    """A voter that goes on with what is left on its disk."""

    def votes_after_loss(self) -> bool:
        return True


class RejoinsWithTooFew(Walk):
    """A voter that is content with the others it needs for a majority."""

    def others_asked(self) -> int:
        return len(self.voters) // 2


@pytest.mark.parametrize("voters", [1, 3, 5])
def test_decided_maps_form_one_chain_whatever_is_lost_repeated_or_crashed(voters: int) -> None:
    epochs = rejoined = 0
    for seed in range(SEEDS):
        walk = Walk(seed, voters=voters).run()
        assert violation_of(walk) is None, f"seed {seed}: {violation_of(walk)}"
        epochs += max((len(history) for _, history in walk.decided), default=0)
        rejoined += walk.rejoined
    assert epochs > 2 * SEEDS, "the walks hardly decide anything, so they show nothing"
    assert voters == 1 or rejoined > SEEDS // 2, "hardly anyone loses what it had promised"


@pytest.mark.parametrize("voters", [3, 5])
@pytest.mark.parametrize("planted", [ForgetsPromise, RepliesBeforeDurable, MajorityOfOne, BuildsOnLastPromise])
def test_walks_find_a_planted_bug(planted: type[Walk], voters: int) -> None:
    assert any(violation_of(planted(seed, voters=voters).run()) for seed in range(3 * SEEDS))


def test_walks_find_a_proposer_that_uses_a_ballot_twice() -> None:
    seeds = (664, *range(20 * SEEDS))  # the first found it when this was written
    assert any(violation_of(UsesBallotsAgain(seed, voters=3).run()) for seed in seeds)


@pytest.mark.parametrize(
    ("planted", "voters"),
    [(VotesFromItsOldState, 3), (VotesFromItsOldState, 5), (RejoinsWithTooFew, 3), (RejoinsWithTooFew, 5)],
)
def test_walks_find_a_voter_that_lost_its_log_and_comes_back_wrongly(planted: type[Walk], voters: int) -> None:
    assert any(violation_of(planted(seed, voters=voters).run()) for seed in range(20 * SEEDS))
