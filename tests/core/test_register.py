"""The register, step by step: what a voter promises and what a proposer makes of the replies."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import cluster_map
from merganser.core.quorum import Verdict
from merganser.core.register import (
    BALLOT_LEAP,
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
from merganser.model.messages import Accepted, Ballot, Promise

A, B, C, STRANGER = NodeId("a"), NodeId("b"), NodeId("c"), NodeId("stranger")
ABC = (A, B, C)
FOUNDING = cluster_map.found(ClusterId("f" * 16), [NodeRecord(id=A, number=1, peer_address="a:1")], 1)


def map_of_epoch(epoch: int) -> ClusterMap:
    return msgspec.structs.replace(FOUNDING, epoch=epoch)


ballots = st.builds(Ballot, st.integers(1, 4), st.integers(1, 3))


# Voters


def test_new_voter_promises_and_shows_the_founding_map() -> None:
    state, reply = AcceptorState(value=FOUNDING).prepare(Ballot(1, 1))
    assert reply == Promise(Ballot(1, 1), NO_BALLOT, FOUNDING)
    assert state == AcceptorState(Ballot(1, 1), NO_BALLOT, FOUNDING)


def test_voter_refuses_a_lower_ballot_and_names_the_one_it_holds_to() -> None:
    state, _ = AcceptorState(value=FOUNDING).prepare(Ballot(2, 1))
    assert state.prepare(Ballot(1, 9)) == (state, Promise(Ballot(2, 1), NO_BALLOT, FOUNDING))
    assert state.accept(Ballot(1, 9), map_of_epoch(2)) == (state, Accepted(Ballot(2, 1)))


def test_voter_accepts_under_the_promised_ballot_and_under_a_higher_one_it_never_heard_of() -> None:
    state, _ = AcceptorState(value=FOUNDING).prepare(Ballot(2, 1))
    for ballot in Ballot(2, 1), Ballot(3, 1):
        assert state.accept(ballot, map_of_epoch(2)) == (
            AcceptorState(ballot, ballot, map_of_epoch(2)),
            Accepted(ballot),
        )


def test_repeated_requests_change_nothing_and_are_answered_the_same() -> None:
    promised, promise = AcceptorState(value=FOUNDING).prepare(Ballot(1, 1))
    assert promised.prepare(Ballot(1, 1)) == (promised, promise)
    accepted, reply = promised.accept(Ballot(1, 1), map_of_epoch(2))
    again, same_reply = accepted.accept(Ballot(1, 1), map_of_epoch(2))
    assert again is accepted
    assert same_reply == reply


@given(requests=st.lists(st.tuples(st.booleans(), ballots), max_size=20))
def test_voter_never_goes_back_on_a_promise(requests: list[tuple[bool, Ballot]]) -> None:
    state = AcceptorState(value=FOUNDING)
    for prepares, ballot in requests:
        before = state
        state, reply = state.prepare(ballot) if prepares else state.accept(ballot, map_of_epoch(2))
        assert reply.promised == state.promised == max(before.promised, ballot)
        assert before.accepted <= state.accepted <= state.promised
        if prepares or ballot < before.promised:
            assert (state.accepted, state.value) == (before.accepted, before.value)


# Ballots


@given(seen=ballots, highest_used=st.integers(0, 6), proposer=st.integers(1, 3))
def test_next_ballot_outbids_what_was_seen_and_was_never_used(seen: Ballot, highest_used: int, proposer: int) -> None:
    ballot = next_ballot(seen, highest_used=highest_used, proposer=proposer)
    assert ballot > seen
    assert ballot.round > highest_used
    assert ballot.proposer == proposer


# Proposers


def test_majority_of_promises_yields_the_value_of_the_highest_accepted_ballot() -> None:
    prepare = PrepareRound(ABC, Ballot(5, 1))
    assert not prepare.promised(A, Promise(Ballot(5, 1), Ballot(3, 2), map_of_epoch(3)))
    assert prepare.promised(B, Promise(Ballot(5, 1), Ballot(2, 3), map_of_epoch(2)))
    assert prepare.outcome is Verdict.SUCCEEDED
    assert prepare.value == map_of_epoch(3)


def test_voter_with_an_empty_register_does_not_hide_the_founding_map() -> None:
    prepare = PrepareRound(ABC, Ballot(5, 1))
    prepare.promised(A, Promise(Ballot(5, 1), NO_BALLOT, None))
    prepare.promised(B, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    assert prepare.value is FOUNDING


def test_promise_after_the_outcome_no_longer_changes_the_value() -> None:
    prepare = PrepareRound(ABC, Ballot(5, 1))
    prepare.promised(A, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    prepare.promised(B, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    prepare.promised(C, Promise(Ballot(5, 1), Ballot(4, 2), map_of_epoch(2)))
    assert prepare.value is FOUNDING


def test_value_of_a_refusal_is_not_built_on() -> None:
    prepare = PrepareRound(ABC, Ballot(5, 1))
    prepare.promised(A, Promise(Ballot(6, 2), Ballot(6, 2), map_of_epoch(9)))
    prepare.promised(B, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    assert prepare.promised(C, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    assert prepare.value is FOUNDING
    assert prepare.highest_seen == Ballot(6, 2)


def test_refusals_of_a_majority_make_the_round_hopeless_and_say_what_to_outbid() -> None:
    prepare = PrepareRound(ABC, Ballot(1, 1))
    assert not prepare.promised(A, Promise(Ballot(7, 2), NO_BALLOT, FOUNDING))
    assert prepare.promised(B, Promise(Ballot(4, 3), NO_BALLOT, FOUNDING))
    assert prepare.outcome is Verdict.HOPELESS
    assert next_ballot(prepare.highest_seen, highest_used=1, proposer=1) == Ballot(8, 1)


def test_voters_that_do_not_reply_count_as_refusals() -> None:
    prepare = PrepareRound(ABC, Ballot(1, 1))
    assert [prepare.failed(A), prepare.failed(A), prepare.failed(B)] == [False, False, True]
    assert prepare.outcome is Verdict.HOPELESS


def test_repeated_and_forged_promises_change_nothing() -> None:
    prepare = PrepareRound(ABC, Ballot(5, 1))
    prepare.promised(A, Promise(Ballot(5, 1), NO_BALLOT, FOUNDING))
    for voter in A, STRANGER:
        assert not prepare.promised(voter, Promise(Ballot(5, 1), Ballot(4, 4), map_of_epoch(9)))
        assert not prepare.promised(voter, Promise(Ballot(9, 9), Ballot(9, 9), map_of_epoch(9)))
    assert prepare.value is FOUNDING
    assert prepare.outcome is Verdict.OPEN
    assert prepare.highest_seen == Ballot(5, 1)


def test_change_is_decided_when_a_majority_has_accepted() -> None:
    accept = AcceptRound(ABC, Ballot(5, 1))
    assert not accept.accepted(A, Accepted(Ballot(5, 1)))
    assert not accept.accepted(B, Accepted(Ballot(6, 2)))
    assert accept.accepted(C, Accepted(Ballot(5, 1)))
    assert accept.outcome is Verdict.SUCCEEDED
    assert accept.highest_seen == Ballot(6, 2)


def test_only_voter_decides_alone_and_one_of_two_does_not() -> None:
    alone, of_two = AcceptRound((A,), Ballot(1, 1)), AcceptRound((A, B), Ballot(1, 1))
    assert alone.accepted(A, Accepted(Ballot(1, 1)))
    assert not of_two.accepted(A, Accepted(Ballot(1, 1)))
    assert of_two.outcome is Verdict.OPEN


# A voter that lost what it had synced


def test_a_voter_that_rejoins_meets_every_majority_without_its_own_vote() -> None:
    for voters in range(2, 6):
        majority = voters // 2 + 1
        assert (majority - 1) + others_needed(voters) > voters - 1
    assert others_needed(1) == 1, "nobody can tell the only voter what it has forgotten"


def test_a_voter_that_rejoins_leaps_above_what_the_others_know_and_what_it_remembers() -> None:
    assert rejoining_ballot([Ballot(3, 1), Ballot(7, 2)], highest_used=5, proposer=2) == Ballot(7 + BALLOT_LEAP, 2)
    assert rejoining_ballot([Ballot(3, 1)], highest_used=9, proposer=2) == Ballot(9 + BALLOT_LEAP, 2)


def decided_after_a_loss(rejoins_under: Ballot) -> list[int]:
    """A promises a ballot of which nobody else hears in time, forgets it, and rejoins; return the epochs decided.

    Every decided change adds one to the epoch, so two of one epoch are built on the same map.
    """
    states = {name: AcceptorState(value=FOUNDING) for name in ABC}
    decided = []

    def prepare(voter: NodeId, ballot: Ballot) -> Promise:
        states[voter], promise = states[voter].prepare(ballot)
        return promise

    def change(ballot: Ballot, promises: dict[NodeId, Promise]) -> None:
        round_ = PrepareRound(ABC, ballot)
        for voter, promise in promises.items():
            round_.promised(voter, promise)
        if round_.outcome is not Verdict.SUCCEEDED or round_.value is None:
            return
        value, accepting = map_of_epoch(round_.value.epoch + 1), AcceptRound(ABC, ballot)
        for voter in ABC:
            states[voter], reply = states[voter].accept(ballot, value)
            accepting.accepted(voter, reply)
        if accepting.outcome is Verdict.SUCCEEDED:
            decided.append(value.epoch)

    of_a = prepare(A, Ballot(2, 2))  # to B and C the request is still on its way
    for other in B, C:
        prepare(other, rejoins_under)
        states[other], _ = states[other].accept(rejoins_under, FOUNDING)
    states[A] = AcceptorState(rejoins_under, rejoins_under, FOUNDING)
    of_b = prepare(B, Ballot(2, 2))
    change(Ballot(2, 1), {A: prepare(A, Ballot(2, 1)), C: prepare(C, Ballot(2, 1))})
    change(Ballot(2, 2), {A: of_a, B: of_b})
    return decided


def test_a_voter_that_rejoined_below_a_forgotten_promise_would_break_it() -> None:
    assert decided_after_a_loss(Ballot(1, 1)) == [2, 2]
    assert decided_after_a_loss(rejoining_ballot([NO_BALLOT, NO_BALLOT], highest_used=0, proposer=1)) == []
