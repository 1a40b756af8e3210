"""How well partitions lie: what moves when nodes come, and how even the load is, beside Dynamo's other strategies.

    python -m merganser.bench.placement

Nothing is started; the figures are the same on every machine. Load balancing efficiency is that of DeCandia 2007 §6.2,
figure 8: the load of an average node over that of the most loaded one. A node's load is the share of keys whose
preference list of N = 3 it is on.
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from merganser.core.placement import spread
from merganser.core.planner import Member, least_moves, moves, plan, repetitions
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.ids import ClusterId, NodeId, PartitionId

N = 3
NODES = 30
"""S of the paper's figure 8."""
RING = 2**64
SEEDS = 20
STEPS = (3, 4, 5, 6, 9, 10, 12, 20, 30, 50, 99, 100)

ZONES: dict[str, Callable[[int], str]] = {
    "no zones": lambda _: "",
    "three equal zones": lambda i: f"zone-{i % 3}",
    "zones of 1 : 1 : 3": lambda i: f"zone-{min(i % 5, 2)}",
}


def growth(zone_of: Callable[[int], str], partitions: int) -> list[str]:
    """Return a line for each size that a cluster grows to: what moved, and how even it is."""
    members = [Member(i + 1, zone=zone_of(i)) for i in range(STEPS[0])]
    owners = spread([_record(member) for member in members], partitions)
    lines = []
    for size in STEPS[1:]:
        members = [Member(i + 1, zone=zone_of(i)) for i in range(size)]
        after = plan(owners, members)
        moved, least = len(list(moves(owners, after))), least_moves(owners, members)
        owned = Counter(after)
        replicas = _replicas(after, members)
        ideal = N * partitions / size
        repeated = repetitions(after, members)
        lines.append(
            f"{size:5}{moved:8}{least:8}{moved / max(least, 1):9.2f}{min(owned.values()):9} to {max(owned.values()):<4}"
            f"{min(replicas.values()) / ideal:9.2f} to {max(replicas.values()) / ideal:.2f}{repeated['node']:8}"
        )
        owners = after
    return lines


def _record(member: Member) -> NodeRecord:
    return NodeRecord(NodeId(f"{member.number:016x}"), member.number, "", {}, member.zone, member.fate)


def _replicas(owners: Sequence[int], members: Sequence[Member]) -> Counter[NodeId]:
    nodes = tuple(map(_record, members))
    ring = Ring(ClusterMap(ClusterId("0" * 16), 1, len(owners), nodes, tuple(owners), (1,)))
    return Counter(node for at in range(len(owners)) for node in ring.preference_list(PartitionId(at), N))


def efficiency(load: Counter[int]) -> float:
    """Return the load of an average node over that of the most loaded."""
    return load.total() / NODES / max(load.values())


def by_random_tokens(tokens_per_node: int, rng: random.Random) -> Counter[int]:
    """Return each node's load under strategy 1: random tokens, and ranges between them."""
    tokens, nodes = _tokens(tokens_per_node, rng)
    load: Counter[int] = Counter()
    for at, token in enumerate(tokens):
        for node in _following(nodes, at):
            load[node] += (token - tokens[at - 1]) % RING
    return load


def by_random_tokens_over_equal_partitions(tokens_per_node: int, partitions: int, rng: random.Random) -> Counter[int]:
    """Return each node's load under strategy 2: random tokens, and equal ranges that belong to the next ones."""
    tokens, nodes = _tokens(tokens_per_node, rng)
    load: Counter[int] = Counter()
    for partition in range(partitions):
        at = bisect.bisect_left(tokens, (partition + 1) * (RING // partitions)) % len(tokens)
        load.update(_following(nodes, at))
    return load


def by_equal_partitions(partitions: int) -> Counter[int]:
    """Return each node's load under strategy 3, as it is here: equal ranges, as many for each node."""
    members = [Member(i + 1) for i in range(NODES)]
    held = _replicas(spread([_record(member) for member in members], partitions), members)
    return Counter(dict(enumerate(held.values())))


def _tokens(per_node: int, rng: random.Random) -> tuple[list[int], list[int]]:
    placed = sorted((rng.randrange(RING), node) for node in range(NODES) for _ in range(per_node))
    return [token for token, _ in placed], [node for _, node in placed]


def _following(nodes: Sequence[int], at: int) -> list[int]:
    """Return the first N distinct nodes from a token on."""
    found: list[int] = []
    while len(found) < N:
        if nodes[at % len(nodes)] not in found:
            found.append(nodes[at % len(nodes)])
        at += 1
    return found


def strategies() -> list[str]:
    """Return a line for each number of tokens: the efficiency of the three strategies."""
    lines = []
    for tokens in 1, 4, 16, 64, 128:
        partitions = NODES * tokens
        first = mean(efficiency(by_random_tokens(tokens, random.Random(seed))) for seed in range(SEEDS))
        second = mean(
            efficiency(by_random_tokens_over_equal_partitions(tokens, max(partitions, 4096), random.Random(seed)))
            for seed in range(SEEDS)
        )
        power = 1 << (partitions - 1).bit_length()
        lines.append(f"{tokens:7}{first:12.2f}{second:12.2f}{efficiency(by_equal_partitions(power)):12.2f}{power:9}")
    return lines


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--partitions", type=int, default=256)
    partitions = parser.parse_args().partitions
    out = sys.stdout.write
    for name, zone_of in ZONES.items():
        out(f"{name}, {partitions} partitions\n")
        out("nodes   moved   least   ratio   partitions   replicas / ideal   twice in a window\n")
        out("\n".join(growth(zone_of, partitions)) + "\n\n")
    out(f"load balancing efficiency, {NODES} nodes, N = {N} (1 and 2: mean of {SEEDS} draws)\n")
    out(" tokens  strategy 1  strategy 2  strategy 3   with Q\n")
    out("\n".join(strategies()) + "\n")


if __name__ == "__main__":
    main()
