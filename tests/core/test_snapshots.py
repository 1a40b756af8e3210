"""What is enough for a snapshot, and how hidden tables come to their names."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core import cluster_map, policy_changes, reshaping, snapshots
from merganser.core.ring import settled
from merganser.model.cluster import ClusterMap, Move, NodeRecord, Pending
from merganser.model.errors import TableExistsError, TableNotFoundError
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.policy import Policy
from merganser.model.versions import NEWEST

NODES = [NodeRecord(NodeId(f"n{number}"), 0, f"h{number}:1", {}, f"z{number}") for number in range(5)]


def with_table(current: ClusterMap, name: str, *, n: int = 3) -> ClusterMap:
    return cluster_map.with_table(current, name=name, wire="w", n=n, definition=b"", unique_id=name)


@pytest.fixture
def current() -> ClusterMap:
    """Five nodes, a table of three replicas."""
    return with_table(cluster_map.found(ClusterId("c"), NODES, 16), "t")


def test_two_of_three_replicas_of_each_partition_are_enough(current: ClusterMap) -> None:
    everyone = {node.id for node in current.nodes}
    for one in everyone:
        assert snapshots.short_of_replicas(current, everyone - {one}) == []
    for one in everyone:
        ((table, lacking),) = snapshots.short_of_replicas(current, {one})
        assert (table.name, lacking) == ("t", 16)


def test_a_table_of_one_replica_needs_every_node(current: ClusterMap) -> None:
    current = with_table(current, "single", n=1)
    everyone = {node.id for node in current.nodes}
    assert [table.name for table, _ in snapshots.short_of_replicas(current, everyone - {current.nodes[0].id})] == [
        "single"
    ]


def test_a_majority_of_the_voters_is_needed(current: ClusterMap) -> None:
    voters = [node.id for node in current.nodes if node.number in current.voters]
    enough = len(voters) // 2 + 1
    assert not snapshots.lacks_voters(current, voters[:enough])
    assert snapshots.lacks_voters(current, voters[: enough - 1])


def test_maps_that_differ_in_tables_are_of_one_ring_and_in_owners_are_not(current: ClusterMap) -> None:
    later = with_table(current, "u")
    assert snapshots.are_of_one_ring([current, later])
    assert snapshots.newest([later, current]) is later
    moved = msgspec.structs.replace(current, owners=(*current.owners[1:], current.owners[0]))
    assert not snapshots.are_of_one_ring([current, moved])
    elsewhere = tuple(msgspec.structs.replace(node, zone="elsewhere") for node in current.nodes)
    assert not snapshots.are_of_one_ring([current, msgspec.structs.replace(current, nodes=elsewhere)])


def test_what_is_pending_or_settling_makes_no_other_ring_and_a_flip_does(current: ClusterMap) -> None:
    other = next(node.number for node in current.nodes if node.number != current.owners[0])
    pending = msgspec.structs.replace(current, epoch=7, placed=7, pending=Pending((Move(PartitionId(0), other),)))
    flipped = msgspec.structs.replace(settled(pending), epoch=8, placed=8, settling=(PartitionId(0),))
    assert snapshots.are_of_one_ring([current, pending])
    assert snapshots.are_of_one_ring([flipped, msgspec.structs.replace(flipped, epoch=9, settling=())])
    assert not snapshots.are_of_one_ring([pending, flipped])


def test_a_table_that_has_got_another_policy_makes_another_ring_and_a_number_of_its_own_does_not(
    current: ClusterMap,
) -> None:
    current = msgspec.structs.replace(
        current, version=NEWEST, nodes=tuple(msgspec.structs.replace(one, speaks=NEWEST) for one in current.nodes)
    )
    operation = reshaping.planned_policy(current, TableId(1), Policy(2), operation_id="op", now_us=1).operation
    begun = reshaping.begun(current, operation, {})
    forked = policy_changes.forked(begun)
    step = policy_changes.pending(forked)
    assert step is not None
    pending = reshaping.with_pending(forked, step)
    flipped = reshaping.flipped(pending, pending.placed)
    assert snapshots.are_of_one_ring([current, forked, pending, with_table(pending, "u", n=1)])
    assert not snapshots.are_of_one_ring([pending, flipped])


def test_hidden_tables_are_revealed_together_or_not_at_all(current: ClusterMap) -> None:
    hidden = with_table(with_table(current, snapshots.hidden_name("abc", "x")), snapshots.hidden_name("abc", "y"))
    names = {TableId(2): "x", TableId(3): "y"}
    assert [table.name for table in snapshots.clients_tables(hidden, systems=())] == ["t"]
    revealed = snapshots.with_revealed(hidden, names=names)
    assert [table.name for table in snapshots.clients_tables(revealed, systems=())] == ["t", "x", "y"]
    assert revealed.epoch == hidden.epoch + 1
    assert snapshots.with_revealed(revealed, names=names) is revealed
    with pytest.raises(TableExistsError, match="'t' was made meanwhile"):
        snapshots.with_revealed(hidden, names={TableId(2): "x", TableId(3): "t"})
    with pytest.raises(TableNotFoundError, match="dropped meanwhile"):
        snapshots.with_revealed(current, names=names)
