"""What speaks against an operation is told before it is begun."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core import cluster_map, reshaping
from merganser.core.operation_checks import Verdict, judged, member_named
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import RequestError
from merganser.model.ids import ClusterId, NodeId
from merganser.model.versions import NEWEST


def founded(count: int, *, n: int = 3) -> ClusterMap:
    nodes = [
        NodeRecord(
            NodeId(f"node-{i}"), 0, f"host-{i}:7700", {"admin": f"host-{i}:7800"}, f"zone-{i % 3}", speaks=NEWEST
        )
        for i in range(count)
    ]
    first = cluster_map.found(ClusterId("c"), nodes, 64)
    return cluster_map.with_table(first, name="t", wire="sim", n=n, definition=b"", unique_id="u")


def joined(current: ClusterMap) -> ClusterMap:
    return reshaping.with_member(current, NodeRecord(NodeId("fresh"), 0, "fresh:7700", zone="zone-0", speaks=NEWEST))


def verdict(current: ClusterMap, kind: str, *, away: tuple[str, ...] = (), **planned: object) -> Verdict:
    plan = reshaping.planned(current, kind, operation_id="o", now_us=0, **planned)  # type: ignore[arg-type]
    return judged(current, plan, {node.id for node in current.nodes if node.id not in away})


def test_a_node_that_answers_is_not_removed_and_one_that_does_not_cannot_leave() -> None:
    current = founded(5)
    one = (NodeId("node-4"),)
    assert verdict(current, "leave", gone=one) == Verdict()
    assert verdict(current, "remove", gone=one, away=one).objections == ()
    (objection,) = verdict(current, "remove", gone=one).objections
    assert objection == ("node 5 (host-4:7700) is alive, and what only it holds would be lost: have it leave instead")
    (objection,) = verdict(current, "leave", gone=one, away=one).objections
    assert objection == (
        "node 5 (host-4:7700) is away, and cannot hand over what it holds: start it, or remove or replace it"
    )


def test_a_node_that_is_away_is_given_nothing() -> None:
    current = joined(founded(3))
    weights = {NodeId("fresh"): 1.0}
    assert verdict(current, "join", weights=weights).objections == ()
    (objection,) = verdict(current, "join", weights=weights, away=("fresh",)).objections
    assert objection == "node 4 (fresh:7700) is away, and cannot be given anything: start it first"


def test_no_table_gets_fewer_replicas_than_it_wants() -> None:
    (objection,) = verdict(founded(3), "leave", gone=(NodeId("node-2"),)).objections
    assert objection == (
        "table t keeps 3 replicas of each key, and 2 nodes would be left to hold them: have others join first"
    )
    assert verdict(founded(3, n=2), "leave", gone=(NodeId("node-2"),)).objections == ()


def test_a_table_that_has_fewer_replicas_than_it_wants_already_is_no_objection() -> None:
    current = joined(founded(2))
    found = verdict(current, "leave", gone=(NodeId("fresh"),))
    assert found.objections == ()


def test_the_map_stays_one_that_can_be_changed() -> None:
    current = msgspec.structs.replace(founded(5), voters=(1, 2, 3))
    away = ("node-1", "node-2")
    *_, objection = verdict(current, "weights", weights={NodeId("node-0"): 2.0}, away=away).objections
    assert objection == "1 of the 3 voters of the cluster map answer, and 2 are needed: start the others first"
    *_, objection = verdict(current, "leave", gone=(NodeId("node-0"),), away=("node-1",)).objections
    assert objection == "1 of the 2 voters that stay answer, and 2 would be needed: start the others first"


def test_who_is_away_and_zones_that_go_are_told() -> None:
    current = msgspec.structs.replace(
        founded(5),
        nodes=tuple(
            msgspec.structs.replace(node, zone="zone-1" if node.number != 3 else "zone-2") if node.number > 1 else node
            for node in founded(5).nodes
        ),
    )
    found = verdict(current, "leave", gone=(NodeId("node-2"),), away=("node-4",))
    assert found.objections == ("node 5 (host-4:7700) is away, and cannot be given anything: start it first",)
    assert found.warnings == (
        "node 5 (host-4:7700) is away: what it holds may have to wait for it",
        "2 zones would be left: a zone that fails takes more than one replica of a key along",
    )


@pytest.mark.parametrize("name", ["node-1", "2", "host-1:7700", "host-1:7800"])
def test_a_member_has_several_names(name: str) -> None:
    assert member_named(founded(3), name) == NodeId("node-1")


def test_who_is_no_member_is_told_who_is() -> None:
    with pytest.raises(RequestError, match=r"no node 'x' is a member .* there are 1 \(host-0:7700\), 2 "):
        member_named(founded(3), "x")
