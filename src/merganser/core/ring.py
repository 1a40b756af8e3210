"""Which nodes hold which keys, at one epoch.

The ring is the range of tokens, cut into Q equal partitions; partition 0 starts at TOKEN_MIN and ids
grow clockwise, so a partition id is the top bits of its tokens. The preference list of a partition is
found by walking clockwise from it: each machine once, and a zone twice only when all zones with nodes left were taken
equally often, until there are N nodes, or no more machines: a cluster that is smaller than N keeps fewer replicas, and
more as it grows. Nodes that own no partition are on no list. Zones of one name in two data centres are two.

A list belongs to a *rule* (`Table.rule`): N, or a policy (`model.policy`), whose walk leaves out the nodes that it does
not allow. Where it says how many replicas are in which data centre, there is a walk for each of them, and the data
centre of the first node that the policy allows clockwise from the partition comes first.

The nodes further along the walk are the fallbacks of the partition, in that order (core.hint_policy).

While a change of the ring is pending, each partition has two lists: those who *serve* it, by the ring as it is, and
the *next* ones, by the ring, and the policies, as they will be. Who is on the second alone is a newcomer, and comes
last on the preference list: it is sent what the others are, and its answers count, but it leads nothing and answers for
nobody alone. A `quorum` of the list has a majority of either among it, whichever nodes make it up, so that it meets
what any majority of the serving ones has done before, and any majority of the next ones will meet it.

Invariants: the list for N is the beginning of the list for N+1, newcomers aside; its first node is the partition's
owner, if the rule allows it; no two serving nodes are on one machine; serving nodes and fallbacks together are every
node that owns anything and that the rule allows, each once; token ranges tile the ring without gap or overlap.

A ring is built once per epoch and never changes; lists are computed for all partitions when a rule is
first asked for, and kept.

Source: DeCandia 2007 §4.2, §4.3, §4.6 (fallbacks), §6.2 (strategy 3); Ongaro 2014, §4.3 (joint consensus).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from merganser.core import policies
from merganser.core.leadership import majority
from merganser.core.placement import far_apart_first
from merganser.core.token import TOKEN_MIN
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId, Token
from merganser.model.policy import FIRST_POLICY, Policy

_TOKEN_BITS = 64


class Ring:
    """The owners of one cluster map, ready to be asked."""

    __slots__ = (
        "_counted_in",
        "_fallbacks",
        "_holders",
        "_lists",
        "_next",
        "_next_walks",
        "_now",
        "_policies",
        "_policies_next",
        "_shift",
        "_walks",
        "data_centers",
        "epoch",
        "partitions",
    )

    def __init__(self, cluster_map: ClusterMap, *, before: Ring | None = None) -> None:
        """Be ready for ``cluster_map``, which has passed `cluster_map.check`.

        What ``before`` knows of walks is true here as well where owners and nodes are the same. When partitions move
        that is so of two maps in three, on every node of the cluster, in the middle of requests.
        """
        self.epoch = cluster_map.epoch
        self.partitions = cluster_map.partitions
        """Q."""
        self._shift = _TOKEN_BITS - (self.partitions.bit_length() - 1)
        self._now = cluster_map
        self._next = settled(cluster_map)
        self._policies: dict[int, Policy] = dict(cluster_map.policies)
        self._policies_next: dict[int, Policy] = dict(self._next.policies)
        self._counted_in: dict[int, frozenset[str] | None] = {}
        self._walks: dict[Policy, _Walk] = {} if before is None else before._walks_over(self._now)
        self._next_walks = self._walks
        if self._next is not self._now:
            self._next_walks = {} if before is None else before._walks_over(self._next)
        self._lists: dict[int, tuple[tuple[NodeId, ...], ...]] = {}
        self._holders: dict[int, tuple[Holders, ...]] = {}
        self._fallbacks: dict[tuple[PartitionId, int], tuple[NodeId, ...]] = {}
        self.data_centers: Mapping[NodeId, str] = {node.id: node.data_center for node in cluster_map.nodes}
        """Of each member."""

    def partition_of(self, token: Token) -> PartitionId:
        """Return the partition that ``token`` lies in."""
        return PartitionId((token - TOKEN_MIN) >> self._shift)

    def token_range(self, partition: PartitionId) -> tuple[Token, Token]:
        """Return the first and the last token of ``partition``."""
        first = TOKEN_MIN + (partition << self._shift)
        return Token(first), Token(first + (1 << self._shift) - 1)

    def owner(self, partition: PartitionId) -> NodeId:
        """Return the node that ``partition`` is assigned to, first on its preference lists."""
        return self._walk(Policy(1)).owners[partition].id

    def preference_list(self, partition: PartitionId, rule: int) -> tuple[NodeId, ...]:
        """Return the nodes that hold ``partition`` by ``rule``, as many as there are machines if less; newcomers last.

        Nobody if the rule is a policy that this map does not have.
        """
        lists = self._lists.get(rule)
        return (lists or self._make_lists(rule))[partition]

    def holders(self, partition: PartitionId, rule: int) -> Holders:
        """Return the replicas of ``partition`` by ``rule``, and how many of them decide."""
        holders = self._holders.get(rule)
        if holders is None:
            self._make_lists(rule)
            holders = self._holders[rule]
        return holders[partition]

    def fallbacks(self, partition: PartitionId, rule: int) -> tuple[NodeId, ...]:
        """Return the other nodes that may hold it: who stands in for a primary that is away, best first."""
        found = self._fallbacks.get((partition, rule))
        if found is None:
            members = self.preference_list(partition, rule)
            allowed = self._walk(self._policy(rule)).whole(partition)
            if self._policy(rule) != self._policy(rule, is_next=True):
                wanted = set(self._walk(self._policy(rule, is_next=True)).whole(partition))
                allowed = tuple(node for node in allowed if node in wanted)
            found = tuple(node for node in allowed if node not in members)
            self._fallbacks[partition, rule] = found
        return found

    def holds(self, node: NodeId, partition: PartitionId, rule: int) -> bool:
        """Tell whether ``node`` is among those who hold ``partition``, be it as a newcomer."""
        return node in self.preference_list(partition, rule)

    def allows(self, node: NodeRecord, rule: int) -> bool:
        """Tell whether ``node`` may keep anything of tables of ``rule``, hints included; by their next policy, too."""
        both = self._policy(rule), self._policy(rule, is_next=True)
        return all(policy.allows(node.data_center, node.zone) for policy in both)

    def counted_in(self, rule: int) -> frozenset[str] | None:
        """Return the data centres that each have a number of replicas of their own, the same of every key.

        None if it is left to the ring how many are where.
        """
        if rule not in self._counted_in:
            self._counted_in[rule] = self._data_centers_of(self._policy(rule))
        return self._counted_in[rule]

    def to_be_counted_in(self, rule: int) -> frozenset[str] | None:
        """Return the same as `counted_in`, once what is pending is done."""
        return self._data_centers_of(self._policy(rule, is_next=True))

    def _data_centers_of(self, policy: Policy) -> frozenset[str] | None:
        if policy.replicas:
            return frozenset(name for name, _ in policy.replicas)
        places = {node.data_center for node in self._now.nodes if policy.allows(node.data_center, node.zone)}
        return frozenset(places) if len(places) == 1 else None

    def _policy(self, rule: int, *, is_next: bool = False) -> Policy:
        known = self._policies_next if is_next else self._policies
        return known.get(rule) or Policy(rule if rule < FIRST_POLICY else 0)

    def _walk(self, policy: Policy, *, is_next: bool = False) -> _Walk:
        walks = self._next_walks if is_next else self._walks
        walk = walks.get(policy)
        if walk is None:
            walk = walks[policy] = _Walk(self._next if is_next else self._now, policy)
        return walk

    def _walks_over(self, layout: ClusterMap) -> dict[Policy, _Walk]:
        """Return the walks over the same owners and nodes, to which more may be added."""
        for known, walks in (self._next, self._next_walks), (self._now, self._walks):
            if known.owners == layout.owners and known.nodes == layout.nodes:
                return walks
        return {}

    def _make_lists(self, rule: int) -> tuple[tuple[NodeId, ...], ...]:
        serving = self._firsts(rule, is_next=False)
        coming = serving if self._next is self._now else self._firsts(rule, is_next=True)
        holders = self._holders[rule] = tuple(map(holders_of, serving, coming))
        lists = self._lists[rule] = tuple(held.members for held in holders)
        return lists

    def _firsts(self, rule: int, *, is_next: bool) -> list[tuple[NodeId, ...]]:
        policy = self._policy(rule, is_next=is_next)
        if not policy.replicas:
            return self._walk(policy, is_next=is_next).firsts(policy.n)
        parts = {
            name: self._walk(Policy(count, data_centers=(name,), zones=policy.zones), is_next=is_next).firsts(count)
            for name, count in policy.replicas
        }
        names = list(parts)
        found = []
        for partition, first in enumerate(self._walk(policy, is_next=is_next).data_centers()):
            at = names.index(first) if first in parts else 0
            found.append(tuple(node for name in names[at:] + names[:at] for node in parts[name][partition]))
        return found


def settled(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` with what is pending done; its epoch stays."""
    pending = cluster_map.pending
    if pending is None:
        return cluster_map
    owners, zones = list(cluster_map.owners), dict(pending.zones)
    for move in pending.moves:
        owners[move.partition] = move.to
    nodes = tuple(
        msgspec.structs.replace(node, zone=zones[node.number]) if node.number in zones else node
        for node in cluster_map.nodes
    )
    settled_map = msgspec.structs.replace(cluster_map, owners=tuple(owners), nodes=nodes, pending=None)
    return policies.changed(settled_map, pending.policies)


