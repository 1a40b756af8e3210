"""Who owns which partition.

`spread` gives the first owners of a new cluster: one cycle through all nodes, zones in turn, laid
around the ring again and again, and within a zone machines in turn. When the number of nodes does not divide Q, a
stretch of the cycle (the *tail*) fills the rest; it is chosen so that a zone, then a machine, then a node, repeats as
late as possible where the tail meets the start.

Invariants: any two nodes own as many partitions, give or take one; neighbouring partitions have
distinct owners (from two nodes on); every stretch of the ring that does not touch the tail has
distinct owners as long as it is no longer than the number of nodes, and distinct zones as long as it
is no longer than the number of zones, if those are equally large; likewise machines.

Source: DeCandia 2007 §6.2, strategy 3 (Q/S partitions for each node, equal in size).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from merganser.model.cluster import NodeRecord


def spread(nodes: Sequence[NodeRecord], partitions: int) -> tuple[int, ...]:
    """Return the number of the owner of each partition; the order of ``nodes`` does not matter.

    Args:
        nodes: at least one, numbers distinct.
        partitions: Q, at least 1; with fewer partitions than nodes some nodes own none.
    """
    assert nodes, "a cluster has at least one node"
    cycle = _zones_evenly(nodes)
    rounds, rest = divmod(partitions, len(cycle))
    owners = [*cycle * rounds, *_tail(cycle, rest)] if rounds else cycle[:partitions]
    return tuple(node.number for node in owners)


def far_apart_first(nodes: Iterable[NodeRecord]) -> list[NodeRecord]:
    """Return ``nodes`` reordered: one of each machine, zones in turn, then the second of each machine, and so on.

    Any beginning of the result takes a machine twice only when all machines that have nodes left were taken equally
    often, and among the nodes that leaves, a zone only when all their zones were. Else the given order is kept.
    """
    on_machine: Counter[str] = Counter()
    in_zone: Counter[tuple[str, str]] = Counter()
    ordered: list[NodeRecord] = []
    rounds: list[list[NodeRecord]] = []
    for node in nodes:
        if on_machine[node.fate] == len(rounds):
            rounds.append([])
        rounds[on_machine[node.fate]].append(node)
        on_machine[node.fate] += 1
    for members in rounds:
        ranked = []
        for node in members:
            ranked.append((in_zone[node.domain], node))
            in_zone[node.domain] += 1
        ranked.sort(key=lambda rank_and_node: rank_and_node[0])
        ordered += [node for _, node in ranked]
    return ordered


def data_centers_in_turn(nodes: Sequence[NodeRecord], before: Sequence[NodeRecord] = ()) -> list[NodeRecord]:
    """Return ``nodes`` reordered: always next one of the data centre that has had fewest, those ``before`` included."""
    had = Counter(node.data_center for node in before)
    left, ordered = list(nodes), list[NodeRecord]()
    while left:
        chosen = min(left, key=lambda node: had[node.data_center])
        left.remove(chosen)
        ordered.append(chosen)
        had[chosen.data_center] += 1
    return ordered


def _zones_evenly(nodes: Sequence[NodeRecord]) -> list[NodeRecord]:
    """Order ``nodes`` so that each zone's nodes lie evenly along the result, its machines in turn."""
    zones: dict[tuple[str, str], list[NodeRecord]] = defaultdict(list)
    for node in far_apart_first(sorted(nodes, key=lambda node: node.number)):
        zones[node.domain].append(node)
    placed = [
        ((2 * rank + 1) / len(members), zone, node)
        for zone, members in zones.items()
        for rank, node in enumerate(members)
    ]
    placed.sort(key=lambda entry: entry[:2])
    return [node for _, _, node in placed]


def _tail(cycle: list[NodeRecord], length: int) -> list[NodeRecord]:
    """Return the stretch of ``cycle`` that best fits between its end and its start."""
    stretches = [cycle[start : start + length] for start in range(len(cycle) - length + 1)]
    return max(stretches, key=lambda tail: _seam_quality(cycle, tail))


def _seam_quality(cycle: list[NodeRecord], tail: list[NodeRecord]) -> tuple[int, int, int, int]:
    """Rank a tail: neighbours differ first, then zones repeat late, then machines, then nodes do."""
    seam = [*cycle, *tail, *cycle]
    nodes_apart = _shortest_return([node.number for node in seam])
    zones_apart = _shortest_return([node.domain for node in seam])
    machines_apart = _shortest_return([node.fate for node in seam])
    return min(nodes_apart, 2), zones_apart, machines_apart, nodes_apart


def _shortest_return(names: Sequence[object]) -> int:
    """Return the least distance between two equal names; the length if all differ."""
    last_seen: dict[object, int] = {}
    shortest = len(names)
    for position, name in enumerate(names):
        shortest = min(shortest, position - last_seen.get(name, -len(names)))
        last_seen[name] = position
    return shortest
