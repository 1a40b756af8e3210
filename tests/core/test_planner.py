"""The planner: balance by weight, windows without repetitions, and as little movement as that allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from merganser.core.planner import Member, least_moves, moves, plan, planning, repetitions, shares


def of(zones: str, *, weight: float = 1.0, machines: str = "") -> list[Member]:
    """One member for each letter, numbered from 1, in the zone of that letter, on the machine of the other one."""
    return [
        Member(number, weight, zone, zone + machines[number - 1] if machines else "")
        for number, zone in enumerate(zones, start=1)
    ]


def moved(before: Sequence[int], after: Sequence[int]) -> int:
    return len(list(moves(before, after)))


weights = st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.5])
clusters = st.lists(
    st.builds(lambda zone, weight: (zone, weight), st.sampled_from("abcd"), weights), min_size=1, max_size=9
).map(lambda drawn: [Member(number, weight, zone) for number, (zone, weight) in enumerate(drawn, start=1)])
rings = st.integers(0, 6).flatmap(
    lambda exponent: st.lists(st.integers(0, 9), min_size=2**exponent, max_size=2**exponent)
)


@given(owners=rings, members=clusters)
@example([1] * 4, [Member(number, weight) for number, weight in enumerate((0.5, 3.5, 1, 1, 1, 2, 3.5, 3.5), start=1)])
def test_every_member_owns_its_share_by_weight_rounded_up_or_down(owners: list[int], members: list[Member]) -> None:
    owned = Counter(plan(owners, members))
    total = sum(member.weight for member in members)
    assert owned.total() == len(owners)
    for member in members:
        assert abs(owned[member.number] - len(owners) * member.weight / total) < 1


@given(owners=rings, members=clusters, data=st.data())
def test_order_of_members_does_not_matter(owners: list[int], members: list[Member], data: st.DataObject) -> None:
    assert plan(owners, data.draw(st.permutations(members))) == plan(owners, members)


@given(owners=rings, members=clusters)
def test_shares_keep_as_many_partitions_where_they_are_as_any_rounding_could(
    owners: list[int], members: list[Member]
) -> None:
    owned, given_shares = Counter(owners), shares(owners, members)
    total = sum(member.weight for member in members)
    floors = {member.number: int(len(owners) * member.weight / total) for member in members}
    kept = sum(min(owned[number], share) for number, share in given_shares.items())
    spare = len(owners) - sum(floors.values())
    best = sum(min(owned[number], floor) for number, floor in floors.items())
    may_keep_one_more = [
        member.number
        for member in members
        if len(owners) * member.weight % total and owned[member.number] > floors[member.number]
    ]
    assert kept == best + min(spare, len(may_keep_one_more))


@pytest.mark.parametrize("zones", ["aaa", "abc"])
@pytest.mark.parametrize("partitions", [32, 128])
def test_nodes_that_come_one_by_one_move_no_more_than_balance_needs(zones: str, partitions: int) -> None:
    owners = plan([0] * partitions, of(zones))
    for size in range(4, 13):
        members = of((zones * size)[:size])
        after = plan(owners, members)
        assert moved(owners, after) <= least_moves(owners, members) + 2  # what a seam may need
        assert repetitions(after, members)["node"] == 0
        owners = after


def test_nodes_that_go_one_by_one_leave_windows_without_repetitions() -> None:
    owners = plan([0] * 128, of("abcabcabc"))
    for gone in 9, 1, 5, 4, 2:
        members = [member for member in of("abcabcabc") if member.number in owners and member.number != gone]
        after = plan(owners, members)
        assert repetitions(after, members)["node"] == 0
        assert moved(owners, after) >= least_moves(owners, members)
        owners = after


def test_a_ring_that_is_hard_to_lay_out_is_planned_in_steps() -> None:
    owners = plan([1 + position % 3 for position in range(256)], of("aaaa"))
    left = [member for member in of("aaaa") if member.number != 2]
    steps, count = planning(owners, left), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            planned = end.value
            break
        count += 1
    assert count > 100
    assert planned == plan(owners, left)


def test_a_node_for_each_zone_takes_over_from_its_own_zone_alone() -> None:
    before, members = plan([0] * 64, of("abc")), of("abcabc")
    after = plan(before, members)
    zone_of = {member.number: member.zone for member in members}
    assert moved(before, after) == least_moves(before, members)
    assert all(zone_of[old] == zone_of[new] for _, old, new in moves(before, after))


def test_dead_node_is_replaced_by_another_without_any_other_move() -> None:
    before = plan([0] * 64, of("abcabc"))
    members = [*of("abcabc")[:5], Member(7, 1.0, "c")]
    after = plan(before, members)
    assert {(old, new) for _, old, new in moves(before, after)} == {(6, 7)}


def test_processes_of_one_machine_do_not_meet_within_a_window() -> None:
    members = of("aaaaaaaa", machines="uuvvwwxx")
    owners = plan([0] * 128, members)
    assert repetitions(owners, members)["machine"] == 0
    more = [*members, Member(9, 1.0, "a", "ay"), Member(10, 1.0, "a", "ay")]
    assert repetitions(plan(owners, more), more)["machine"] == 0


def test_zones_are_brought_apart_by_moves_only_if_that_is_asked_for() -> None:
    scrambled = plan(plan([0] * 96, of("abcab")), of("abcabc"))
    members = of("abcabc")
    assert repetitions(scrambled, members)["zone"] > 0
    assert plan(scrambled, members) == scrambled
    mended = plan(scrambled, members, moves_for_zones=True)
    assert repetitions(mended, members)["zone"] < repetitions(scrambled, members)["zone"]


def test_plan_that_changes_nothing_is_what_is_there() -> None:
    members = of("abcd")
    owners = plan([0] * 64, members)
    assert plan(owners, members) == owners


def test_fewer_partitions_than_members_leave_some_without() -> None:
    assert sorted(plan([0] * 2, of("abcd"))) == [1, 2]


@pytest.mark.parametrize(
    ("owners", "expected"),
    [((1, 1, 2, 3), {"zone": 2, "machine": 1, "node": 1}), ((1, 2, 3, 1), {"zone": 2, "machine": 1, "node": 1})],
)
def test_repetitions_are_counted_within_windows_around_the_ring(
    owners: tuple[int, ...], expected: dict[str, int]
) -> None:
    # two zones, so that a window of zones is two; (1, 1, 2, 3): pairs 1-1 and 2-3 share zones
    assert repetitions(owners, of("abb"), n=2) == expected
