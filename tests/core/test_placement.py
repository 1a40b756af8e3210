"""Placement: balance, distinct neighbours, zones in turn."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.placement import far_apart_first, spread
from merganser.model.cluster import NodeRecord
from merganser.model.ids import NodeId


def nodes_in(zones: str) -> list[NodeRecord]:
    """One node for each letter, numbered from 1, in the zone of that letter."""
    return [
        NodeRecord(id=NodeId(f"{number:016x}"), number=number, peer_address=f"10.0.0.{number}:7000", zone=zone)
        for number, zone in enumerate(zones, start=1)
    ]


def stretches(names: list[str], length: int) -> list[list[str]]:
    """All runs of ``length`` around the circle."""
    doubled = names + names
    return [doubled[start : start + length] for start in range(len(names))]


clusters = st.text("abcde", min_size=1, max_size=20).map(nodes_in)
powers_of_two = st.integers(0, 9).map(lambda exponent: 2**exponent)


@given(nodes=clusters, partitions=powers_of_two)
def test_no_node_owns_two_partitions_more_than_another(nodes: list[NodeRecord], partitions: int) -> None:
    owned = Counter(spread(nodes, partitions))
    counts = [owned[node.number] for node in nodes]
    assert sum(counts) == partitions
    assert max(counts) - min(counts) <= 1


@given(nodes=clusters.filter(lambda nodes: len(nodes) > 1), partitions=powers_of_two.filter(lambda q: q > 1))
def test_neighbouring_partitions_have_distinct_owners_all_around_the_ring(
    nodes: list[NodeRecord], partitions: int
) -> None:
    owners = spread(nodes, partitions)
    assert all(owners[i - 1] != owners[i] for i in range(partitions))


@given(nodes=clusters, partitions=powers_of_two, data=st.data())
def test_order_in_which_nodes_are_given_does_not_matter(
    nodes: list[NodeRecord], partitions: int, data: st.DataObject
) -> None:
    assert spread(data.draw(st.permutations(nodes)), partitions) == spread(nodes, partitions)


@pytest.mark.parametrize("zones", ["abcd", "aabbccdd", "aaaabbbbccccdddd", "abcdefgh", "ab", "aabb"])
def test_equal_zones_that_divide_q_never_repeat_within_their_number(zones: str) -> None:
    zone_of = {node.number: node.zone for node in nodes_in(zones)}
    around = [zone_of[number] for number in spread(nodes_in(zones), 256)]
    length = len(set(zones))
    assert all(len(set(run)) == length for run in stretches(around, length))


@pytest.mark.parametrize("zones", ["abc", "aabbcc", "aaabbbccc", "abcde", "aabbccddee", "abcdefg"])
def test_three_neighbours_lie_in_three_zones_of_equal_size_but_for_the_seam(zones: str) -> None:
    zone_of = {node.number: node.zone for node in nodes_in(zones)}
    around = [zone_of[number] for number in spread(nodes_in(zones), 256)]
    repeated = [run for run in stretches(around, 3) if len(set(run)) < 3]
    assert len(repeated) <= 4  # of 256, where the tail meets the start


def test_a_small_zone_lies_evenly_between_the_nodes_of_a_large_one() -> None:
    zone_of = {node.number: node.zone for node in nodes_in("aaaabb")}
    assert "".join(zone_of[number] for number in spread(nodes_in("aaaabb"), 6)) == "abaaba"


def test_fewer_partitions_than_nodes_leave_some_nodes_without() -> None:
    assert len(set(spread(nodes_in("abcabc"), 4))) == 4


def test_one_node_owns_everything() -> None:
    assert spread(nodes_in("a"), 4) == (1, 1, 1, 1)


def test_far_apart_first_takes_zones_in_rounds_and_keeps_the_order_within() -> None:
    assert [node.number for node in far_apart_first(nodes_in("aabacb"))] == [1, 3, 5, 2, 6, 4]


def test_nodes_of_one_machine_lie_as_far_apart_as_there_are_machines() -> None:
    nodes = [
        msgspec.structs.replace(node, machine=machine)
        for node, machine in zip(nodes_in("a" * 6), "vvwwxx", strict=True)
    ]
    assert spread(nodes, 6) == (1, 3, 5, 2, 4, 6)
