"""The register that holds the cluster map: a compare-and-set agreed on by a majority of voters.

A change is a function of the current map. Its proposer learns the map, applies the function, and
has the result accepted, in two rounds under one ballot::

    proposer                                            voter (acceptor)

    PrepareRound --- Prepare(ballot) ----------------->  promised := ballot, if not higher already
       |         <-- Promise(promised, accepted, value)
       | SUCCEEDED: a majority promised
       | value := change(value of the highest accepted ballot among the promises)
       v
    AcceptRound ---- Accept(ballot, value) ----------->  accepted, value := ballot, value,
       |         <-- Accepted(promised)                    unless a higher ballot was promised
       v
    SUCCEEDED: the change is decided         HOPELESS: see below

A voter's register is never empty: its caller starts it with the founding map at Ballot(0, 0).

Invariants: of two decided values the one with the higher ballot is built on the other, or is the other;
so no two decided changes build on the same epoch. This rests on three duties of the callers:

- a voter makes its new state durable before the reply leaves;
- a proposer uses a ballot once, ever: it makes the round of `next_ballot` durable before it sends Prepare;
- all proposers ask the same voters (a change of voters is not part of this module).

A voter that lost some of what it had synced has forgotten promises and acceptances. It answers nobody until it has
*rejoined*, as the proposer of a round that changes nothing and in which only the other voters count::

    lost --others_needed promised--> ... --others_needed accepted--> its own state is that ballot and that value

Under a ballot `BALLOT_LEAP` above all that those others have promised, so that it lies above everything that the voter
itself can have promised. Merely outbidding the others is not enough: it may have promised a ballot that they have not
heard of yet, and would now help to decide one below it, behind the back of who counts on the promise. The value holds
every change that its lost acceptance helped to decide, because as many others accepted that as `others_needed` cannot
miss; and what was still to be decided with its help under a lower ballot, those others now refuse.

When the accept round is hopeless, the change may still be decided, now or by a later proposer that builds
on it: its outcome is unknown. The proposer tries again with a higher ballot and the same change, which does
nothing to a map that has it already (`core.cluster_map`).

Source: Rystsov 2018, "CASPaxos: Replicated State Machines without logs", §2.2 (the protocol), appendix A (proof).
Lamport 2001, "Paxos Made Simple", §2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from merganser.core.quorum import Verdict, WriteQuorum
from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId
from merganser.model.messages import Accepted, Ballot, Promise

NO_BALLOT = Ballot(0, 0)
"""Lower than every proposer's ballot: node numbers and rounds start at 1."""

BALLOT_LEAP = 2**40
"""Rounds between what the others know and the ballot of a voter that rejoins.

A ballot that only that voter has promised lies above those that the others know by one for each attempt that reached
nobody else. An attempt costs its proposer an fsync: a thousand a second would need 35 years. Rounds have 63 bits, which
is enough to rejoin eight million times.
"""


class AcceptorState(msgspec.Struct, frozen=True):
    """What a voter keeps; durable before the reply that came with it leaves.

    Invariant: ``accepted <= promised``.
    """

    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    value: ClusterMap | None = None
    """What was accepted under ``accepted``; the founding map at first."""

    def prepare(self, ballot: Ballot) -> tuple[AcceptorState, Promise]:
        """Promise to refuse everything below ``ballot``, unless a higher one was promised.

        The state is this object itself if nothing changed, so nothing needs to be written.
        """
        state = msgspec.structs.replace(self, promised=ballot) if ballot > self.promised else self
        return state, Promise(state.promised, state.accepted, state.value)

    def accept(self, ballot: Ballot, value: ClusterMap) -> tuple[AcceptorState, Accepted]:
        """Take ``value``, unless a higher ballot was promised; a repeated Accept changes nothing."""
        if ballot < self.promised or ballot == self.accepted:
            return self, Accepted(self.promised)
        return AcceptorState(ballot, ballot, value), Accepted(ballot)


