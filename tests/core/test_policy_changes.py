"""A table gets another policy: one map after another, and who holds what on the way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_policies import cluster_of, last_table, with_table
from merganser.core import cluster_map, levels, operation_checks, policies, policy_changes, reshaping
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Consistency
from merganser.model.errors import RequestError, UnavailableError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId
from merganser.model.policy import FIRST_POLICY, Policy
from merganser.model.versions import POLICIES_SINCE

SIX = cluster_of("eu/a", "eu/b", "eu/c", "us/a", "us/b", "us/c")
EU = Policy(3, replicas=(("eu", 3),))
US = Policy(3, replicas=(("us", 3),))
BOTH = Policy(5, replicas=(("eu", 3), ("us", 2)))


def begun(current: ClusterMap, policy: Policy, *, name: str = "users") -> ClusterMap:
    table = operation_checks.table_named(current, name)
    plan = reshaping.planned_policy(current, table.id, policy, operation_id="op", now_us=1)
    return reshaping.begun(current, plan.operation, plan.weights)


def steps(current: ClusterMap) -> Iterator[ClusterMap]:
    """Drive the operation of ``current`` to its end, as if every step were ready at once."""
    while current.operation is not None:
        if current.pending is not None:
            current = reshaping.flipped(current, current.placed)
        elif current.settling:
            current = reshaping.after_settling(current, current.placed)
        elif policy_changes.is_fork_due(current):
            current = policy_changes.forked(current)
        elif (pending := reshaping.next_pending(current)) is not None:
            current = reshaping.with_pending(current, pending)
        else:
            current = reshaping.ended(current)
        yield current


def until_pending(current: ClusterMap) -> ClusterMap:
    return next(step for step in steps(current) if step.pending is not None)


def named(current: ClusterMap, name: str) -> Table:
    return operation_checks.table_named(current, name)


def holders(current: ClusterMap, table: Table) -> list[Holders]:
    ring = Ring(current)
    return [ring.holders(PartitionId(partition), table.rule) for partition in range(current.partitions)]


def test_a_number_of_replicas_that_all_tables_have_is_forked_and_changed_for_one() -> None:
    before = with_table(with_table(SIX, Policy(3)), Policy(3), "orders", indexes=("by-name",))
    maps = list(steps(begun(before, BOTH, name="orders")))
    forked = maps[0]
    assert [table.rule for table in forked.tables] == [3, FIRST_POLICY, FIRST_POLICY]
    assert [held.serving for held in holders(forked, named(forked, "orders"))] == [
        held.serving for held in holders(before, named(before, "orders"))
    ]
    after = maps[-1]
    assert after.policy_of(named(after, "orders")) == BOTH
    assert [table.n for table in after.tables] == [3, 5, 5]
    assert after.policy_of(named(after, "users")) == Policy(3)
    assert after.operation is None
    cluster_map.check(after)


def test_who_has_a_policy_alone_keeps_its_number() -> None:
    before = with_table(SIX, EU)
    after = list(steps(begun(before, BOTH)))[-1]
    assert last_table(after).policy == FIRST_POLICY
    assert dict(after.policies) == {FIRST_POLICY: BOTH}


def test_what_has_the_policy_of_another_keeps_it() -> None:
    before = with_table(with_table(SIX, EU), EU, "orders")
    after = list(steps(begun(before, US)))[-1]
    assert after.policy_of(named(after, "users")) == US
    assert after.policy_of(named(after, "orders")) == EU
    assert named(after, "orders").policy == FIRST_POLICY


@pytest.mark.parametrize("policy", [EU, BOTH])
def test_a_table_that_is_made_meanwhile_takes_no_part(policy: Policy) -> None:
    pending = until_pending(begun(with_table(SIX, EU), BOTH))
    for current in pending, reshaping.flipped(pending, pending.placed):
        grown = with_table(current, policy, "orders")
        assert named(grown, "orders").policy not in (0, named(grown, "users").policy)
        assert grown.policy_of(named(grown, "orders")) == policy
        assert list(steps(grown))[-1].policy_of(named(grown, "orders")) == policy


@given(data=st.data())
@settings(max_examples=25)
def test_every_map_on_the_way_is_sound_and_quorums_of_neighbours_meet(data: st.DataObject) -> None:
    draw = data.draw
    first, second = (draw(policy_of_six()) for _ in range(2))
    if first == second:
        return
    before = with_table(SIX, first)
    start = begun(before, second)
    for one, other in pairwise([before, start, *steps(start)]):
        cluster_map.check(other)
        assert other.epoch == one.epoch + 1
        for was, held in zip(holders(one, last_table(one)), holders(other, last_table(other)), strict=True):
            if one.placed != other.placed:
                assert all(a & b for a in quorums(was) for b in quorums(held))
    assert other.policy_of(last_table(other)) == second


def quorums(held: Holders) -> list[set[NodeId]]:
    return [set(some) for some in combinations(held.members, held.quorum)]


@st.composite
def policy_of_six(draw: st.DrawFn) -> Policy:
    zones = tuple(sorted(draw(st.sets(st.sampled_from("abc"), min_size=1))))
    zones = () if len(zones) == 3 else zones
    counts = draw(st.dictionaries(st.sampled_from(("eu", "us")), st.integers(1, 3), max_size=2))
    if not counts:
        return Policy(draw(st.integers(1, 5)), zones=zones)
    return Policy(sum(counts.values()), replicas=tuple(sorted(counts.items())), zones=zones)


def test_nobody_is_a_fallback_that_either_policy_forbids() -> None:
    pending = until_pending(begun(with_table(SIX, Policy(2)), Policy(2, zones=("a", "b"))))
    ring, table = Ring(pending), last_table(pending)
    zones = {node.id: node.zone for node in pending.nodes}
    for partition in map(PartitionId, range(pending.partitions)):
        assert "c" not in {zones[node] for node in ring.fallbacks(partition, table.rule)}
    assert [node.zone for node in pending.nodes if ring.allows(node, table.rule)] == ["a", "b", "a", "b"]


def test_cancelled_before_it_is_flipped_it_is_what_it_was() -> None:
    pending = until_pending(begun(with_table(SIX, EU), BOTH))
    cancelled = reshaping.cancelled(pending, "op")
    assert cancelled.policy_of(last_table(cancelled)) == EU
    assert all(not held.extra for held in holders(cancelled, last_table(cancelled)))


def test_a_table_that_is_dropped_meanwhile_ends_it() -> None:
    pending = until_pending(begun(with_table(SIX, EU), BOTH))
    gone = cluster_map.without_table(pending, wire="dynamodb", name="users", unique_id="the users")
    assert list(steps(gone))[-1].operation is None


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (EU, "table users keeps eu=3 already"),
        (Policy(3, replicas=(("asia", 3),)), "no node that owns anything is in data centre 'asia'"),
        (Policy(3, zones=("d",)), "no node that owns anything is in zone 'd'"),
    ],
)
def test_what_makes_no_sense_is_refused(wanted: Policy, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        begun(with_table(SIX, EU), wanted)


def test_all_members_have_to_know_of_policies() -> None:
    old = msgspec.structs.replace(with_table(SIX, Policy(3)), version=POLICIES_SINCE - 1)
    with pytest.raises(UnavailableError, match="changes of policies need version"):
        begun(old, Policy(2))


def test_a_node_that_is_away_and_too_few_nodes_are_objections() -> None:
    before = with_table(SIX, EU)
    plan = reshaping.planned_policy(
        before, last_table(before).id, Policy(5, replicas=(("us", 5),)), operation_id="op", now_us=1
    )
    alive = {node.id for node in before.nodes} - {"n5"}
    told = operation_checks.judged(before, plan, alive).objections
    assert told == (
        "node 5 (10.0.0.5:7700) is away, and has to take part: start it first",
        "5 replicas of each key are wanted in data centre 'us', and 3 nodes can hold them: have others join",
    )


def test_forks_are_found_between_any_two_maps() -> None:
    before = with_table(with_table(SIX, Policy(3)), Policy(3), "orders")
    after = list(steps(begun(before, BOTH, name="orders")))[-1]
    assert policy_changes.forks(before, after) == [(FIRST_POLICY, 3)]
    assert policy_changes.forks(after, after) == []


def test_what_leaves_a_data_centre_is_written_to_where_it_goes_at_local_levels() -> None:
    pending = until_pending(begun(with_table(SIX, EU), US))
    ring, table = Ring(pending), last_table(pending)
    held = ring.holders(PartitionId(0), table.rule)
    near = held.serving[0]
    written = levels.to_write(Consistency.LOCAL_QUORUM, held, ring=ring, rule=table.rule, coordinator=near)
    assert [(set(part.members), part.required) for part in written.parts] == [
        (set(held.serving), 2),
        (set(held.next), 2),
    ]
    read = levels.to_read(Consistency.LOCAL_QUORUM, held, ring=ring, rule=table.rule, coordinator=near)
    assert [(set(part.members), part.required) for part in read.parts] == [(set(held.serving), 2)]
    with pytest.raises(ValueError, match="has none there"):
        levels.to_write(Consistency.LOCAL_ONE, held, ring=ring, rule=table.rule, coordinator=held.next[0])


def test_each_quorum_counts_the_data_centre_that_is_to_come() -> None:
    pending = until_pending(begun(with_table(SIX, EU), BOTH))
    ring, table = Ring(pending), last_table(pending)
    held = ring.holders(PartitionId(0), table.rule)
    written = levels.to_write(Consistency.EACH_QUORUM, held, ring=ring, rule=table.rule, coordinator=held.serving[0])
    assert [(set(part.members), part.required) for part in written.parts] == [
        (set(held.serving), 2),
        (set(held.newcomers), 2),
    ]
    read = levels.to_read(Consistency.EACH_QUORUM, held, ring=ring, rule=table.rule, coordinator=held.serving[0])
    assert [part.required for part in read.parts] == [2]


@pytest.mark.parametrize(("before", "after", "needed"), [(5, 3, 4), (3, 5, 4), (3, 4, 3), (2, 1, 2), (1, 3, 3)])
def test_a_quorum_has_as_few_as_meet_both_numbers_of_replicas(before: int, after: int, needed: int) -> None:
    pending = until_pending(begun(with_table(SIX, Policy(before)), Policy(after)))
    ring, table = Ring(pending), last_table(pending)
    for held in holders(pending, table):
        need = levels.to_write(Consistency.QUORUM, held, ring=ring, rule=table.rule, coordinator=held.serving[0])
        assert need.primaries == held.quorum == needed


@pytest.mark.parametrize(
    ("policy", "said", "wanted"),
    [
        (BOTH, {"zones": "a b"}, Policy(5, replicas=(("eu", 3), ("us", 2)), zones=("a", "b"))),
        (BOTH, {"replicas": "2"}, Policy(2)),
        (BOTH, {"data_centers": "eu us"}, Policy(5, data_centers=("eu", "us"))),
        (Policy(4, data_centers=("eu", "us"), zones=("a",)), {"replicas": "eu=1"}, Policy(1, (("eu", 1),), (), ("a",))),
        (Policy(4, zones=("a",)), {"zones": ""}, Policy(4)),
    ],
)
def test_what_is_not_said_of_a_policy_stays(policy: Policy, said: dict[str, str], wanted: Policy) -> None:
    assert policies.rewritten(policy, **said) == wanted
    assert policies.rewritten(policy, **policies.written(policy)) == policy
