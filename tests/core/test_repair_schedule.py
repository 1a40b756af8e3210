"""Which replicas compare which partition next, and who begins."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.repair_schedule import RETRY_S, Pair, RepairSchedule, begins_with
from merganser.model.ids import NodeId, PartitionId, TableId

A, B, C, D = map(NodeId, "ABCD")
T, U = TableId(1), TableId(2)


def pair(partition: int, peer: NodeId = B, table: TableId = T) -> Pair:
    return table, PartitionId(partition), peer


def planned(*pairs: Pair, interval_s: float = 100.0) -> RepairSchedule:
    schedule = RepairSchedule(interval_s)
    schedule.keep(pairs, now_s=0.0, share=lambda: 0.0)
    return schedule


def test_of_each_two_replicas_exactly_one_begins() -> None:
    replicas = (C, A, B)
    begun = [frozenset((node, peer)) for node in replicas for peer in begins_with(node, replicas)]
    assert sorted(map(sorted, begun)) == sorted(map(sorted, combinations(replicas, 2)))
    assert begins_with(D, replicas) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_new_comparisons_are_spread_over_one_interval_and_all_come_due_within_it(shares: list[float]) -> None:
    schedule, left = RepairSchedule(100.0), list(shares)
    schedule.keep((pair(number) for number in range(len(shares))), now_s=7.0, share=left.pop)
    seen = set()
    while (next_s := schedule.next_s) is not None and next_s <= 107.0:
        due = schedule.due(next_s)
        assert due is not None
        seen.add(due)
        schedule.completed(due, began_s=107.1, now_s=107.1, share=0.0)
    assert len(seen) == len(shares)


@given(st.floats(0, 1), st.floats(0, 50))
def test_a_completed_comparison_is_due_again_within_an_interval_of_its_beginning(share: float, took_s: float) -> None:
    schedule = planned(pair(1))
    schedule.completed(pair(1), began_s=10.0, now_s=10.0 + took_s, share=share)
    assert schedule.next_s is not None
    assert 90.0 <= schedule.next_s <= 110.0
    assert schedule.due(schedule.next_s - 0.001) is None
    assert schedule.due(schedule.next_s) == pair(1)


def test_a_failed_comparison_is_tried_again_soon_then_less_soon_but_twice_an_interval() -> None:
    schedule = planned(pair(1), interval_s=60.0)
    waits, now_s = [], 0.0
    for _ in range(6):
        schedule.failed(pair(1), now_s=now_s)
        assert schedule.next_s is not None
        waits.append(schedule.next_s - now_s)
        now_s = schedule.next_s
    assert waits == [RETRY_S, 10.0, 20.0, 30.0, 30.0, 30.0]
    schedule.completed(pair(1), began_s=now_s, now_s=now_s, share=1.0)
    schedule.failed(pair(1), now_s=now_s)
    assert schedule.next_s == now_s + RETRY_S


def test_what_waits_longest_comes_first() -> None:
    schedule = RepairSchedule(100.0)
    shares = iter([0.5, 0.1, 0.9])
    schedule.keep([pair(0), pair(1), pair(2)], now_s=0.0, share=lambda: next(shares))
    assert schedule.due(60.0) == pair(1)
    schedule.failed(pair(1), now_s=60.0)
    assert schedule.due(60.0) == pair(0)


def test_what_is_gone_is_not_planned_any_more_and_what_stays_keeps_its_time() -> None:
    schedule = planned(pair(0), pair(1))
    schedule.completed(pair(1), began_s=0.0, now_s=5.0, share=0.0)
    schedule.keep([pair(1), pair(0, table=U)], now_s=50.0, share=lambda: 0.2)
    assert schedule.due(69.9) is None
    assert schedule.due(70.0) == pair(0, table=U)
    schedule.failed(pair(0), now_s=50.0)
    schedule.completed(pair(0), began_s=50.0, now_s=50.0, share=0.0)
    schedule.keep([pair(1)], now_s=50.0, share=lambda: 0.2)
    assert schedule.due(79.9) is None
    assert schedule.due(80.0) == pair(1)
    schedule.keep([], now_s=50.0, share=lambda: 0.2)
    assert schedule.next_s is None
    assert schedule.due(1e9) is None


def test_it_tells_when_the_oldest_of_a_table_was_completed() -> None:
    schedule = planned(pair(0), pair(1), pair(0, table=U))
    assert schedule.oldest_s(T) is None
    schedule.completed(pair(0), began_s=1.0, now_s=2.0, share=0.0)
    assert schedule.oldest_s(T) is None
    schedule.completed(pair(1), began_s=3.0, now_s=4.0, share=0.0)
    schedule.failed(pair(0), now_s=9.0)
    assert schedule.oldest_s(T) == 2.0
    assert schedule.oldest_s(U) is None
    assert schedule.oldest_s(TableId(9)) is None
