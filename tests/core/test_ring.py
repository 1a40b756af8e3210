"""The ring: ranges, preference lists, and who holds what."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from itertools import combinations, zip_longest

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.placement import spread
from merganser.core.ring import Ring, settled
from merganser.core.token import TOKEN_MAX, TOKEN_MIN
from merganser.model.cluster import ClusterMap, Move, NodeRecord, Pending
from merganser.model.consistency import Need
from merganser.model.ids import ClusterId, NodeId, PartitionId, Token


def map_of(zones: str, owners: tuple[int, ...], machines: str = "") -> ClusterMap:
    """A map with one node "n1", "n2", … for each letter of ``zones``, in the zone of that letter.

    The letters of ``machines`` name their machines; none: each has its own.
    """
    nodes = tuple(
        NodeRecord(
            id=NodeId(f"n{number}"), number=number, peer_address=f"10.0.0.{number}:7000", zone=zone, machine=machine
        )
        for number, (zone, machine) in enumerate(zip_longest(zones, machines, fillvalue=""), start=1)
    )
    return ClusterMap(
        cluster_id=ClusterId("c" * 16), epoch=1, partitions=len(owners), nodes=nodes, owners=owners, voters=(1,)
    )


@st.composite
def maps(draw: st.DrawFn) -> ClusterMap:
    """Any owners at all, balanced or not."""
    zones = draw(st.text("abcd", min_size=1, max_size=8))
    partitions = 2 ** draw(st.integers(0, 6))
    numbers = st.integers(1, len(zones))
    return map_of(zones, tuple(draw(st.lists(numbers, min_size=partitions, max_size=partitions))))


@st.composite
def maps_with_machines(draw: st.DrawFn) -> ClusterMap:
    """Any owners and machines, each machine in one zone."""
    drawn = draw(maps())
    machines = st.sampled_from(["", "v", "w"])
    nodes = tuple(
        msgspec.structs.replace(node, machine=machine and node.zone + machine)
        for node, machine in zip(drawn.nodes, [draw(machines) for _ in drawn.nodes], strict=True)
    )
    return msgspec.structs.replace(drawn, nodes=nodes)


def owning_nodes(cluster_map: ClusterMap) -> dict[NodeId, NodeRecord]:
    return {node.id: node for node in cluster_map.nodes if node.number in cluster_map.owners}


tokens = st.integers(TOKEN_MIN, TOKEN_MAX).map(Token)


@given(cluster_map=maps(), n=st.integers(1, 9))
def test_list_has_n_distinct_nodes_or_all_that_own_anything(cluster_map: ClusterMap, n: int) -> None:
    ring = Ring(cluster_map)
    for partition in range(ring.partitions):
        nodes = ring.preference_list(PartitionId(partition), n)
        assert len(nodes) == len(set(nodes)) == min(n, len(owning_nodes(cluster_map)))


@given(cluster_map=maps(), n=st.integers(1, 9))
def test_zone_is_taken_twice_only_when_zones_with_nodes_left_were_taken_as_often(
    cluster_map: ClusterMap, n: int
) -> None:
    ring, nodes = Ring(cluster_map), owning_nodes(cluster_map)
    available = Counter(node.zone for node in nodes.values())
    for partition in range(ring.partitions):
        taken = Counter(nodes[node].zone for node in ring.preference_list(PartitionId(partition), n))
        most = max(taken.values())
        assert all(taken[zone] >= min(most - 1, available[zone]) for zone in available)


@given(cluster_map=maps(), n=st.integers(1, 8))
def test_list_is_the_beginning_of_the_longer_list_and_starts_with_the_owner(cluster_map: ClusterMap, n: int) -> None:
    ring = Ring(cluster_map)
    for partition in map(PartitionId, range(ring.partitions)):
        nodes = ring.preference_list(partition, n)
        assert ring.preference_list(partition, n + 1)[: len(nodes)] == nodes
        assert nodes[0] == ring.owner(partition)


@given(cluster_map=maps(), n=st.integers(1, 9))
def test_fallbacks_are_everyone_else_in_the_order_of_the_walk(cluster_map: ClusterMap, n: int) -> None:
    ring = Ring(cluster_map)
    for partition in map(PartitionId, range(ring.partitions)):
        everyone = ring.preference_list(partition, len(cluster_map.nodes))
        assert ring.preference_list(partition, n) + ring.fallbacks(partition, n) == everyone
        assert set(everyone) == set(owning_nodes(cluster_map))


@given(cluster_map=maps() | maps_with_machines(), n=st.integers(1, 9))
def test_list_is_what_a_plain_walk_finds(cluster_map: ClusterMap, n: int) -> None:
    ring = Ring(cluster_map)
    for partition in range(ring.partitions):
        assert ring.preference_list(PartitionId(partition), n) == walked(cluster_map, partition, n)


def walked(cluster_map: ClusterMap, partition: int, n: int) -> tuple[NodeId, ...]:
    """The definition, step by step: take the first node met of a new machine whose zone was taken least often."""
    by_number = {node.number: node for node in cluster_map.nodes}
    clockwise = cluster_map.owners[partition:] + cluster_map.owners[:partition]
    waiting = [by_number[number] for number in dict.fromkeys(clockwise)]
    taken: Counter[str] = Counter()
    found: list[NodeId] = []
    while waiting and len(found) < n:
        node = min(waiting, key=lambda node: taken[node.zone])
        waiting = [other for other in waiting if other.fate != node.fate]
        taken.update((node.zone,))
        found.append(node.id)
    return tuple(found)


@given(cluster_map=maps(), n=st.integers(1, 9))
def test_node_holds_exactly_the_partitions_that_list_it(cluster_map: ClusterMap, n: int) -> None:
    ring = Ring(cluster_map)
    for partition in map(PartitionId, range(ring.partitions)):
        for node in cluster_map.nodes:
            assert ring.holds(node.id, partition, n) == (node.id in ring.preference_list(partition, n))


@pytest.mark.parametrize("exponent", range(11))
def test_ranges_tile_the_ring_in_order(exponent: int) -> None:
    ring = Ring(map_of("a", (1,) * 2**exponent))
    ranges = [ring.token_range(PartitionId(partition)) for partition in range(ring.partitions)]
    assert ranges[0][0] == TOKEN_MIN
    assert ranges[-1][1] == TOKEN_MAX
    assert all(ranges[i][1] + 1 == ranges[i + 1][0] for i in range(len(ranges) - 1))


@given(token=tokens, exponent=st.integers(0, 12))
def test_a_token_lies_in_the_range_of_its_partition(token: Token, exponent: int) -> None:
    ring = Ring(map_of("a", (1,) * 2**exponent))
    first, last = ring.token_range(ring.partition_of(token))
    assert first <= token <= last


@pytest.mark.parametrize("exponent", range(9))
def test_first_and_last_token_of_a_range_belong_to_its_partition(exponent: int) -> None:
    ring = Ring(map_of("a", (1,) * 2**exponent))
    for partition in map(PartitionId, range(ring.partitions)):
        assert [ring.partition_of(token) for token in ring.token_range(partition)] == [partition, partition]


def test_walk_wraps_around_the_end_of_the_ring() -> None:
    ring = Ring(map_of("abc", (1, 2, 3, 1)))
    assert ring.preference_list(PartitionId(2), 3) == ("n3", "n1", "n2")


def test_second_node_of_a_zone_waits_until_every_zone_was_taken() -> None:
    ring = Ring(map_of("aabc", (1, 2, 3, 4)))
    assert ring.preference_list(PartitionId(0), 3) == ("n1", "n3", "n4")
    assert ring.preference_list(PartitionId(0), 4) == ("n1", "n3", "n4", "n2")


def test_no_machine_is_taken_twice_and_its_other_nodes_stand_in_last() -> None:
    ring = Ring(map_of("aaab", (1, 2, 3, 4), "xxyz"))
    assert ring.preference_list(PartitionId(0), 4) == ("n1", "n4", "n3")
    assert ring.fallbacks(PartitionId(0), 4) == ("n2",)


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_replicas_never_share_a_machine_and_every_process_holds_a_like_share(processes: int) -> None:
    cluster_map = map_of("a" * 4 * processes, (1,) * 256, "".join(machine * processes for machine in "vwxy"))
    cluster_map = msgspec.structs.replace(cluster_map, owners=spread(cluster_map.nodes, 256))
    ring, machine_of = Ring(cluster_map), {node.id: node.machine for node in cluster_map.nodes}
    lists = [ring.preference_list(PartitionId(partition), 3) for partition in range(256)]
    assert all(len({machine_of[node] for node in nodes}) == 3 for nodes in lists)
    held = Counter(node for nodes in lists for node in nodes)
    assert max(held.values()) - min(held.values()) <= 6


def test_node_that_owns_nothing_is_on_no_list() -> None:
    ring = Ring(map_of("abc", (1, 2, 1, 2)))
    assert ring.preference_list(PartitionId(0), 3) == ("n1", "n2")


@pytest.mark.parametrize("zones", ["abc", "abcde", "aabbcc", "aaabbbccc"])
def test_first_placement_gives_every_node_a_like_share_of_replicas(zones: str) -> None:
    cluster_map = map_of(zones, (1,) * 256)
    cluster_map = msgspec.structs.replace(cluster_map, owners=spread(cluster_map.nodes, 256))
    ring = Ring(cluster_map)
    held = Counter(node for partition in range(256) for node in ring.preference_list(PartitionId(partition), 3))
    assert max(held.values()) - min(held.values()) <= 6


@st.composite
def changing(draw: st.DrawFn) -> ClusterMap:
    """A map with a change pending: some partitions get other owners, some nodes other zones."""
    drawn = draw(maps())
    numbers = st.integers(1, len(drawn.nodes))
    moves = draw(st.dictionaries(st.integers(0, drawn.partitions - 1), numbers, max_size=8))
    zones = draw(st.dictionaries(numbers, st.sampled_from("abcd"), max_size=3))
    pending = Pending(tuple(Move(PartitionId(p), to) for p, to in moves.items()), tuple(zones.items()))
    return msgspec.structs.replace(drawn, pending=pending)


def quorums(of: Collection[NodeId], size: int) -> list[set[NodeId]]:
    return [set(some) for some in combinations(of, size)]


@given(cluster_map=changing(), n=st.integers(1, 4))
def test_a_quorum_of_a_changing_list_shares_a_node_with_each_quorum_before_it_and_after_it(
    cluster_map: ClusterMap, n: int
) -> None:
    before = Ring(msgspec.structs.replace(cluster_map, pending=None))
    during, after = Ring(cluster_map), Ring(settled(cluster_map))
    for partition in map(PartitionId, range(cluster_map.partitions)):
        held = during.holders(partition, n)
        assert held.serving == before.preference_list(partition, n)
        assert held.next == after.preference_list(partition, n)
        assert set(held.members) == {*held.serving, *held.next}
        for others in before.holders(partition, n), held, after.holders(partition, n):
            for one in quorums(held.members, held.quorum):
                assert all(one & other for other in quorums(others.members, others.quorum))
        was = before.holders(partition, n)
        for some in quorums(held.members, held.meets):
            assert all(some & other for other in quorums(was.members, was.quorum))


@given(cluster_map=changing(), n=st.integers(1, 4), data=st.data())
def test_as_many_serving_and_next_nodes_answer_as_without_a_change(
    cluster_map: ClusterMap, n: int, data: st.DataObject
) -> None:
    ring = Ring(cluster_map)
    for partition in map(PartitionId, range(cluster_map.partitions)):
        held = ring.holders(partition, n)
        fewest = min(len(held.serving), len(held.next))
        count = data.draw(st.integers(1, fewest))
        need = held.needed(Need(count, count))
        for some in quorums(held.members, need.nodes):
            assert min(len(some & set(held.serving)), len(some & set(held.next))) >= count


def test_without_a_change_a_quorum_is_a_majority_and_nobody_is_new() -> None:
    ring = Ring(map_of("abc", (1, 2, 3, 1)))
    held = ring.holders(PartitionId(0), 3)
    assert (held.quorum, held.meets, held.extra, held.newcomers, held.leaving) == (2, 2, 0, (), ())
    assert held.members is held.serving


@given(cluster_map=maps_with_machines(), rng=st.randoms(use_true_random=False))
def test_a_ring_that_takes_over_the_walks_of_the_one_before_it_is_as_one_made_anew(
    cluster_map: ClusterMap, rng: random.Random
) -> None:
    current, ring = cluster_map, Ring(cluster_map)
    for _ in range(4):
        assert ring.preference_list(PartitionId(0), 3)
        moved = Move(PartitionId(rng.randrange(current.partitions)), rng.choice(current.nodes).number)
        anywhere = tuple(rng.choice(current.nodes).number for _ in current.owners)
        current = rng.choice(
            [
                msgspec.structs.replace(current, pending=Pending((moved,))),
                msgspec.structs.replace(current, pending=Pending(zones=((current.nodes[0].number, "z"),))),
                msgspec.structs.replace(current, pending=None),
                msgspec.structs.replace(current, owners=anywhere),
                settled(current),
            ]
        )
        ring, anew = Ring(current, before=ring), Ring(current)
        for partition in map(PartitionId, range(current.partitions)):
            assert ring.owner(partition) == anew.owner(partition)
            for rule in (1, 3):
                assert ring.holders(partition, rule) == anew.holders(partition, rule)
                assert ring.fallbacks(partition, rule) == anew.fallbacks(partition, rule)
