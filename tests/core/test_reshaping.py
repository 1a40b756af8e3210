"""Operations from their plan to their end, one map after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.core import cluster_map, policy_changes, reshaping
from merganser.model.cluster import ClusterMap, Move, NodeRecord, Pending
from merganser.model.errors import RequestError, UnavailableError, VersionError
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.versions import NEWEST

NOW_US = 1_700_000_000_000_000


def record(name: str, zone: str = "") -> NodeRecord:
    return NodeRecord(NodeId(name), 0, f"{name}:7700", {}, zone, speaks=NEWEST)


def founded(nodes: int, partitions: int = 64, zones: str = "") -> ClusterMap:
    records = [record(f"n{i}", zones[i : i + 1]) for i in range(nodes)]
    return cluster_map.found(ClusterId("c" * 16), records, partitions)


def grown(current: ClusterMap, *names: str) -> ClusterMap:
    for name in names:
        current = reshaping.with_member(current, record(name))
    return current


def steps(current: ClusterMap) -> Iterator[ClusterMap]:
    """Drive the operation of ``current`` to its end; every step is there at once."""
    while current.operation is not None:
        if current.pending is not None:
            current = reshaping.flipped(current, current.placed)
        elif current.settling:
            current = reshaping.after_settling(current, current.placed)
        elif policy_changes.is_fork_due(current):
            current = policy_changes.forked(current)
        elif (pending := reshaping.next_pending(current)) is not None:
            current = reshaping.with_pending(current, pending)
        elif (others := reshaping.with_other_voters(current)) is not current:
            current = others
        else:
            current = reshaping.ended(current)
        yield current


def begin(current: ClusterMap, plan: reshaping.Plan) -> ClusterMap:
    return reshaping.begun(current, plan.operation, plan.weights)


def planned(current: ClusterMap, kind: str, **of: object) -> reshaping.Plan:
    return reshaping.planned(current, kind, operation_id="op", now_us=NOW_US, **of)  # type: ignore[arg-type]


def done(current: ClusterMap) -> ClusterMap:
    *_, last = steps(current)
    return last


@settings(max_examples=40)
@given(nodes=st.integers(1, 7), joining=st.integers(0, 3), data=st.data())
def test_every_map_on_the_way_is_sound_and_the_end_is_what_was_planned(
    nodes: int, joining: int, data: st.DataObject
) -> None:
    current = grown(founded(nodes, 16), *(f"new{i}" for i in range(joining)))
    names = [node.id for node in current.nodes]
    weights = {name: data.draw(st.sampled_from((0.0, 0.5, 1.0, 3.0))) for name in names}
    weights[names[-1]] = 1.0
    gone = data.draw(st.sets(st.sampled_from(names[:-1]), max_size=2)) if len(names) > 1 else set()
    kept = {name: weight for name, weight in weights.items() if name not in gone}
    plan = planned(current, "leave" if gone else "weights", weights=kept, gone=sorted(gone))
    maps = [begin(current, plan)]
    maps += steps(maps[0])
    for before, after in pairwise(maps):
        cluster_map.check(after)
        assert after.epoch == before.epoch + 1
        moved = (before.owners, before.pending) != (after.owners, after.pending)
        assert after.placed == (after.epoch if moved else before.placed)
        for one in combinations(before.voters, len(before.voters) // 2 + 1):
            for other in combinations(after.voters, len(after.voters) // 2 + 1):
                assert set(one) & set(other)
    last = maps[-1]
    assert last.owners == plan.operation.owners
    assert {node.id for node in last.nodes} == set(names) - gone
    assert (last.pending, last.settling, last.operation) == (None, (), None)
    assert len(last.voters) == min(5, len(last.nodes) - (len(last.nodes) + 1) % 2)


def test_a_node_that_joins_owns_nothing_until_it_is_given_its_share() -> None:
    current = grown(founded(3), "new")
    assert 4 not in current.owners
    last = done(begin(current, planned(current, "join", weights={"new": 1.0})))
    assert Counter(last.owners) == {1: 16, 2: 16, 3: 16, 4: 16}
    assert sum(one != other for one, other in zip(current.owners, last.owners, strict=True)) == 16


def test_a_number_is_never_given_twice() -> None:
    current = grown(founded(2), "third")
    current = done(begin(current, planned(current, "leave", gone=["third"])))
    assert [node.number for node in grown(current, "fourth").nodes] == [1, 2, 4]


def test_a_successor_gets_just_what_the_lost_one_owned() -> None:
    current = grown(founded(3), "new")
    last = done(begin(current, planned(current, "replace", gone=["n1"], successor="new")))
    assert last.owners == tuple(4 if owner == 2 else owner for owner in current.owners)
    assert [node.id for node in last.nodes] == ["n0", "n2", "new"]
    assert next(node.weight for node in last.nodes if node.id == "new") == 1.0


def test_zones_change_one_node_at_a_time() -> None:
    current = founded(6, 32, "aabbcc")
    begun = begin(current, planned(current, "zones", zones={"n0": "b", "n2": "a"}))
    changes = [step.pending.zones for step in steps(begun) if step.pending is not None and step.pending.zones]
    assert [len(zones) for zones in changes] == [1, 1]
    assert {node.id: node.zone for node in done(begun).nodes}[NodeId("n0")] == "b"


def test_one_operation_at_a_time_and_each_only_once() -> None:
    current = grown(founded(3), "new")
    plan = planned(current, "join", weights={"new": 1.0})
    begun = begin(current, plan)
    assert begin(begun, plan) is begun
    other = msgspec.structs.replace(plan.operation, id="other")
    with pytest.raises(RequestError, match="another operation is under way: join new"):
        reshaping.begun(begun, other, {})


def test_what_is_cancelled_stays_as_far_as_it_has_come() -> None:
    current = grown(founded(3), "new")
    begun = begin(current, planned(current, "join", weights={"new": 1.0}))
    half = reshaping.with_pending(begun, Pending((Move(PartitionId(0), 4),)))
    half = reshaping.flipped(half, half.placed)
    half = reshaping.after_settling(half, half.placed)
    pending = reshaping.next_pending(half)
    assert pending is not None
    left = reshaping.cancelled(reshaping.with_pending(half, pending), "op")
    cluster_map.check(left)
    assert (left.pending, left.operation, left.owners.count(4)) == (None, None, 1)
    assert reshaping.cancelled(left, "op") is left


def test_who_owns_nothing_yet_when_it_is_cancelled_gets_nothing_unasked() -> None:
    current = grown(founded(3), "new", "other")
    begun = begin(current, planned(current, "join", weights={"new": 1.0, "other": 2.0}))
    half = reshaping.with_pending(begun, Pending((Move(PartitionId(0), 4),)))
    half = reshaping.flipped(half, half.placed)
    left = reshaping.cancelled(half, "op")
    assert [node.weight for node in left.nodes] == [1.0, 1.0, 1.0, 1.0, 0.0]
    left = reshaping.cancelled(begun, "op")
    assert [node.weight for node in left.nodes] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert not {4, 5} & set(planned(left, "rebalance").operation.owners)
    replacing = begin(current, planned(current, "replace", gone=["n1"], successor="new"))
    assert [node.weight for node in reshaping.cancelled(replacing, "op").nodes] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_weight_of_before_stays_when_something_else_is_cancelled() -> None:
    current = founded(3, 4)
    nodes = (*current.nodes[:2], msgspec.structs.replace(current.nodes[2], weight=0.1))
    light = msgspec.structs.replace(current, nodes=nodes, owners=(1, 2, 1, 2))
    plan = planned(light, "rebalance")
    finer = reshaping.begun(light, msgspec.structs.replace(plan.operation, owners=(1, 2, 3, 1)), plan.weights)
    assert reshaping.cancelled(finer, "op").nodes == light.nodes


def test_a_step_is_flipped_only_for_the_placement_it_was_found_ready_for() -> None:
    current = grown(founded(3), "new")
    begun = begin(current, planned(current, "join", weights={"new": 1.0}))
    first = reshaping.next_pending(begun)
    assert first is not None
    pending = reshaping.with_pending(begun, first)
    assert reshaping.flipped(pending, pending.placed - 1) is pending
    assert reshaping.given_up(pending, pending.placed - 1) is pending
    assert reshaping.given_up(pending, pending.placed).pending is None
    assert reshaping.with_pending(pending, Pending()) is pending


def test_steps_are_some_partitions_apart_and_bounded() -> None:
    current = grown(founded(2, 256), "third", "fourth")
    begun = begin(current, planned(current, "join", weights={"third": 1.0, "fourth": 1.0}))
    for step in steps(begun):
        moves = [] if step.pending is None else [move.partition for move in step.pending.moves]
        assert len(moves) <= reshaping.MOVES_AT_ONCE
        assert all(later - earlier >= 3 for earlier, later in pairwise(moves))


@pytest.mark.parametrize(
    ("kind", "of", "told"),
    [
        ("leave", {"gone": ["n9"]}, "node n9 is no member of this cluster; there are n0, n1, n2"),
        ("leave", {"gone": ["n0", "n1", "n2"]}, "no node would be left to own anything"),
        ("weights", {"weights": {"n0": -1.0}}, "the weight of node n0 must be 0 to 1,000,000, not -1.0"),
        ("weights", {"weights": {"n0": float("nan")}}, "the weight of node n0 must be"),
        ("replace", {"gone": ["n0"], "successor": "n1"}, "node n1 owns partitions already"),
        ("zones", {"zones": {"n0": ""}}, "these nodes are in these zones already"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, of: dict[str, object], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        planned(founded(3), kind, **of)


def test_an_address_belongs_to_one_member() -> None:
    current = founded(3)
    assert reshaping.with_member(current, current.nodes[0]) is current
    with pytest.raises(RequestError, match="node n0 is a member at n0:7700 already"):
        reshaping.with_member(current, msgspec.structs.replace(record("other"), peer_address="n0:7700"))


def test_an_operation_planned_for_other_members_is_refused() -> None:
    current = grown(founded(3), "new")
    plan = planned(current, "join", weights={"new": 1.0})
    with pytest.raises(RequestError, match="plan it again"):
        begin(founded(3), plan)


def test_neither_newcomers_nor_moves_before_all_members_know_of_them() -> None:
    current = msgspec.structs.replace(founded(3), version=2)
    with pytest.raises(UnavailableError, match="new members need version 3 on every node"):
        reshaping.with_member(current, record("d"))
    with pytest.raises(UnavailableError, match="changes of who holds what need version 3 on every node"):
        begin(current, planned(current, "weights", weights={"n0": 0.0}))


def test_a_newcomer_speaks_what_the_cluster_uses() -> None:
    older = msgspec.structs.replace(record("d"), speaks=2)
    with pytest.raises(
        VersionError, match=f"uses version {NEWEST} of its protocol and formats, and this node speaks up to 2"
    ):
        reshaping.with_member(founded(3), older)


def test_a_node_that_is_lost_never_becomes_a_newcomer_on_the_way() -> None:
    """Zones may have it so where partitions move one step after the other: nobody could ever give it anything."""
    has_moved_at_once = False
    for zones in ("aabbc", "abcab", "aaabc", "abccb"):
        for lost in range(5):
            current = founded(5, partitions=16, zones=zones)
            gone = (current.nodes[lost].id,)
            current = begin(current, planned(current, "remove", gone=gone))
            for at in steps(current):
                if at.pending is not None and at.operation is not None:
                    assert gone[0] not in reshaping.newcomers(at)
                    left = sum(a != b for a, b in zip(at.owners, at.operation.owners, strict=True))
                    has_moved_at_once |= len(at.pending.moves) == left > 3
    assert has_moved_at_once
