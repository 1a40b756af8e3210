"""Suspicion: the greatest claim is believed in whatever order it is heard, and accusers shorten the wait."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.suspicion import ACCUSERS_MAX, CONFIRMATIONS_MAX, MAX_RATIO, MIN_PERIODS, accuse, merge, timeout_s
from merganser.model.gossip import Claim, State
from merganser.model.ids import NodeId

ANN = NodeId("ann")
NODES = [NodeId(f"n{i}") for i in range(7)]


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    """Claims about ann, as members make them."""
    state = draw(st.sampled_from(State))
    accusers = (
        draw(st.sets(st.sampled_from(NODES), min_size=1, max_size=ACCUSERS_MAX)) if state is State.SUSPECT else ()
    )
    return Claim(ANN, state, draw(st.integers(0, 2)), tuple(sorted(accusers)))


@given(claims(), claims())
def test_merge_is_commutative(one: Claim, other: Claim) -> None:
    assert merge(one, other) == merge(other, one)


@given(claims(), claims(), claims())
def test_merge_is_associative(one: Claim, two: Claim, three: Claim) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(claims())
def test_merge_is_idempotent_and_says_so_by_identity(one: Claim) -> None:
    assert merge(one, msgspec.structs.replace(one)) is one


@given(claims(), claims())
def test_what_adds_nothing_returns_the_first_itself(one: Claim, other: Claim) -> None:
    merged = merge(one, other)
    assert (merged == one) == (merged is one)


@given(st.lists(claims(), min_size=1, max_size=5))
def test_the_order_in_which_gossip_is_heard_does_not_matter(heard: list[Claim]) -> None:
    beliefs = set()
    for order in itertools.permutations(heard):
        belief = Claim(ANN, State.ALIVE, 0)
        for claim in order:
            belief = merge(belief, claim)
        beliefs.add(belief)
    assert len(beliefs) == 1


def test_of_one_incarnation_alive_gives_way_to_suspect_and_suspect_to_dead() -> None:
    alive, suspect, dead = (Claim(ANN, state, 3) for state in State)
    assert merge(alive, suspect) is suspect
    assert merge(suspect, dead) is dead
    assert merge(dead, alive) is dead


def test_a_higher_incarnation_refutes_everything() -> None:
    refutation = Claim(ANN, State.ALIVE, 4)
    for state in State:
        assert merge(Claim(ANN, state, 3), refutation) is refutation


def test_a_suspicion_keeps_its_first_accusers_in_order_and_no_more_than_count() -> None:
    belief = Claim(ANN, State.ALIVE, 0)
    for accuser in reversed(NODES):
        belief = accuse(belief, accuser)
    assert belief == Claim(ANN, State.SUSPECT, 0, tuple(NODES[:ACCUSERS_MAX]))


def test_accusing_a_dead_one_changes_nothing() -> None:
    dead = Claim(ANN, State.DEAD, 2)
    assert accuse(dead, NODES[0]) is dead


def wait_s(confirmations: int, *, confirmers: int = 98, cluster_size: int = 100) -> float:
    return timeout_s(confirmations=confirmations, confirmers=confirmers, cluster_size=cluster_size, period_s=1.0)


def test_the_first_accuser_waits_longest_and_each_confirmation_shortens_it_down_to_the_least() -> None:
    waits = [wait_s(confirmations) for confirmations in range(CONFIRMATIONS_MAX + 2)]
    least = 2 * MIN_PERIODS  # log10 of 100 is 2
    assert waits[0] == pytest.approx(MAX_RATIO * least)
    assert waits[:4] == sorted(waits[:4], reverse=True)
    assert waits[CONFIRMATIONS_MAX:] == [least, least]


def test_each_confirmation_counts_less_than_the_one_before() -> None:
    waits = [wait_s(confirmations) for confirmations in range(CONFIRMATIONS_MAX + 1)]
    gains = [earlier - later for earlier, later in itertools.pairwise(waits)]
    assert gains == sorted(gains, reverse=True)


def test_nobody_waits_for_confirmations_that_cannot_come() -> None:
    assert wait_s(0, confirmers=0, cluster_size=2) == MIN_PERIODS
    assert wait_s(1, confirmers=1, cluster_size=3) == MIN_PERIODS
    assert wait_s(0, confirmers=1, cluster_size=3) == MAX_RATIO * MIN_PERIODS


def test_larger_clusters_wait_longer_because_a_refutation_has_further_to_go() -> None:
    assert wait_s(3, cluster_size=10) == MIN_PERIODS
    assert wait_s(3, cluster_size=1_000) == pytest.approx(3 * MIN_PERIODS)
