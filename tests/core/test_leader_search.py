"""Whom a request asks until it has found the leader, and what follows from failures."""

from __future__ import annotations

import pytest

from merganser.core.leader_search import PAUSE_S_MAX, PAUSE_S_MIN, Course, Failure, LeaderSearch, course
from merganser.model.ids import NodeId
from merganser.model.leadership import NO_EPOCH, Epoch

SEARCH, TELL, INSIST, GIVE_UP = Course.SEARCH, Course.TELL, Course.INSIST, Course.GIVE_UP

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


# What follows from a failure.

COURSES = {  # of one who does not lead; of the leader: a read, a change; the copy of a change that may be done
    Failure.NOT_LEADING: (SEARCH, SEARCH, SEARCH, GIVE_UP),
    Failure.OF_REQUEST: (TELL, TELL, TELL, GIVE_UP),
    Failure.BUSY: (SEARCH, TELL, TELL, INSIST),
    Failure.NOT_SENT: (SEARCH, SEARCH, SEARCH, INSIST),
    Failure.UNDONE: (SEARCH, SEARCH, SEARCH, GIVE_UP),
    Failure.LOST: (SEARCH, SEARCH, INSIST, INSIST),
    Failure.UNKNOWN: (SEARCH, SEARCH, GIVE_UP, GIVE_UP),
}


@pytest.mark.parametrize("failure", Failure)
def test_what_follows_from_a_failure_is_as_the_table_says(failure: Failure) -> None:
    of_others, *of_leader = COURSES[failure]
    assert [course(failure, is_read=is_read, is_leader=False) for is_read in (True, False)] == [of_others] * 2
    assert of_leader == [
        course(failure, is_read=True, is_leader=True),
        course(failure, is_read=False, is_leader=True),
        course(failure, is_read=False, is_leader=True, is_insisting=True),
    ]


def test_once_a_change_may_be_done_it_is_never_tried_elsewhere_nor_said_to_be_undone() -> None:
    for failure in Failure:
        assert course(failure, is_read=False, is_leader=True, is_insisting=True) in (INSIST, GIVE_UP)
