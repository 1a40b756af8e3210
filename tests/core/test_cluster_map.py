"""The cluster map: founding, tables, and what is refused at the door."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import cluster_map as maps
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import (
    ConfigurationError,
    CorruptionError,
    TableChangedError,
    TableExistsError,
    TableNotFoundError,
    UnavailableError,
    VersionError,
)
from merganser.model.ids import ClusterId, NodeId, TableId

CLUSTER = ClusterId("00112233aabbccdd")


def founder(name: str, *, zone: str = "", number: int = 0) -> NodeRecord:
    return NodeRecord(id=NodeId(name), number=number, peer_address=f"{name}:7000", zone=zone)


def founders(zones: str) -> list[NodeRecord]:
    """Nodes "a", "b", … in the zones of these letters."""
    return [founder(chr(ord("a") + place), zone=zone) for place, zone in enumerate(zones)]


def with_users(cluster_map: ClusterMap, unique_id: str = "first") -> ClusterMap:
    return maps.with_table(cluster_map, name="users", wire="dynamodb", n=3, definition=b"{}", unique_id=unique_id)


def redefined(cluster_map: ClusterMap, before: bytes, after: bytes) -> ClusterMap:
    table = Table(TableId(1), "users", "dynamodb", 3, before, "first")
    return maps.with_definition(cluster_map, before=table, definition=after)


def without_users(cluster_map: ClusterMap, unique_id: str = "first") -> ClusterMap:
    return maps.without_table(cluster_map, wire="dynamodb", name="users", unique_id=unique_id)


@pytest.fixture
def three() -> ClusterMap:
    return maps.found(CLUSTER, founders("xyz"), 8)


# Founding


def test_founders_are_numbered_from_one_in_order_of_peer_address() -> None:
    cluster_map = maps.found(CLUSTER, [founder("c"), founder("a"), founder("b")], 4)
    assert [(node.id, node.number) for node in cluster_map.nodes] == [("a", 1), ("b", 2), ("c", 3)]
    assert (cluster_map.epoch, cluster_map.next_table_id, cluster_map.tables) == (1, 1, ())


def test_order_in_which_founders_are_named_does_not_matter() -> None:
    assert maps.found(CLUSTER, founders("xyzxy")) == maps.found(CLUSTER, founders("xyzxy")[::-1])


def test_founder_with_a_number_keeps_it_and_the_others_come_after() -> None:
    cluster_map = maps.found(CLUSTER, [founder("a"), founder("b", number=7)], 4)
    assert [(node.id, node.number) for node in cluster_map.nodes] == [("b", 7), ("a", 8)]


@pytest.mark.parametrize(("count", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)])
def test_voters_are_an_odd_number_up_to_five(count: int, voters: int) -> None:
    assert len(maps.found(CLUSTER, founders("x" * count)).voters) == voters


def test_voters_lie_in_as_many_zones_as_there_are() -> None:
    cluster_map = maps.found(CLUSTER, founders("xxxxyz"))
    voting = [node for node in cluster_map.nodes if node.number in cluster_map.voters]
    assert sorted(node.zone for node in voting) == ["x", "x", "x", "y", "z"]


@given(zones=st.text("xyz", min_size=1, max_size=12), exponent=st.integers(0, 9))
def test_every_founded_map_passes_the_check(zones: str, exponent: int) -> None:
    maps.check(maps.found(CLUSTER, founders(zones), 2**exponent))


@pytest.mark.parametrize(
    ("nodes", "partitions", "complaint"),
    [
        ([], 4, "at least one node"),
        ([founder("a"), founder("a")], 4, "is there twice"),
        ([founder("a"), msgspec.structs.replace(founder("b"), peer_address="a:7000")], 4, "peer address 'a:7000'"),
        ([founder("a", number=1), founder("b", number=1)], 4, "node number 1 is there twice"),
        ([founder("a", number=2**32)], 4, "outside 1..4294967295"),
        ([founder("a")], 6, "6 partitions, which is not a power of two"),
        ([founder("a")], 0, "0 partitions"),
    ],
)
def test_founders_that_clash_are_refused(nodes: list[NodeRecord], partitions: int, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        maps.found(CLUSTER, nodes, partitions)


# Tables


def test_new_table_takes_the_next_id_and_the_next_epoch(three: ClusterMap) -> None:
    cluster_map = with_users(three)
    table = maps.table_named(cluster_map, "dynamodb", "users")
    assert table is not None
    assert (table.id, table.n, table.definition) == (1, 3, b"{}")
    assert (cluster_map.epoch, cluster_map.next_table_id) == (2, 2)
    maps.check(cluster_map)


def test_repeated_request_for_a_table_changes_nothing(three: ClusterMap) -> None:
    cluster_map = with_users(three)
    assert with_users(cluster_map) is cluster_map


def test_second_table_of_the_name_is_refused(three: ClusterMap) -> None:
    with pytest.raises(TableExistsError, match="'users'"):
        with_users(with_users(three), unique_id="second")


def test_another_wire_may_have_a_table_of_the_same_name(three: ClusterMap) -> None:
    cluster_map = maps.with_table(
        with_users(three), name="users", wire="cql", n=1, definition=b"", unique_id="of the other wire"
    )
    assert [(table.id, table.wire) for table in cluster_map.tables] == [(1, "dynamodb"), (2, "cql")]


def test_dropped_table_is_gone_and_its_id_is_never_used_again(three: ClusterMap) -> None:
    dropped = without_users(with_users(three))
    assert maps.table_named(dropped, "dynamodb", "users") is None
    assert (dropped.epoch, dropped.next_table_id) == (3, 2)
    assert maps.table_named(with_users(dropped, "second"), "dynamodb", "users") == msgspec.structs.replace(
        with_users(three).tables[0], id=TableId(2), unique_id="second"
    )


def test_dropping_a_table_that_is_gone_changes_nothing(three: ClusterMap) -> None:
    assert without_users(three) is three


def test_dropping_again_spares_the_table_made_anew(three: ClusterMap) -> None:
    anew = with_users(without_users(with_users(three)), "second")
    assert without_users(anew, "first") is anew


def test_another_definition_is_given_to_that_very_table_only(three: ClusterMap) -> None:
    before = with_users(three)
    after = redefined(before, b"{}", b"new")
    (table,) = after.tables
    assert (table.definition, after.epoch) == (b"new", before.epoch + 1)
    assert msgspec.structs.replace(table, definition=b"{}") == before.tables[0]
    with pytest.raises(TableNotFoundError, match="'users'"):
        redefined(with_users(without_users(after), "second"), b"{}", b"new")


def test_repeated_redefinition_changes_nothing(three: ClusterMap) -> None:
    after = redefined(with_users(three), b"{}", b"new")
    assert redefined(after, b"{}", b"new") is after


def test_a_change_made_for_another_definition_is_refused(three: ClusterMap) -> None:
    after = redefined(with_users(three), b"{}", b"new")
    with pytest.raises(TableChangedError, match="'users'"):
        redefined(after, b"{}", b"newer")
    with pytest.raises(TableChangedError, match="'users'"):
        maps.without_table(after, wire="dynamodb", name="users", unique_id="first", definition=b"{}")
    dropped = maps.without_table(after, wire="dynamodb", name="users", unique_id="first", definition=b"new")
    assert dropped.tables == ()


@given(changes=st.lists(st.tuples(st.booleans(), st.sampled_from("pqr"), st.sampled_from("123")), max_size=20))
def test_any_changes_lead_to_a_map_that_passes_the_check(changes: list[tuple[bool, str, str]]) -> None:
    cluster_map = maps.found(CLUSTER, founders("xyz"), 4)
    for adds, name, unique_id in changes:
        before = cluster_map
        if not adds:
            cluster_map = maps.without_table(before, wire="w", name=name, unique_id=unique_id)
        elif maps.table_named(before, "w", name) is None:
            cluster_map = maps.with_table(before, name=name, wire="w", n=1, definition=b"", unique_id=unique_id)
        assert cluster_map is before or cluster_map.epoch == before.epoch + 1
        maps.check(cluster_map)


# Questions


def test_nodes_are_found_by_id(three: ClusterMap) -> None:
    assert maps.node_by_id(three, NodeId("b")) is three.nodes[1]
    assert maps.node_by_id(three, NodeId("nobody")) is None


# The check


def replaced(**changes: object) -> Callable[[ClusterMap], ClusterMap]:
    return lambda cluster_map: msgspec.structs.replace(cluster_map, **changes)


def first_table_with(**changes: object) -> Callable[[ClusterMap], ClusterMap]:
    def damage(cluster_map: ClusterMap) -> ClusterMap:
        table = msgspec.structs.replace(cluster_map.tables[0], **changes)
        return msgspec.structs.replace(cluster_map, tables=(table, *cluster_map.tables[1:]))

    return damage


def first_node_with(**changes: object) -> Callable[[ClusterMap], ClusterMap]:
    def damage(cluster_map: ClusterMap) -> ClusterMap:
        node = msgspec.structs.replace(cluster_map.nodes[0], **changes)
        return msgspec.structs.replace(cluster_map, nodes=(node, *cluster_map.nodes[1:]))

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (replaced(cluster_id=""), "no cluster id"),
        (replaced(epoch=0), "epochs start at 1"),
        (replaced(nodes=()), "no nodes"),
        (lambda good: msgspec.structs.replace(good, nodes=good.nodes[::-1]), "ascending order of number"),
        (first_node_with(number=2), "node number 2 is there twice"),
        (first_node_with(number=-1), "number -1, outside"),
        (first_node_with(id="b"), "node id 'b' is there twice"),
        (first_node_with(id=""), "has no id"),
        (first_node_with(peer_address="b:7000"), "peer address 'b:7000' is there twice"),
        (first_node_with(peer_address=""), "no peer address"),
        (replaced(partitions=7), "7 partitions, which is not a power of two"),
        (replaced(partitions=16), "8 owners for 16 partitions"),
        (replaced(owners=(1, 2, 3, 1, 2, 3, 1, 9)), "owner 9 is not a member"),
        (replaced(voters=(1, 2, 9)), "voter 9 is not a member"),
        (replaced(voters=()), "0 voters"),
        (replaced(voters=(1, 1, 2)), "voter 1 is there twice"),
        (first_table_with(id=2), "ascending order of id"),
        (first_table_with(id=0), "has id 0, outside"),
        (first_table_with(name="pets"), "is there twice"),
        (first_table_with(name=""), "lacks a name"),
        (first_table_with(unique_id=""), "lacks a name or a unique id"),
        (first_table_with(n=0), "wants 0 replicas"),
        (first_table_with(replication="leader", conflicts="siblings"), "has leaders, and keeps siblings"),
        (replaced(next_table_id=2), "not below the next id 2"),
        (replaced(tables=(), next_table_id=0), "next table id is 0"),
    ],
)
def test_damaged_map_is_refused_with_its_flaw_named(
    three: ClusterMap, damage: Callable[[ClusterMap], ClusterMap], complaint: str
) -> None:
    good = maps.with_table(with_users(three), name="pets", wire="dynamodb", n=1, definition=b"", unique_id="pets")
    maps.check(good)
    with pytest.raises(CorruptionError, match=complaint):
        maps.check(damage(good))


# Addresses


def test_a_node_that_moved_is_known_at_its_new_addresses_and_nothing_else_changes(three: ClusterMap) -> None:
    node = three.nodes[1]
    moved = maps.with_presence(three, node.id, {"dynamodb": "b:8000"}, speaks=node.speaks)
    assert moved.epoch == three.epoch + 1
    assert moved.nodes[1] == msgspec.structs.replace(node, wire_addresses={"dynamodb": "b:8000"})
    assert (moved.nodes[0], moved.nodes[2]) == (three.nodes[0], three.nodes[2])


def test_addresses_that_are_known_change_nothing(three: ClusterMap) -> None:
    assert maps.with_presence(three, three.nodes[1].id, {}, speaks=three.nodes[1].speaks) is three
    assert maps.with_presence(three, NodeId("stranger"), {"dynamodb": "x:1"}, speaks=3) is three


# A request to create a table may still go on when another has dropped what it made.


def test_a_table_that_was_dropped_is_not_made_again_by_the_request_that_made_it(three: ClusterMap) -> None:
    dropped = without_users(with_users(three))
    assert with_users(dropped) is dropped
    anew = with_users(dropped, "second")
    assert [table.unique_id for table in anew.tables] == ["second"]
    assert with_users(anew) is anew  # nor refused because of the one made anew


def test_only_the_last_dropped_tables_are_remembered(three: ClusterMap) -> None:
    current = three
    for number in range(maps.DROPPED_MAX + 1):
        current = without_users(with_users(current, f"u{number}"), f"u{number}")
    assert current.dropped == tuple(f"u{number}" for number in range(1, maps.DROPPED_MAX + 1))


def test_all_tables_are_dropped_in_one_change_and_not_made_again_by_the_requests_that_made_them(
    three: ClusterMap,
) -> None:
    pets = maps.with_table(with_users(three), name="pets", wire="w", n=1, definition=b"", unique_id="pets")
    bare = maps.without_tables(pets, remade=("pets",))
    assert (bare.tables, bare.epoch, bare.next_table_id) == ((), pets.epoch + 1, 3)
    maps.check(bare)
    assert with_users(bare) is bare
    assert [table.id for table in with_users(bare, unique_id="second").tables] == [3]
    again = maps.with_table(bare, name="pets", wire="w", n=1, definition=b"", unique_id="pets")
    assert [table.name for table in again.tables] == ["pets"]


def test_dropping_all_of_no_tables_changes_nothing(three: ClusterMap) -> None:
    assert maps.without_tables(three) is three


def test_the_last_member_to_speak_a_version_raises_that_of_the_cluster() -> None:
    current = maps.found(CLUSTER, founders("xyz"), 4)
    assert current.version == 2
    for name, version in ("a", 2), ("b", 2), ("c", 3):
        before = current
        current = maps.with_presence(current, NodeId(name), {}, speaks=3)
        assert (current.version, current.epoch) == (version, before.epoch + 1)
        assert maps.with_presence(current, NodeId(name), {}, speaks=3) is current


def test_a_version_is_never_lowered() -> None:
    current = maps.found(CLUSTER, [msgspec.structs.replace(founder("a"), speaks=3)], 4)
    assert current.version == 3
    assert maps.with_presence(current, NodeId("a"), {}, speaks=2).version == 3


def test_a_map_of_a_newer_version_is_refused_with_the_way_out(three: ClusterMap) -> None:
    current = msgspec.structs.replace(three, version=3)
    maps.check(current, newest=3)
    with pytest.raises(VersionError, match=r"uses version 3 .* this node speaks up to 2: run the release on it that"):
        maps.check(current, newest=2)


def test_what_an_older_member_could_not_merge_waits_until_it_is_upgraded(three: ClusterMap) -> None:
    def with_carts(current: ClusterMap) -> ClusterMap:
        return maps.with_table(
            current, name="carts", wire="sim", n=3, definition=b"", unique_id="first", conflicts="siblings"
        )

    for node in three.nodes[:2]:
        three = maps.with_presence(three, node.id, {}, speaks=3)
    with pytest.raises(UnavailableError, match="tables that keep siblings need version 3 on every node, and c has an"):
        with_carts(three)
    assert with_carts(maps.with_presence(three, NodeId("c"), {}, speaks=3)).tables[0].is_causal