def holders_of(serving: tuple[NodeId, ...], coming: tuple[NodeId, ...]) -> Holders:
    """Return the holders of a partition that ``serving`` hold now, and ``coming`` will; both in order, best first."""
    newcomers = [node for node in coming if node not in serving]
    if not newcomers and len(coming) == len(serving):
        most = majority(len(serving))
        return Holders(serving, serving, coming, most, len(serving) - most + 1)
    members = (*serving, *newcomers)
    return Holders(
        members,
        serving,
        coming,
        quorum=max(_with_most_of(serving, members), _with_most_of(coming, members)),
        meets=len(members) - majority(len(serving)) + 1,
    )


def _with_most_of(nodes: Sequence[NodeId], members: Sequence[NodeId]) -> int:
    """Return how many of ``members`` have a majority of ``nodes`` among them, whichever they are."""
    return len(members) - len(nodes) + majority(len(nodes))


class _Walk:
    """Walks clockwise from the partitions of one map, over the nodes that a policy allows."""

    def __init__(self, cluster_map: ClusterMap, policy: Policy) -> None:
        by_number = {node.number: node for node in cluster_map.nodes}
        self.owners = [by_number[number] for number in cluster_map.owners]
        """Of all partitions, allowed or not."""
        self._allowed = {node.number for node in cluster_map.nodes if policy.allows(node.data_center, node.zone)}
        owning = {node.number: node for node in self.owners if node.number in self._allowed}.values()
        zones = {node.fate: node.domain for node in owning}
        self._in_zone = Counter(zones.values())
        """Machines in each zone that own anything."""
        self._firsts: dict[int, list[tuple[NodeId, ...]]] = {}

    def firsts(self, n: int) -> list[tuple[NodeId, ...]]:
        """Return the first ``n`` nodes of the walk from each partition, each of another machine.

        A walk ends as soon as it is known who they are, after a few steps more than ``n`` as a rule.
        """
        n = min(n, self._in_zone.total())
        found = self._firsts.get(n)
        if found is None:
            wanted = self._wanted(n)
            found = self._firsts[n] = [self._first(start, wanted) for start in range(len(self.owners))]
        return found

    def whole(self, partition: PartitionId) -> tuple[NodeId, ...]:
        """Return every node that owns anything and is allowed, in the order of the walk."""
        clockwise = self.owners[partition:] + self.owners[:partition]
        others = {node.number: node for node in clockwise if node.number in self._allowed}
        return tuple(node.id for node in far_apart_first(others.values()))

    def data_centers(self) -> list[str]:
        """Return the data centre of the first node of the walk from each partition; "" if there is none."""
        found, latest = [""] * len(self.owners), ""
        for at in 2 * [*reversed(range(len(self.owners)))]:
            if self.owners[at].number in self._allowed:
                latest = self.owners[at].data_center
            found[at] = latest
        return found

    def _wanted(self, n: int) -> list[int]:
        """Return how many of ``n`` nodes are the first of their zones, how many the second, and so on."""
        wanted: list[int] = []
        while n > 0:
            most = sum(count > len(wanted) for count in self._in_zone.values())
            wanted.append(min(n, most))
            n -= most
        return wanted

    def _first(self, start: int, wanted: Sequence[int]) -> tuple[NodeId, ...]:
        ranks: list[list[NodeId]] = [[] for _ in wanted]
        left, owners, allowed = sum(wanted), self.owners, self._allowed
        if not left:
            return ()
        seen: dict[str, NodeRecord] = {}
        in_zone: Counter[tuple[str, str]] = Counter()
        for step in range(start, start + len(owners)):
            node = owners[step % len(owners)]
            if node.fate in seen or node.number not in allowed:
                continue
            seen[node.fate] = node
            rank = in_zone[node.domain]
            in_zone[node.domain] += 1
            if rank < len(wanted) and len(ranks[rank]) < wanted[rank]:
                ranks[rank].append(node.id)
                left -= 1
                if not left:
                    return tuple(node for rank in ranks for node in rank)
        # only where the nodes of a machine say that they are in several zones
        return tuple(node.id for node in far_apart_first(seen.values()))[: sum(wanted)]
