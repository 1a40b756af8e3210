"""Whom a request asks until it has found the leader."""

from __future__ import annotations

from merganser.core.leader_search import PAUSE_S_MAX, PAUSE_S_MIN, LeaderSearch
from merganser.model.ids import NodeId
from merganser.model.leadership import NO_EPOCH, Epoch

A, B, C = (NodeId(name) for name in "abc")


def replicas() -> tuple[NodeId, ...]:
    return A, B, C


def test_the_leader_is_asked_first_and_then_the_others_in_order() -> None:
    search, epoch = LeaderSearch(), Epoch(3, 2)
    asked = [search.next(epoch, B, replicas) for _ in range(4)]
    assert asked == [B, A, C, None]


def test_without_a_known_leader_all_are_asked_in_order() -> None:
    search = LeaderSearch()
    assert [search.next(NO_EPOCH, None, replicas) for _ in range(4)] == [A, B, C, None]


def test_the_leader_of_a_later_epoch_is_asked_at_once() -> None:
    search = LeaderSearch()
    assert search.next(NO_EPOCH, None, replicas) == A
    assert search.next(Epoch(1, 1), A, replicas) == A, "it was asked before it was known to lead"
    assert search.next(Epoch(2, 3), C, replicas) == C


def test_a_new_round_asks_everybody_again_after_a_pause_that_grows() -> None:
    search, epoch = LeaderSearch(), Epoch(1, 1)
    pauses = []
    for _ in range(6):
        assert [search.next(epoch, A, replicas) for _ in range(4)] == [A, B, C, None]
        pauses.append(search.pause_s())
    assert pauses[0] == PAUSE_S_MIN
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_S_MAX
