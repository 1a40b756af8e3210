"""What a level comes to where replicas are counted by data centre."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import cluster_map as maps
from merganser.core import levels
from merganser.core.quorum import ReadQuorum, Verdict, WriteQuorum
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Move, NodeRecord, Pending
from merganser.model.consistency import Consistency, Need, Part, WriteLevel
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.policy import FIRST_POLICY, Policy

A, B, C, D, E = map(NodeId, "abcde")
EU, US = Part((A, B, C), 2), Part((D, E), 2)
ALL = (A, B, C, D, E)
P0 = PartitionId(0)


def ring_of(
    policy: Policy | None, *, pending: Pending | None = None, owners: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
) -> Ring:
    """Nodes "n1" to "n4" are in eu, "n5" to "n8" in us; who of them owns anything is in ``owners``."""
    nodes = [
        NodeRecord(
            NodeId(f"n{number}"), number, f"{number}:1", data_center="eu" if number <= 4 else "us", zone=f"z{number}"
        )
        for number in range(1, 9)
    ]
    cluster_map: ClusterMap = msgspec.structs.replace(
        maps.found(ClusterId("c" * 16), [msgspec.structs.replace(node, speaks=9) for node in nodes], 8),
        owners=tuple(owners[place % len(owners)] for place in range(8)),
        policies=() if policy is None else ((FIRST_POLICY, policy),),
        pending=pending,
    )
    return Ring(cluster_map)


def need_of(ring: Ring, level: WriteLevel, coordinator: str = "n1", rule: int = FIRST_POLICY) -> Need:
    return levels.to_write(level, ring.holders(P0, rule), ring=ring, rule=rule, coordinator=NodeId(coordinator))


EU_3_US_2 = Policy(5, replicas=(("eu", 3), ("us", 2)))


@pytest.mark.parametrize(
    ("level", "coordinator", "expected"),
    [
        (Consistency.LOCAL_ONE, "n1", {"eu": 1}),
        (Consistency.LOCAL_QUORUM, "n1", {"eu": 2}),
        (Consistency.LOCAL_QUORUM, "n6", {"us": 2}),
        (Consistency.EACH_QUORUM, "n8", {"eu": 2, "us": 2}),
    ],
)
def test_replicas_are_counted_in_the_data_center_of_who_was_asked_or_in_each(
    level: Consistency, coordinator: str, expected: dict[str, int]
) -> None:
    ring = ring_of(EU_3_US_2)
    need = need_of(ring, level, coordinator)
    assert {ring.data_centers[part.members[0]]: part.required for part in need.parts} == expected
    assert all(len({ring.data_centers[node] for node in part.members}) == 1 for part in need.parts)
    assert (need.nodes, need.primaries, need.is_strict) == (sum(expected.values()), sum(expected.values()), True)


def test_other_levels_count_all_replicas_alike() -> None:
    assert need_of(ring_of(EU_3_US_2), Consistency.QUORUM) == Need(3, 3)


def test_who_is_asked_is_who_counts() -> None:
    ring = ring_of(EU_3_US_2)
    holders = ring.holders(P0, FIRST_POLICY)
    local = levels.askable(holders, need_of(ring, Consistency.LOCAL_ONE))
    assert {ring.data_centers[node] for node in local} == {"eu"}
    assert levels.askable(holders, Need(1, 1)) == holders.members


@pytest.mark.parametrize(
    ("policy", "level", "coordinator", "message"),
    [
        (None, Consistency.LOCAL_QUORUM, "n1", "says no number for any: choose QUORUM"),
        (Policy(3, zones=("z1", "z5")), Consistency.EACH_QUORUM, "n1", "says no number for any"),
        (Policy(2, (("eu", 2),)), Consistency.LOCAL_QUORUM, "n5", "has none there, but in 'eu': ask a node there"),
        (Policy(2, (("eu", 2),)), Consistency.LOCAL_ONE, "n5", "data centre 'us', that of the node that was asked"),
        (EU_3_US_2, Consistency.EACH_QUORUM, "n1", "no node is left in 'us'"),
    ],
)
def test_a_level_that_the_table_cannot_give_is_refused(
    policy: Policy | None, level: Consistency, coordinator: str, message: str
) -> None:
    ring = ring_of(policy, owners=(1, 2, 3, 4) if "left" in message else (1, 2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match=message):
        need_of(ring, level, coordinator, rule=3 if policy is None else FIRST_POLICY)


def test_a_cluster_in_one_data_center_is_local_for_any_table() -> None:
    ring = ring_of(Policy(3, data_centers=("eu",)))
    assert need_of(ring, Consistency.LOCAL_QUORUM).nodes == 2


def test_two_local_quorums_meet_while_a_replica_moves() -> None:
    """The owner of partition 0 changes from n1 to n4: n4 is a newcomer, and three of the four have two of either."""
    ring = ring_of(Policy(3, (("eu", 3),)), pending=Pending((Move(P0, 4),)), owners=(1, 2, 3, 1, 2, 3, 1, 2))
    need = need_of(ring, Consistency.LOCAL_QUORUM)
    assert need.parts[0].required == 3
    assert set(need.parts[0].members) == {"n1", "n2", "n3", "n4"}


# Counting


def test_a_write_succeeds_with_enough_in_each_part() -> None:
    quorum = WriteQuorum(ALL, required=4, required_primaries=4, parts=(EU, US))
    assert [quorum.acked(node) for node in (A, B, C, D)] == [False] * 4
    assert quorum.acked(E)
    assert quorum.verdict is Verdict.SUCCEEDED


def test_acks_from_elsewhere_count_for_nothing() -> None:
    quorum = WriteQuorum(ALL, required=2, required_primaries=2, parts=(EU,))
    assert not any([quorum.acked(D), quorum.acked(E), quorum.acked(A)])
    assert quorum.acked(C)


def test_a_write_is_hopeless_once_a_part_cannot_be_met() -> None:
    quorum = WriteQuorum(ALL, required=4, required_primaries=4, parts=(EU, US))
    assert not quorum.failed(A)
    assert quorum.failed(D)
    assert quorum.verdict is Verdict.HOPELESS
    assert WriteQuorum(ALL, required=3, parts=(Part((D, E), 3),)).verdict is Verdict.HOPELESS


def test_a_hint_in_another_part_does_not_stand_for_a_replica() -> None:
    quorum = WriteQuorum(ALL, required=2, required_primaries=2, parts=(EU,))
    quorum.enlist(D)
    assert not quorum.hinted(D)
    assert not quorum.acked(A)
    assert quorum.verdict is Verdict.OPEN


def test_a_read_asks_enough_of_each_part_and_another_of_the_same_when_one_fails() -> None:
    quorum: ReadQuorum[int] = ReadQuorum(ALL, required=4, parts=(EU, US))
    assert quorum.first() == (A, B, D, E)
    assert quorum.failed(A) == C
    assert [quorum.answered(node, 0) for node in (B, D, E)] == [False] * 3
    assert quorum.answered(C, 0)


def test_a_read_is_hopeless_once_a_part_cannot_be_met() -> None:
    quorum: ReadQuorum[int] = ReadQuorum(ALL, required=4, parts=(EU, US))
    assert quorum.failed(D) is None
    assert quorum.verdict is Verdict.HOPELESS


def test_a_read_is_hedged_in_the_part_that_lacks_replies() -> None:
    quorum: ReadQuorum[int] = ReadQuorum((*ALL, NodeId("f")), required=3, parts=(EU, Part((D, E, NodeId("f")), 1)))
    assert [quorum.answered(A, 0), quorum.answered(B, 0)] == [False, False]
    assert quorum.hedge() == E


@given(st.permutations(ALL), st.sets(st.sampled_from(ALL)))
def test_the_verdict_of_each_is_what_its_parts_say(order: list[NodeId], failing: set[NodeId]) -> None:
    write = WriteQuorum(ALL, required=4, required_primaries=4, parts=(EU, US))
    read: ReadQuorum[int] = ReadQuorum(ALL, required=4, parts=(EU, US))
    for node in order:
        if node in failing:
            write.failed(node)
        else:
            write.acked(node)
    waiting = list(read.waiting_for())
    while waiting:
        node = waiting.pop(0)
        if node in failing:
            asked = read.failed(node)
            waiting += [] if asked is None else [asked]
        else:
            read.answered(node, 0)
    is_possible = all(sum(node not in failing for node in part.members) >= part.required for part in (EU, US))
    expected = Verdict.SUCCEEDED if is_possible else Verdict.HOPELESS
    assert (write.verdict, read.verdict) == (expected, expected)
