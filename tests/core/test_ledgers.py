"""Where the record of a transaction is, and where it may be from before the policy of a table changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_policies import cluster_of, with_table
from core.test_policy_changes import begun, named, steps
from merganser.core import ledgers
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RequestError
from merganser.model.policy import FIRST_POLICY, Policy

SIX = cluster_of("eu/a", "eu/b", "eu/c", "us/a", "us/b", "us/c")
ANYWHERE, FEW = Policy(3), Policy(2)
EU, EU_A = Policy(3, replicas=(("eu", 3),)), Policy(1, replicas=(("eu", 1),), zones=("a",))
BOTH = Policy(5, replicas=(("eu", 3), ("us", 2)))


def changed(current: ClusterMap, policy: Policy, *, name: str = "users") -> ClusterMap:
    return [*steps(begun(current, policy, name=name))][-1]


def former(current: ClusterMap, *names: str) -> list[int]:
    return ledgers.former_numbers(current, [named(current, name) for name in names])


def number(current: ClusterMap, *names: str) -> int:
    return ledgers.number_for(current, [named(current, name) for name in names])


def test_a_table_whose_policy_never_changed_has_no_former_ledgers() -> None:
    for policy in (ANYWHERE, EU):
        assert former(with_table(SIX, policy), "users") == []


def test_a_table_that_gets_places_had_its_records_in_the_ledger_without_a_policy() -> None:
    after = changed(with_table(SIX, ANYWHERE), EU)
    assert (number(after, "users"), former(after, "users")) == (FIRST_POLICY, [0])


def test_a_table_that_shared_its_number_had_its_records_in_the_ledger_of_that() -> None:
    shared = with_table(with_table(SIX, BOTH), BOTH, "others")
    after = changed(shared, EU)
    assert (number(after, "users"), former(after, "users")) == (FIRST_POLICY + 1, [FIRST_POLICY])
    assert former(after, "others") == []


def test_a_ledger_that_goes_along_with_its_table_is_no_former_one() -> None:
    after = changed(with_table(SIX, BOTH), EU)
    assert (number(after, "users"), former(after, "users")) == (FIRST_POLICY, [])


def test_the_record_of_two_tables_moves_when_the_other_one_becomes_the_stricter() -> None:
    after = changed(with_table(with_table(SIX, BOTH), EU, "others"), EU_A)
    assert number(after, "users", "others") == FIRST_POLICY
    assert former(after, "users", "others") == [FIRST_POLICY + 1]


def test_a_table_that_is_back_where_it_was_has_been_elsewhere_meanwhile() -> None:
    after = changed(changed(with_table(SIX, ANYWHERE), EU), FEW)
    assert (number(after, "users"), former(after, "users")) == (0, [FIRST_POLICY])


def test_indexes_and_tables_of_others_remember_nothing() -> None:
    after = changed(with_table(with_table(SIX, BOTH, indexes=("by-name",)), EU, "others"), EU)
    assert [table.name for table in after.tables if table.formerly] == ["users"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["users", "others"]), st.sampled_from([ANYWHERE, FEW, EU, EU_A, BOTH])), max_size=5
    )
)
def test_wherever_a_record_was_by_any_map_is_known_by_all_later_ones(changes: list[tuple[str, Policy]]) -> None:
    current = with_table(with_table(SIX, ANYWHERE), BOTH, "others")
    seen = [current]
    for name, policy in changes:
        if current.policy_of(named(current, name)) != policy:
            seen += steps(begun(current, policy, name=name))
            current = seen[-1]
    for names in (("users",), ("others",), ("users", "others")):
        had = set[int]()
        for one in seen:
            had.add(number(one, *names))
            assert had <= {number(one, *names), *former(one, *names)}


def test_what_is_remembered_is_forgotten_unless_more_has_come_to_it() -> None:
    once = changed(with_table(SIX, ANYWHERE), EU)
    known = ledgers.remembered(once)
    assert former(ledgers.forgotten(once, known), "users") == []
    twice = changed(once, BOTH)
    assert ledgers.forgotten(twice, known) is twice


def test_a_table_with_too_many_former_ledgers_gets_no_other_policy() -> None:
    current, count = with_table(SIX, ANYWHERE), 0
    while len(named(current, "users").formerly) < ledgers.FORMER_MAX:
        policy = (EU, BOTH)[count % 2]
        current = with_table(changed(current, policy), policy, f"sharer-{count}")
        count += 1
    with pytest.raises(RequestError, match="very often lately"):
        begun(current, ANYWHERE)


def test_tables_are_taken_as_the_newest_map_has_them() -> None:
    before = with_table(SIX, ANYWHERE)
    after = changed(before, EU)
    assert ledgers.newest_of(after, before.tables) == list(after.tables)
    assert ledgers.newest_of(SIX, before.tables) == list(before.tables)
