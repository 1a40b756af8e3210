"""The ring is cut finer: who holds a key stays as it is, and only the numbers of partitions change."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_reshaping import begin, done, founded, grown, planned
from merganser.core import cluster_map, operation_checks, planner, reshaping, splitting
from merganser.core.ring import Ring
from merganser.core.token import TOKEN_MAX, TOKEN_MIN
from merganser.model.cluster import ClusterMap, Move, Pending
from merganser.model.errors import RequestError, UnavailableError
from merganser.model.ids import PartitionId, Token
from merganser.model.index import IndexRequest


def cut(current: ClusterMap) -> ClusterMap:
    """Return what comes of splitting ``current``, from the plan to the end."""
    once = splitting.split(begin(current, planned(current, "split")))
    cluster_map.check(once)
    assert splitting.split(once) is once
    return reshaping.ended(once)


@settings(max_examples=60)
@given(
    nodes=st.integers(1, 7),
    zones=st.text("abc", min_size=7, max_size=7),
    n=st.integers(1, 5),
    tokens=st.lists(st.integers(TOKEN_MIN, TOKEN_MAX), min_size=1, max_size=20),
    data=st.data(),
)
def test_each_key_keeps_its_replicas_and_fallbacks_in_their_order(
    nodes: int, zones: str, n: int, tokens: list[int], data: st.DataObject
) -> None:
    current = founded(nodes, 16, zones)
    owners = data.draw(st.lists(st.sampled_from(current.owners), min_size=16, max_size=16))
    current = msgspec.structs.replace(current, owners=tuple(owners))
    finer = cut(current)
    assert (finer.partitions, finer.splits, finer.operation) == (32, 1, None)
    before, after = Ring(current), Ring(finer)
    for token in map(Token, tokens):
        whole, half = before.partition_of(token), after.partition_of(token)
        assert half in splitting.halves(whole, 2)
        assert after.preference_list(half, n) == before.preference_list(whole, n)
        assert after.fallbacks(half, n) == before.fallbacks(whole, n)


def test_a_map_of_before_is_refused_by_whoever_knows_the_one_of_after() -> None:
    begun = begin(founded(3), planned(founded(3), "split"))
    finer = splitting.split(begun)
    assert finer.placed == finer.epoch == begun.epoch + 1


def test_it_is_an_operation_like_any_other() -> None:
    current = founded(3, 16)
    plan = planned(current, "split")
    assert plan.operation.told == "split 16 partitions into 32"
    assert plan.operation.moves == 0
    assert all(after == 2 * before for before, after in plan.owned.values())
    assert operation_checks.judged(current, plan, {node.id for node in current.nodes}).objections == ()
    begun = begin(current, plan)
    assert begin(begun, plan) is begun
    assert reshaping.ended(begun) is begun
    assert reshaping.next_pending(begun) is None
    with pytest.raises(RequestError, match="another operation is under way: split 16 partitions into 32"):
        begin(begun, msgspec.structs.replace(plan, operation=msgspec.structs.replace(plan.operation, id="other")))
    given_up = reshaping.cancelled(begun, "op")
    assert (given_up.partitions, given_up.operation) == (16, None)
    assert not reshaping.is_done(given_up, plan.operation)
    assert reshaping.is_done(cut(current), plan.operation)
    with pytest.raises(RequestError, match="plan it again"):
        begin(cut(current), plan)


def test_it_waits_for_whoever_goes_through_all_partitions_by_number() -> None:
    current = cluster_map.with_table(
        founded(3), name="t", wire="w", n=3, definition=b"", unique_id="t", replication="leader"
    )
    current = cluster_map.with_index(
        current, before=current.tables[0], index=IndexRequest("by-name", b""), unique_id="i", definition=b""
    )
    begun = begin(current, planned(current, "split"))
    assert splitting.objection(begun) == "index by-name of table t is being filled"
    assert splitting.split(begun) is begun
    base = begun.tables[0]
    filled = cluster_map.with_index_state(begun, table=base.id, index=base.indexes[0].table, state="active")
    assert splitting.split(filled).partitions == 128
    moving = msgspec.structs.replace(filled, pending=Pending((Move(PartitionId(0), 2),)))
    assert splitting.objection(moving) == "partitions are on their way to other nodes"
    assert splitting.split(moving) is moving


def test_a_ring_has_its_limit_and_every_member_has_to_know_of_it() -> None:
    with pytest.raises(RequestError, match="the ring has 16384 partitions, and may have 16384 at most"):
        planned(founded(3, splitting.PARTITIONS_MAX), "split")
    with pytest.raises(UnavailableError, match="finer rings need version 4 on every node"):
        planned(msgspec.structs.replace(founded(3), version=3), "split")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("nodes", [3, 4, 10])
def test_who_joins_a_finer_ring_moves_no_more_than_its_share(nodes: int, times: int) -> None:
    """Halves that lie side by side on one node are no reason to move anything."""
    current = founded(nodes, 64)
    for _ in range(times):
        current = cut(current)
    current = grown(current, "new")
    plan = planned(current, "join", weights={"new": 1.0})
    members = [planner.Member(node.number) for node in current.nodes]
    assert plan.operation.moves <= planner.least_moves(current.owners, members) + 2
    owned = [after for _, after in plan.owned.values()]
    assert max(owned) - min(owned) <= 1
    assert set(done(begin(current, plan)).owners) == {node.number for node in current.nodes}
