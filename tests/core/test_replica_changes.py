"""What changes its replicas is counted, also where no owner changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from core.test_reshaping import NOW_US, begin, founded, planned, steps
from merganser.core import cluster_map, reshaping
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Operation
from merganser.model.ids import PartitionId
from merganser.model.policy import Policy

N = 3


def with_table(current: ClusterMap) -> ClusterMap:
    return cluster_map.with_table(current, name="t", wire="sim", n=N, definition=b"", unique_id="u")


def held(current: ClusterMap) -> list[set[str]]:
    ring, table = Ring(current), current.tables[-1]
    return [
        set(ring.holders(PartitionId(at), table.rule).serving) | {f"owner {current.owners[at]}"}
        for at in range(current.partitions)
    ]


def lefts(begun: ClusterMap, operation: Operation) -> Iterator[int]:
    for current in (begun, *steps(begun)):
        if current.operation is not None:
            yield reshaping.left_to_move(current, operation)


@pytest.mark.parametrize("kind", ["zones", "policy", "more"])
def test_as_many_partitions_are_told_as_get_other_replicas(kind: str) -> None:
    current = with_table(founded(6, 32, "aabbcc"))
    if kind == "zones":
        plan = planned(current, "zones", zones={"n0": "b", "n2": "a"})
    else:
        policy = Policy(N, zones=("a", "b")) if kind == "policy" else Policy(4)
        table = current.tables[-1].id
        plan = reshaping.planned_policy(current, table, policy, operation_id="op", now_us=NOW_US)
    begun = begin(current, plan)
    *_, last = steps(begun)
    changed = sum(one != other for one, other in zip(held(current), held(last), strict=True))
    assert plan.operation.moves == changed > 0
    left = list(lefts(begun, plan.operation))
    assert (left[0], left[-1]) == (changed, 0)
    if kind != "zones":
        assert all(later <= earlier for earlier, later in pairwise(left))
