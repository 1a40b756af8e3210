"""Which nodes hold which keys, at one epoch.

The ring is the range of tokens, cut into Q equal partitions; partition 0 starts at TOKEN_MIN and ids
grow clockwise, so a partition id is the top bits of its tokens. The preference list of a partition is
found by walking clockwise from it: each node once, a machine twice only when all machines with nodes left were taken
equally often, and else a zone twice only when all zones with nodes left were, until there are N nodes or no more.
Nodes that own no partition are on no list.

The nodes further along the walk are the fallbacks of the partition, in that order (core.hint_policy).

Invariants: the list for N is the beginning of the list for N+1; its first node is the partition's
owner; preference list and fallbacks together are every node that owns anything, each once; token
ranges tile the ring without gap or overlap.

A ring is built once per epoch and never changes; lists are computed for all partitions when an N is
first asked for, and kept.

Source: DeCandia 2007 §4.2, §4.3, §4.6 (fallbacks), §6.2 (strategy 3).
"""

from __future__ import annotations

from merganser.core.placement import far_apart_first
from merganser.core.token import TOKEN_MIN
from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId, PartitionId, Token

_TOKEN_BITS = 64


class Ring:
    """The owners of one cluster map, ready to be asked."""

    __slots__ = ("_lists", "_owners", "_shift", "_walks", "epoch", "partitions")

    def __init__(self, cluster_map: ClusterMap) -> None:
        """Compute the walk from every partition; ``cluster_map`` has passed `cluster_map.check`."""
        self.epoch = cluster_map.epoch
        self.partitions = cluster_map.partitions
        """Q."""
        self._shift = _TOKEN_BITS - (self.partitions.bit_length() - 1)
        self._walks = _walks(cluster_map)
        self._owners = tuple(walk[0] for walk in self._walks)
        self._lists: dict[int, tuple[tuple[NodeId, ...], ...]] = {}

    def partition_of(self, token: Token) -> PartitionId:
        """Return the partition that ``token`` lies in."""
        return PartitionId((token - TOKEN_MIN) >> self._shift)

    def token_range(self, partition: PartitionId) -> tuple[Token, Token]:
        """Return the first and the last token of ``partition``."""
        first = TOKEN_MIN + (partition << self._shift)
        return Token(first), Token(first + (1 << self._shift) - 1)

    def owner(self, partition: PartitionId) -> NodeId:
        """Return the node that ``partition`` is assigned to, first on its preference lists."""
        return self._owners[partition]

    def preference_list(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """Return the ``n`` nodes that hold ``partition``, or all that own anything if they are fewer."""
        lists = self._lists.get(n)
        return (lists or self._make_lists(n))[partition]

    def fallbacks(self, partition: PartitionId, n: int) -> tuple[NodeId, ...]:
        """Return the nodes after the first ``n``: who stands in for a primary that is away, best first."""
        return self._walks[partition][n:]

    def holds(self, node: NodeId, partition: PartitionId, n: int) -> bool:
        """Tell whether ``node`` is among the first ``n`` for ``partition``."""
        return node in self.preference_list(partition, n)

    def _make_lists(self, n: int) -> tuple[tuple[NodeId, ...], ...]:
        lists = self._lists[n] = tuple(walk[:n] for walk in self._walks)
        return lists


def _walks(cluster_map: ClusterMap) -> list[tuple[NodeId, ...]]:
    """Return, for each partition, every owner in the order in which it is taken.

    The order in which owners come clockwise from a partition is the order from the next partition with
    this one's owner moved to the front, so the ring is gone through backwards, in O(Q * nodes).
    """
    by_number = {node.number: node for node in cluster_map.nodes}
    clockwise = [by_number[number] for number in dict.fromkeys(cluster_map.owners)]
    walks = []
    for number in reversed(cluster_map.owners):
        owner = by_number[number]
        clockwise.remove(owner)
        clockwise.insert(0, owner)
        walks.append(tuple(node.id for node in far_apart_first(clockwise)))
    walks.reverse()
    return walks