def next_ballot(highest_seen: Ballot, *, highest_used: int, proposer: int) -> Ballot:
    """Return a ballot that ``proposer`` never used and that no voter heard from has outbid.

    Args:
        highest_seen: from the round that failed, NO_BALLOT at first.
        highest_used: the last round this proposer used, from its disk; that of the result goes there.
        proposer: number of this node in the cluster map.
    """
    return Ballot(max(highest_seen.round, highest_used) + 1, proposer)


def others_needed(voters: int) -> int:
    """Return how many of the other voters one that rejoins has to win, of ``voters`` with itself.

    As few as meet every majority even without the voter itself. A voter that is the only one needs one more than there
    are: nobody can tell it what it has forgotten.
    """
    return voters - voters // 2


def rejoining_ballot(promised: Iterable[Ballot], *, highest_used: int, proposer: int) -> Ballot:
    """Return a ballot above all that ``proposer`` can have promised or used before it lost its memory.

    Args:
        promised: what the others answered, as many as `others_needed` at least.
        highest_used: the last round that ``proposer`` remembers to have used.
        proposer: number of this node in the cluster map.
    """
    return Ballot(max([highest_used, *(ballot.round for ballot in promised)]) + BALLOT_LEAP, proposer)


class _Round:
    """One question to all voters, settled by a majority, or by as many as are required."""

    __slots__ = ("_quorum", "ballot", "highest_seen")

    def __init__(self, voters: Sequence[NodeId], ballot: Ballot, *, required: int | None = None) -> None:
        """Open the round; ``voters`` holds all voters of the map, each once, or those that count."""
        self._quorum = WriteQuorum(voters, required=required or len(voters) // 2 + 1)
        self.ballot = ballot
        self.highest_seen = ballot
        """The highest ballot met so far, to outbid on the next try."""

    @property
    def outcome(self) -> Verdict:
        """What is certain so far; HOPELESS when a majority refused, or can no longer be had."""
        return self._quorum.verdict

    def failed(self, voter: NodeId) -> bool:
        """Record that ``voter`` will not reply; true if that settled the outcome."""
        return self._quorum.failed(voter)

    def _heard(self, voter: NodeId, promised: Ballot) -> bool:
        """Count the reply: in favour if the ballot that the voter holds to is this round's."""
        if not self._quorum.is_pending(voter):
            return False
        self.highest_seen = max(self.highest_seen, promised)
        return self._quorum.acked(voter) if promised == self.ballot else self._quorum.failed(voter)


class PrepareRound(_Round):
    """The first half of a change: learn the value to build on."""

    __slots__ = ("_built_on", "value")

    def __init__(self, voters: Sequence[NodeId], ballot: Ballot, *, required: int | None = None) -> None:
        """Open the round; ``voters`` holds all voters of the map, each once, or those that count."""
        super().__init__(voters, ballot, required=required)
        self._built_on = NO_BALLOT
        self.value: ClusterMap | None = None
        """The value of the highest accepted ballot among the promises; once SUCCEEDED, the one to build on."""

    def promised(self, voter: NodeId, promise: Promise) -> bool:
        """Record the reply of ``voter``, promise or refusal; true if that settled the outcome."""
        is_promise = promise.promised == self.ballot and self._quorum.is_pending(voter)
        if is_promise and self.outcome is Verdict.OPEN:
            self._learn(promise)
        return self._heard(voter, promise.promised)

    def _learn(self, promise: Promise) -> None:
        if self.value is None or promise.accepted > self._built_on:
            self._built_on, self.value = promise.accepted, promise.value


class AcceptRound(_Round):
    """The second half of a change: have the value accepted."""

    __slots__ = ()

    def accepted(self, voter: NodeId, reply: Accepted) -> bool:
        """Record the reply of ``voter``, acceptance or refusal; true if that settled the outcome."""
        return self._heard(voter, reply.promised)
