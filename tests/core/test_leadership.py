"""What one replica decides about the leaders of its groups; whole elections are in `test_leadership_walk`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.leadership import (
    BACK_OFF_PULSES,
    PULSE_S,
    PULSES_EXPECTED,
    PULSES_LOST,
    PULSES_SETTLED,
    PULSES_STOPPED,
    Elections,
    Tally,
    majority,
    succession,
)
from merganser.model.ids import PartitionId
from merganser.model.leadership import NO_EPOCH, Epoch, Group

ME = 2
FIRST = Group(3, PartitionId(0))
"""Owned by node 1; node 2 is next."""
OWN = Group(3, PartitionId(1))
LISTED = {FIRST: (1, ME, 3), OWN: (ME, 3, 1)}
NOBODY: Mapping[Group, Epoch] = {}
DEAD_S = PULSES_LOST * PULSE_S


class Clock:
    """Elections of node 2 of three, pulse by pulse."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.elections = Elections(ME, now_s=self.now_s, draw=lambda: 0.5)
        self.elections.groups_are(LISTED, self.now_s)
        self.let_go: list[Group] = []

    def pass_pulses(
        self,
        count: int = 1,
        *,
        heard: Mapping[int, Mapping[Group, Epoch]] | None = None,
        unfit: Collection[Group] = (),
        reluctant: Collection[int] = (),
        unreachable: Collection[int] = (),
        may_lead: bool = True,
        is_reluctant: bool = False,
    ) -> None:
        """Let time go on; ``heard`` is what those lead whose pulses come, by default nothing, of both."""
        for _ in range(count):
            self.now_s += PULSE_S
            for number, leading in ({1: NOBODY, 3: NOBODY} if heard is None else heard).items():
                self.elections.heard(number, leading, unfit, self.now_s, is_reluctant=number in reluctant)
            self.elections.tick(unreachable, self.now_s)
            for group in self.elections.fitness_is(lambda _group: may_lead, is_reluctant=is_reluctant):
                self.elections.let_go(group)
                self.let_go.append(group)

    def due(self) -> list[Group]:
        return self.elections.due(self.now_s)

    def win(self, group: Group = OWN) -> Epoch:
        epoch = self.elections.bid([group])[group]
        assert self.elections.won(group, epoch)
        self.elections.bid_ended([group], self.now_s)
        return epoch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(st.integers(1, 7), st.data())
def test_any_two_majorities_share_a_replica(replicas: int, data: st.DataObject) -> None:
    sets = st.sets(st.integers(1, replicas), min_size=majority(replicas))
    assert majority(replicas) <= replicas
    assert data.draw(sets) & data.draw(sets)


@given(st.integers(0, 1000), st.integers(1, 7))
def test_the_owner_is_the_first_of_the_succession_and_everybody_is_in_it_once(partition: int, n: int) -> None:
    listed = list(range(1, n + 1))
    found = succession(Group(n, PartitionId(partition)), listed)
    assert found[0] == 1
    assert sorted(found) == listed


def test_the_groups_of_one_node_would_go_to_all_others_by_turns() -> None:
    groups = [Group(3, PartitionId(p)) for p in range(0, 240, 3)]
    assert Counter(succession(group, (1, 2, 3))[1] for group in groups) == {2: 40, 3: 40}


def test_a_group_of_ones_own_that_nobody_leads_is_due_at_once_and_one_of_a_live_other_is_not(clock: Clock) -> None:
    assert clock.due() == [OWN]
    assert clock.elections.bid([OWN]) == {OWN: Epoch(1, ME)}
    assert clock.due() == []  # a bid is under way


def test_the_next_in_succession_bids_once_the_first_has_been_silent(clock: Clock) -> None:
    clock.win()
    clock.pass_pulses(PULSES_LOST - 1, heard={3: NOBODY})
    assert clock.due() == []
    clock.pass_pulses(heard={3: NOBODY})
    assert clock.due() == [FIRST]


def test_one_whose_connection_is_broken_is_given_up_earlier(clock: Clock) -> None:
    clock.win()
    clock.pass_pulses(2, heard={3: NOBODY}, unreachable=[1])
    assert clock.due() == [FIRST]


def test_what_somebody_leads_in_the_latest_epoch_is_not_due(clock: Clock) -> None:
    clock.pass_pulses(heard={1: NOBODY, 3: {OWN: Epoch(4, 3)}})
    assert clock.due() == []
    clock.elections.learned(OWN, Epoch(5, 1))  # so node 3 leads no more
    assert clock.due() == [OWN]
    assert clock.elections.bid([OWN]) == {OWN: Epoch(6, ME)}


