"""Where tables may live: what is written, what it comes to on a ring, and what is refused."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import cluster_map as maps
from merganser.core import operation_checks, policies, reshaping
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import ConfigurationError, CorruptionError, RequestError, UnavailableError
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.index import IndexRequest
from merganser.model.policy import FIRST_POLICY, Policy
from merganser.model.versions import NEWEST, POLICIES_SINCE

EU_3_US_2 = Policy(5, replicas=(("eu", 3), ("us", 2)))


def cluster_of(*places: str, partitions: int = 16, speaks: int = NEWEST) -> ClusterMap:
    """A cluster with a node "n1", "n2", … in each of ``places``, such as "eu/a"."""
    nodes = [
        NodeRecord(
            NodeId(f"n{number}"), number, f"10.0.0.{number}:7700", zone=zone, data_center=data_center, speaks=speaks
        )
        for number, (data_center, _, zone) in enumerate((place.partition("/") for place in places), start=1)
    ]
    return maps.found(ClusterId("c" * 16), nodes, partitions)


@pytest.fixture
def six() -> ClusterMap:
    return cluster_of("eu/a", "eu/b", "eu/c", "us/a", "us/b", "us/c")


def with_table(before: ClusterMap, policy: Policy, name: str = "users", *, indexes: tuple[str, ...] = ()) -> ClusterMap:
    return maps.with_table(
        before,
        name=name,
        wire="dynamodb",
        n=3,
        definition=b"",
        unique_id=f"the {name}",
        replication="leader",
        indexes=[IndexRequest(index, b"") for index in indexes],
        policy=policy,
    )


def last_table(cluster_map: ClusterMap) -> Table:
    return cluster_map.tables[-1]


def places_of(cluster_map: ClusterMap, nodes: tuple[NodeId, ...]) -> list[str]:
    by_id = {node.id: node for node in cluster_map.nodes}
    return ["/".join(by_id[node].domain) for node in nodes]


# What is written


@pytest.mark.parametrize(
    ("replicas", "data_centers", "zones", "policy"),
    [
        ("", "", "", Policy(3)),
        ("2", "", "", Policy(2)),
        ("eu=3 us=2", "", "", EU_3_US_2),
        ("us=2,eu=3", "", "", EU_3_US_2),
        ("", "eu", "", Policy(3, replicas=(("eu", 3),))),
        ("2", "us, eu", "", Policy(2, data_centers=("eu", "us"))),
        ("", "", "b a", Policy(3, zones=("a", "b"))),
        ("eu=1", "", "a", Policy(1, replicas=(("eu", 1),), zones=("a",))),
    ],
)
def test_what_is_written_is_a_policy(replicas: str, data_centers: str, zones: str, policy: Policy) -> None:
    assert policies.parsed(replicas=replicas, data_centers=data_centers, zones=zones) == policy


@pytest.mark.parametrize(
    ("replicas", "data_centers", "message"),
    [
        ("0", "", "'0' is no number of replicas: write 1 to 16"),
        ("many", "", "'many' is no number"),
        ("eu=3 us", "", "'' is no number"),
        ("3 2", "", "neither a number nor a list such as eu=3 us=2"),
        ("eu=3 eu=2", "", "data centre 'eu' is there twice"),
        ("=3", "", "'' is no name of a data centre"),
        ("eu=3", "us", "leave out the other list"),
        ("", "eu eu", "data centre 'eu' is there twice"),
        ("eu=٣", "", "is no number of replicas"),
        ("", "x" * 65, "is no name of a data centre"),
        ("", " ".join(f"d{number}" for number in range(33)), "33 are named, and a table can name 32"),
    ],
)
def test_nonsense_is_refused(replicas: str, data_centers: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policies.parsed(replicas=replicas, data_centers=data_centers)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Policy(3), "3"),
        (EU_3_US_2, "eu=3, us=2"),
        (Policy(3, data_centers=("eu", "us"), zones=("a",)), "3 in data centres eu, us in zones a"),
    ],
)
def test_a_policy_tells_what_it_is(policy: Policy, told: str) -> None:
    assert str(policy) == told


# Preference lists


def test_each_data_center_has_its_number_in_zones_of_its_own(six: ClusterMap) -> None:
    table = last_table(with_users := with_table(six, EU_3_US_2))
    ring = Ring(with_users)
    for partition in map(PartitionId, range(16)):
        places = places_of(with_users, ring.preference_list(partition, table.rule))
        assert Counter(place[:2] for place in places) == {"eu": 3, "us": 2}
        assert len(set(places)) == 5


def test_the_first_replicas_are_in_both_data_centers(six: ClusterMap) -> None:
    ring = Ring(grown := with_table(six, EU_3_US_2))
    firsts = [ring.preference_list(PartitionId(p), last_table(grown).rule)[0] for p in range(16)]
    owners = [ring.owner(PartitionId(p)) for p in range(16)]
    assert {place[:2] for place in places_of(grown, tuple(firsts))} == {"eu", "us"}
    assert [ring.data_centers[node] for node in firsts] == [ring.data_centers[node] for node in owners]


def test_nothing_is_outside_of_the_zones_that_are_allowed(six: ClusterMap) -> None:
    ring = Ring(grown := with_table(six, Policy(3, zones=("a", "c"))))
    rule = last_table(grown).rule
    for partition in map(PartitionId, range(16)):
        held = ring.preference_list(partition, rule)
        assert len(held) == 3
        assert {place[-1] for place in places_of(grown, (*held, *ring.fallbacks(partition, rule)))} == {"a", "c"}


def test_fallbacks_are_the_allowed_nodes_that_hold_nothing(six: ClusterMap) -> None:
    ring = Ring(grown := with_table(six, Policy(2, replicas=(("eu", 2),))))
    rule = last_table(grown).rule
    for partition in map(PartitionId, range(16)):
        both = (*ring.preference_list(partition, rule), *ring.fallbacks(partition, rule))
        assert sorted(both) == ["n1", "n2", "n3"]


def test_zones_of_one_name_in_two_data_centers_are_two() -> None:
    four = cluster_of("eu/a", "us/a", "eu/a", "us/a")
    ring = Ring(four)
    for partition in map(PartitionId, range(16)):
        assert len(set(places_of(four, ring.preference_list(partition, 2)))) == 2


def test_fewer_nodes_than_replicas_hold_one_each() -> None:
    three = cluster_of("eu/a", "eu/b", "us/a")
    ring = Ring(grown := with_table(three, EU_3_US_2))
    assert {len(ring.preference_list(PartitionId(p), last_table(grown).rule)) for p in range(16)} == {3}


def test_a_rule_that_the_map_does_not_have_is_held_by_nobody(six: ClusterMap) -> None:
    ring = Ring(six)
    assert ring.preference_list(PartitionId(0), FIRST_POLICY) == ()
    assert not ring.holds(NodeId("n1"), PartitionId(0), FIRST_POLICY)


def test_counted_in_tells_where_every_key_has_the_same_number(six: ClusterMap) -> None:
    ring = Ring(grown := with_table(six, EU_3_US_2))
    assert ring.counted_in(last_table(grown).rule) == frozenset(("eu", "us"))
    assert ring.counted_in(3) is None
    assert Ring(cluster_of("eu/a", "eu/b")).counted_in(3) == frozenset(("eu",))


@st.composite
def clusters_and_policies(draw: st.DrawFn) -> tuple[ClusterMap, Policy]:
    """Any owners at all, each of at most nine nodes in two data centres with two zones each."""
    places = draw(st.lists(st.sampled_from(["eu/a", "eu/b", "us/a", "us/b"]), min_size=1, max_size=9))
    founded = cluster_of(*places)
    owners = draw(st.lists(st.integers(1, len(places)), min_size=16, max_size=16))
    centers = draw(st.dictionaries(st.sampled_from(["eu", "us"]), st.integers(1, 4)))
    zones = draw(st.sampled_from([(), ("a",), ("a", "b")]))
    if centers:
        policy = Policy(sum(centers.values()), replicas=tuple(sorted(centers.items())), zones=zones)
    else:
        policy = Policy(draw(st.integers(1, 4)), zones=zones)
    numbered = ((FIRST_POLICY, policy),)
    return msgspec.structs.replace(founded, owners=tuple(owners), policies=numbered), policy


@given(clusters_and_policies())
def test_lists_hold_as_many_as_there_are_and_never_one_that_is_not_allowed(drawn: tuple[ClusterMap, Policy]) -> None:
    cluster_map, policy = drawn
    ring = Ring(cluster_map)
    owning = [node for node in cluster_map.nodes if node.number in cluster_map.owners]
    allowed = {node.id: node for node in owning if policy.allows(node.data_center, node.zone)}
    for partition in map(PartitionId, range(16)):
        held = ring.preference_list(partition, FIRST_POLICY)
        others = ring.fallbacks(partition, FIRST_POLICY)
        assert sorted((*held, *others)) == sorted(allowed)
        there = Counter(node.data_center for node in allowed.values())
        if policy.replicas:
            expected = {name: min(count, there[name]) for name, count in policy.replicas if there[name]}
            assert Counter(allowed[node].data_center for node in held) == expected
        else:
            assert len(held) == min(policy.n, len(allowed))


# Numbers in the map


def test_tables_that_ask_for_the_same_share_a_number_and_others_get_the_next(six: ClusterMap) -> None:
    grown = with_table(with_table(six, EU_3_US_2), EU_3_US_2, "orders")
    grown = with_table(grown, Policy(3, zones=("a", "b")), "sessions")
    assert [table.policy for table in grown.tables] == [FIRST_POLICY, FIRST_POLICY, FIRST_POLICY + 1]
    assert [table.n for table in grown.tables] == [5, 5, 3]
    maps.check(grown)


def test_a_policy_without_tables_is_forgotten_and_its_number_never_given_again(six: ClusterMap) -> None:
    grown = with_table(six, EU_3_US_2)
    shrunk = maps.without_table(grown, wire="dynamodb", name="users", unique_id="the users")
    other = with_table(shrunk, Policy(3, zones=("a", "b")), "sessions")
    assert [number for number, _ in other.policies] == [FIRST_POLICY + 1]


def test_the_entries_of_an_index_are_where_its_table_is(six: ClusterMap) -> None:
    grown = with_table(six, EU_3_US_2, indexes=("by_mail",))
    assert [table.rule for table in grown.tables] == [FIRST_POLICY, FIRST_POLICY]
    maps.check(grown)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(1, replicas=(("asia", 1),)), "data centre 'asia'; there are 'eu', 'us'"),
        (Policy(3, zones=("a", "z")), "zone 'z'; there are 'a', 'b', 'c'"),
    ],
)
def test_places_without_nodes_are_refused(six: ClusterMap, policy: Policy, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        with_table(six, policy)


def test_a_data_center_without_the_zone_is_refused() -> None:
    with pytest.raises(RequestError, match="no node of data centre 'us' is in zones a"):
        with_table(cluster_of("eu/a", "us/b"), Policy(2, replicas=(("eu", 1), ("us", 1)), zones=("a",)))


def test_members_of_an_older_release_know_no_policies() -> None:
    with pytest.raises(UnavailableError, match=f"say where they may be need version {POLICIES_SINCE}"):
        with_table(cluster_of("/a", "/b", speaks=POLICIES_SINCE - 1), Policy(1, zones=("a",)))
    with pytest.raises(ConfigurationError, match="not every node speaks of data centres"):
        cluster_of("eu/a", "eu/b", speaks=POLICIES_SINCE - 1)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"policies": ()}, "has policy 256, and there is none"),
        ({"policies": ((FIRST_POLICY, Policy(2, zones=("a",))),)}, "has 5 replicas, and its policy wants 2"),
        ({"policies": ((1, EU_3_US_2),)}, "a policy has number 1"),
        ({"policies": ((FIRST_POLICY, Policy(4, replicas=(("eu", 3),))),)}, "wants 4 replicas, and others"),
        ({"policies": ((FIRST_POLICY, EU_3_US_2),) * 2}, "not in ascending order"),
        ({"policies": ((FIRST_POLICY, Policy(0)),)}, "wants no replicas"),
    ],
)
def test_a_map_whose_policies_make_no_sense_is_refused(six: ClusterMap, change: dict[str, object], flaw: str) -> None:
    with pytest.raises(CorruptionError, match=flaw):
        maps.check(msgspec.structs.replace(with_table(six, EU_3_US_2), **change))


# Nodes that go away


def plan_without(cluster_map: ClusterMap, *gone: str) -> reshaping.Plan:
    return reshaping.planned(cluster_map, "leave", operation_id="o", now_us=0, gone=[NodeId(node) for node in gone])


def test_the_last_nodes_that_may_hold_a_table_stay(six: ClusterMap) -> None:
    bound = with_table(six, Policy(2, replicas=(("us", 2),)))
    with pytest.raises(RequestError, match="'users' keeps us=2, and no node that may hold it would be left"):
        plan_without(bound, "n4", "n5", "n6")
    plan = plan_without(six, "n4", "n5", "n6")
    with pytest.raises(RequestError, match="no node that may hold it would be left"):
        reshaping.begun(bound, plan.operation, {})


def test_fewer_replicas_than_now_in_a_data_center_are_an_objection(six: ClusterMap) -> None:
    bound = with_table(six, EU_3_US_2)
    judged = operation_checks.judged(bound, plan_without(bound, "n1"), {node.id for node in six.nodes})
    assert [text for text in judged.objections if "3 replicas of each key in data centre 'eu', and 2 nodes" in text]
    assert not operation_checks.judged(bound, plan_without(bound, "n4"), {node.id for node in six.nodes}).objections


def test_a_place_that_is_about_to_lose_its_nodes_takes_no_table(six: ClusterMap) -> None:
    leaving = reshaping.begun(six, plan_without(six, "n4", "n5", "n6").operation, {})
    with pytest.raises(RequestError, match="data centre 'us'; there are 'eu'"):
        with_table(leaving, EU_3_US_2)


# Voters


def test_voters_are_in_all_data_centers() -> None:
    nine = cluster_of(*(f"{name}/{zone}" for name in ("eu", "us", "asia") for zone in "abc"))
    assert sorted(Counter(nine.nodes[number - 1].data_center for number in nine.voters).values()) == [1, 2, 2]


def test_who_votes_next_is_of_the_data_center_with_fewest_voters() -> None:
    seven = cluster_of("eu/a", "eu/b", "eu/c", "eu/d", "us/a", "us/b", "us/c")
    fewer = msgspec.structs.replace(seven, voters=(1, 2, 3))
    added = reshaping.with_other_voters(fewer)
    assert added.voters == (1, 2, 3, 5)
    assert reshaping.with_other_voters(added).voters == (1, 2, 3, 5, 6)
