"""What is kept where it may not be is told, whatever it is kept as."""

from __future__ import annotations

import pytest

from merganser.core import cluster_map
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.ids import ClusterId, NodeId
from merganser.model.policy import Policy
from merganser.model.versions import NEWEST
from merganser.sim.checkers.residency import Place, forbidden
from merganser.storage import keys

NODES = [NodeRecord(NodeId(name), 0, f"{name}:1", zone="z", data_center=name, speaks=NEWEST) for name in ("eu", "us")]
INSIDE, OUTSIDE = (Place(node.id, node.data_center, (node.zone,)) for node in NODES)


def map_with(policy: Policy | None) -> ClusterMap:
    founded = cluster_map.found(ClusterId("c" * 16), NODES, 4)
    return cluster_map.with_table(founded, name="t", wire="sim", n=1, definition=b"", unique_id="u", policy=policy)


BOUND = map_with(Policy(1, replicas=(("eu", 1),)))
ROW = keys.row_key(BOUND.tables[0].id, token_of(b"name"), b"name")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(ROW, b"", id="row"),
        pytest.param(keys.hint_key(1, ROW), b"", id="hint"),
        pytest.param(keys.local_key(ROW), b"", id="local index"),
        pytest.param(keys.metadata_key("anything"), b"..name..", id="value of something else"),
        pytest.param(keys.metadata_key("of name"), b"", id="key of something else"),
    ],
)
def test_what_is_outside_is_told(key: bytes, value: bytes) -> None:
    assert len(list(forbidden([BOUND], OUTSIDE, [(key, value)], {b"name"}))) == 1
    assert not list(forbidden([BOUND], INSIDE, [(key, value)], {b"name"}))


def test_what_is_of_no_table_with_a_policy_may_be_anywhere() -> None:
    assert not list(forbidden([BOUND], OUTSIDE, [(keys.metadata_key("epoch"), b"1")], {b"name"}))
    assert not list(forbidden([map_with(None)], OUTSIDE, [(ROW, b"v")], {b"name"}))