def test_what_a_candidate_was_just_promised_is_not_due_until_it_has_had_time(clock: Clock) -> None:
    clock.elections.promised(OWN, Epoch(4, 3), clock.now_s)
    assert clock.due() == []
    clock.pass_pulses(PULSES_EXPECTED)
    assert clock.due() == [OWN]


def test_whoever_hears_the_leader_promises_nobody_else_anything(clock: Clock) -> None:
    clock.pass_pulses(heard={1: {FIRST: Epoch(1, 1)}, 3: NOBODY})
    would = clock.elections.would_promise
    assert not would(FIRST, Epoch(2, 3), clock.now_s)
    assert would(FIRST, Epoch(2, 1), clock.now_s)  # it may have begun anew
    assert would(FIRST, Epoch(2, 3), clock.now_s, is_handover=True)
    clock.win()
    assert not would(OWN, Epoch(9, 3), clock.now_s)
    clock.pass_pulses(PULSES_LOST, heard={3: NOBODY})
    assert would(FIRST, Epoch(2, 3), clock.now_s)


def test_a_bid_that_was_lost_is_not_made_again_for_a_while(clock: Clock) -> None:
    clock.elections.bid([OWN])
    clock.elections.bid_ended([OWN], clock.now_s)
    assert clock.due() == []
    clock.now_s += BACK_OFF_PULSES[1] * PULSE_S
    assert clock.due() == [OWN]


def test_a_group_is_not_won_in_an_epoch_before_the_latest_known(clock: Clock) -> None:
    epoch = clock.elections.bid([OWN])[OWN]
    clock.elections.learned(OWN, Epoch(epoch.number, 3))
    assert not clock.elections.won(OWN, epoch)
    assert not clock.elections.leading


def test_a_group_is_not_won_by_one_that_may_not_lead_it_any_more(clock: Clock) -> None:
    epoch = clock.elections.bid([OWN])[OWN]
    clock.pass_pulses(may_lead=False)
    assert not clock.elections.won(OWN, epoch)
    assert clock.elections.leading == {}


def test_a_later_epoch_that_is_promised_or_heard_of_ends_a_term(clock: Clock) -> None:
    epoch = clock.win()
    assert not clock.elections.learned(OWN, epoch)
    assert clock.elections.learned(OWN, Epoch(epoch.number + 1, 1))
    assert clock.elections.promised(OWN, Epoch(epoch.number + 1, 3), clock.now_s)


def test_what_is_no_news_ends_no_term_if_it_is_learned(clock: Clock) -> None:
    other = Group(3, PartitionId(7))
    clock.elections.learned(OWN, Epoch(5, 3))
    leading = {OWN: Epoch(5, 3), other: Epoch(2, 2)}
    assert clock.elections.news(leading) == {other: Epoch(2, 2)}
    assert clock.elections.news({OWN: Epoch(6, 2)}) == {OWN: Epoch(6, 2)}


def test_what_is_known_never_falls(clock: Clock) -> None:
    clock.elections.learned(OWN, Epoch(5, 3))
    clock.elections.learned(OWN, Epoch(5, 1))
    clock.pass_pulses(heard={1: {OWN: Epoch(4, 1)}, 3: NOBODY})
    assert clock.elections.known(OWN) == Epoch(5, 3)
    assert clock.elections.known(Group(5, PartitionId(0))) == NO_EPOCH


def test_a_leader_that_has_led_on_is_told_of_later_epochs(clock: Clock) -> None:
    clock.elections.learned(FIRST, Epoch(7, 3))
    assert clock.elections.heard(1, {FIRST: Epoch(6, 1), OWN: Epoch(2, 1)}, (), clock.now_s) == [(FIRST, Epoch(7, 3))]
    assert clock.elections.known(OWN) == Epoch(2, 1)


def test_a_leader_that_hears_no_majority_lets_go_and_one_that_hears_it_does_not(clock: Clock) -> None:
    clock.win()
    clock.pass_pulses(2 * PULSES_LOST, heard={3: NOBODY})
    assert clock.let_go == []
    clock.pass_pulses(PULSES_LOST, heard={})
    assert clock.let_go == [OWN]
    assert clock.elections.unfit == [FIRST, OWN]
    assert clock.due() == []


def test_a_node_that_was_stopped_judges_nobody_by_the_time_it_slept(clock: Clock) -> None:
    clock.win()
    clock.pass_pulses()
    clock.now_s += 10.0
    clock.pass_pulses(heard={})
    assert clock.let_go == []
    assert clock.due() == []
    clock.now_s += PULSES_STOPPED * PULSE_S  # not stopped, only busy
    clock.pass_pulses(heard={})
    assert clock.let_go == [OWN]


