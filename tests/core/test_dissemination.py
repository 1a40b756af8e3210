"""News on packets: the least sent goes first, each goes so often, the newest of a member only."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.dissemination import RETRANSMISSIONS, Dissemination, sends_max
from merganser.model.gossip import Claim, State
from merganser.model.ids import NodeId

ROOM = 1_000


def claim(name: str, incarnation: int = 0) -> Claim:
    return Claim(NodeId(name), State.SUSPECT, incarnation)


def size(one: Claim) -> int:
    return len(msgspec.msgpack.encode(one))


def test_a_claim_is_sent_so_often_and_then_forgotten() -> None:
    news = Dissemination()
    news.add(claim("ann"))
    assert [news.take(ROOM, sends_max=3) for _ in range(4)] == [[claim("ann")]] * 3 + [[]]
    assert len(news) == 0


def test_the_least_sent_goes_first() -> None:
    news = Dissemination()
    room = size(claim("ann"))
    for name in ("ann", "ben", "eve"):
        news.add(claim(name))
    taken = [one.node for _ in range(6) for one in news.take(room, sends_max=9)]
    assert taken == ["ann", "ben", "eve"] * 2


def test_a_newer_claim_takes_the_place_of_the_older_and_begins_anew() -> None:
    news = Dissemination()
    news.add(claim("ann"))
    news.take(ROOM, sends_max=2)
    news.add(claim("ann", 1))
    assert [news.take(ROOM, sends_max=2) for _ in range(3)] == [[claim("ann", 1)]] * 2 + [[]]


def test_nothing_more_is_said_of_a_member_that_is_gone() -> None:
    news = Dissemination()
    news.add(claim("ann"))
    news.discard(NodeId("ann"))
    news.discard(NodeId("ben"))
    assert news.take(ROOM, sends_max=9) == []


@pytest.mark.parametrize(("members", "times"), [(1, 1), (9, 1), (10, 2), (99, 2), (100, 3), (1_000, 4)])
def test_larger_clusters_repeat_more_often(members: int, times: int) -> None:
    assert sends_max(members) == times * RETRANSMISSIONS


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 300)), max_size=30), st.integers(0, 60))
def test_whatever_is_added_each_packet_has_room_and_no_claim_goes_too_often(
    added: list[tuple[str, int]], room: int
) -> None:
    news = Dissemination()
    taken: Counter[Claim] = Counter()
    for name, incarnation in added:
        news.add(claim(name, incarnation))
        fitting = news.take(room, sends_max=3)
        assert sum(map(size, fitting)) <= room
        assert len({one.node for one in fitting}) == len(fitting)
        taken.update(fitting)
    while (left := len(news)) and room >= 10:
        taken.update(news.take(room, sends_max=3))
        assert len(news) <= left
    repeated = {(name, incarnation): added.count((name, incarnation)) for name, incarnation in added}
    assert all(times <= 3 * repeated[str(one.node), one.incarnation] for one, times in taken.items())