def test_who_sends_no_pulses_is_silent_unless_it_is_this_node_that_was_stopped(clock: Clock) -> None:
    other = clock.elections.peers[0]
    assert not clock.elections.is_silent(other, clock.now_s)
    clock.pass_pulses(PULSES_LOST, heard={})
    assert clock.elections.is_silent(other, clock.now_s)
    assert not clock.elections.is_silent(ME, clock.now_s)
    assert not clock.elections.is_silent(99, clock.now_s)  # of another group: it sends none here
    clock.now_s += 10.0
    assert not clock.elections.is_silent(other, clock.now_s)


def test_one_that_may_not_lead_lets_go_says_so_and_is_passed_over(clock: Clock) -> None:
    clock.win()
    clock.pass_pulses(may_lead=False)
    assert clock.let_go == [OWN]
    assert clock.elections.unfit == [FIRST, OWN]
    assert clock.due() == []
    clock.pass_pulses(unfit=[FIRST])
    assert clock.due() == [FIRST, OWN]


def test_one_that_is_reluctant_leads_only_if_all_are(clock: Clock) -> None:
    clock.pass_pulses(is_reluctant=True, reluctant=[1])
    assert clock.due() == []  # node 3 is there for both
    clock.pass_pulses(is_reluctant=True, reluctant=[1, 3])
    assert clock.due() == [OWN]
    clock.pass_pulses(reluctant=[1, 3])
    assert clock.due() == [FIRST, OWN]


def test_the_first_is_handed_its_group_once_it_has_lived_for_a_while(clock: Clock) -> None:
    clock.pass_pulses(PULSES_LOST, heard={3: NOBODY})
    clock.win(FIRST)
    clock.pass_pulses(PULSES_SETTLED)
    assert clock.elections.handovers(clock.now_s) == {}
    clock.pass_pulses()
    assert clock.elections.handovers(clock.now_s) == {1: [FIRST]}
    clock.pass_pulses(unreachable=[1])
    assert clock.elections.handovers(clock.now_s) == {}
    clock.pass_pulses(unfit=[FIRST])
    assert clock.elections.handovers(clock.now_s) == {}


def test_one_that_goes_leaves_its_groups_to_the_next_that_lives(clock: Clock) -> None:
    clock.pass_pulses(PULSES_LOST, heard={3: NOBODY})
    clock.win(FIRST)
    clock.win(OWN)
    assert clock.elections.heirs(clock.now_s) == {3: [FIRST, OWN]}
    clock.pass_pulses(unreachable=[3])
    assert clock.elections.heirs(clock.now_s) == {1: [FIRST, OWN]}
    clock.pass_pulses(PULSES_LOST, heard={})
    assert clock.elections.heirs(clock.now_s) == {}


def test_groups_of_a_table_that_was_dropped_are_let_go_of(clock: Clock) -> None:
    clock.win()
    assert clock.elections.groups_are({FIRST: LISTED[FIRST]}, clock.now_s) == [OWN]


BID, OTHER = Epoch(4, ME), Epoch(5, 3)


def test_a_bid_is_won_with_the_promise_that_makes_a_majority() -> None:
    tally = Tally({OWN: BID}, LISTED)
    assert tally.promised(ME, {OWN: BID}) == []
    assert not tally.is_settled
    assert tally.promised(3, {OWN: BID}) == [OWN]
    assert tally.promised(1, {OWN: BID}) == []
    assert tally.is_settled
    assert tally.won == {OWN: BID}


def test_a_replica_counts_once_and_only_where_it_has_a_say() -> None:
    tally = Tally({OWN: BID}, LISTED)
    assert not any(tally.promised(number, {OWN: BID, FIRST: BID}) for number in (3, 3, 4))
    assert tally.bids_of(3) == {}
    assert tally.bids_of(1) == {OWN: BID}


def test_a_bid_that_is_refused_is_settled_and_tells_what_was_met() -> None:
    tally = Tally({OWN: BID}, LISTED)
    tally.promised(1, {OWN: OTHER})
    tally.promised(3, {OWN: NO_EPOCH})
    assert tally.is_settled
    assert tally.met == [(OWN, OTHER)]
    assert tally.open == {}


def test_a_bid_is_open_while_those_that_did_not_answer_could_win_it() -> None:
    tally = Tally({OWN: BID}, LISTED)
    tally.promised(ME, {OWN: BID})
    tally.promised(1, {OWN: OTHER})
    tally.failed(3)
    assert tally.is_settled
    assert tally.open == {OWN: BID}
