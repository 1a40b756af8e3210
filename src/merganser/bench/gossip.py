"""What nodes say to one another without being asked, as the cluster grows: bytes and messages of one node.

    python -m merganser.bench.gossip

Nothing is started. The ring has grown from three nodes, twice as many each time, as `core.planner` plans it, and is
cut so finely that each node owns at least 16 partitions. The messages are those that nodes send, in the frames in which
they travel; what the failure detector says is taken from `sim.detection`, without loss. A node receives as much again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import msgspec

from merganser.core.leadership import PULSE_S, Elections, succession
from merganser.core.placement import spread
from merganser.core.planner import REPLICAS, Member, plan
from merganser.core.ring import Ring
from merganser.model import versions
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.leader_messages import Pulse, Pulsed
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import FetchMap, MapIs
from merganser.net.frame_bodies import Answer, Call
from merganser.net.frames import encode
from merganser.service.map_news import GOSSIP_INTERVAL_S, PUSHES_MAX
from merganser.sim.detection import Plan, measure

SIZES = (3, 10, 100, 1_000)
OWNED_LEAST = 16
PARTITIONS_LEAST = 256
EPOCH = 1_000
"""Of each group, and of the map: numbers of a usual length."""
QUIET_S = 30.0
_REQUEST_ID = 100_000
_TIMEOUT_MS = 1_000


class Gossip(msgspec.Struct, frozen=True):
    """What is so in a cluster of one size; bytes and messages are those that a node sends in a second."""

    nodes: int
    partitions: int
    map_bytes: int
    planned_s: float
    """To plan for one node more, measured."""
    detector_bytes: float
    news_bytes: float
    """Asking for a newer map, and answering that there is none."""
    pulse_peers: float
    """To how many a node sends pulses: those that share a group with it."""
    pulse_bytes: float
    pushes: int
    """By whoever has changed the map."""
    known_s: float
    """From then until all know it, by asking alone; the mean of some draws."""


def ring_of(nodes: int) -> ClusterMap:
    """Return the map of a cluster that has grown to ``nodes`` nodes."""
    partitions = PARTITIONS_LEAST
    while partitions < OWNED_LEAST * nodes:
        partitions *= 2
    records = tuple(
        NodeRecord(
            NodeId(f"{random.Random(number).getrandbits(64):016x}"),
            number,
            f"10.0.{number // 250}.{number % 250 + 1}:7000",
            {"dynamodb": f"10.0.{number // 250}.{number % 250 + 1}:8000", "admin": "127.0.0.1:7800"},
            zone=f"zone-{number % 3}",
            speaks=versions.NEWEST,
        )
        for number in range(1, nodes + 1)
    )
    owners = spread(records[:3], partitions)
    size = 3
    while size < nodes:
        size = min(2 * size, nodes)
        owners = plan(owners, [_member(record) for record in records[:size]])
    return ClusterMap(ClusterId("0" * 16), EPOCH, partitions, records, owners, tuple(range(1, min(nodes, 5) + 1)))


def _member(record: NodeRecord) -> Member:
    return Member(record.number, zone=record.zone)


def measured(nodes: int) -> Gossip:
    """Return what a cluster of ``nodes`` comes to."""
    current = ring_of(nodes)
    began = time.perf_counter()
    plan(current.owners, [*map(_member, current.nodes), Member(nodes + 1, zone=f"zone-{(nodes + 1) % 3}")])
    planned_s = time.perf_counter() - began
    peers, pulse_bytes = pulses(current)
    asked = encode(Call(_REQUEST_ID, _TIMEOUT_MS, FetchMap(EPOCH)))
    answered = encode(Answer(_REQUEST_ID, MapIs(EPOCH, None)))
    found = measure(Plan(nodes, loss=0.0, quiet_s=QUIET_S, crashes=0, runs=1))
    return Gossip(
        nodes=nodes,
        partitions=current.partitions,
        map_bytes=len(msgspec.msgpack.encode(current)),
        planned_s=planned_s,
        detector_bytes=found.sent_bytes / found.quiet_node_s,
        news_bytes=(len(asked) + len(answered)) / GOSSIP_INTERVAL_S,
        pulse_peers=peers,
        pulse_bytes=pulse_bytes,
        pushes=min(nodes - 1, PUSHES_MAX + len(current.voters)),
        known_s=known_after_s(nodes, min(nodes, PUSHES_MAX + len(current.voters) + 1)),
    )


def pulses(current: ClusterMap) -> tuple[float, float]:
    """Return to how many a node sends pulses, and how many bytes of pulses and answers in a second: the mean of all."""
    ring = Ring(current)
    number_of = {node.id: node.number for node in current.nodes}
    groups: dict[int, dict[Group, tuple[int, ...]]] = {node.number: {} for node in current.nodes}
    for partition in range(current.partitions):
        group = Group(REPLICAS, PartitionId(partition))
        listed = [number_of[node] for node in ring.preference_list(group.partition, REPLICAS)]
        for number in listed:
            groups[number][group] = succession(group, listed)
    answer = len(encode(Answer(_REQUEST_ID, Pulsed(()))))
    peers = sent = 0
    for number, held in groups.items():
        elections = Elections(number, now_s=0.0, draw=random.Random(1).random)
        elections.groups_are(held, 0.0)
        led = [group for group, listed in held.items() if listed[0] == number]
        pulse = Pulse(
            tuple((group.rule, group.partition, Epoch(EPOCH, number).number) for group in led),
            (),
            False,
            current.partitions,
        )
        peers += len(elections.peers)
        sent += len(elections.peers) * (len(encode(Call(_REQUEST_ID, _TIMEOUT_MS, pulse))) + answer)
    return peers / len(groups), sent / len(groups) / PULSE_S


def known_after_s(nodes: int, told: int, *, draws: int = 20) -> float:
    """Return after how long all know of a change that ``told`` know at once; the others ask somebody each second."""
    total = 0.0
    for seed in range(draws):
        rng = random.Random(seed)
        known = [number < told for number in range(nodes)]
        left = nodes - told
        asks = sorted((rng.uniform(0.0, GOSSIP_INTERVAL_S), number) for number in range(told, nodes))
        now_s = 0.0
        while left:
            now_s, number = asks.pop(0)
            if known[rng.randrange(nodes)]:
                known[number] = True
                left -= 1
            else:
                again = now_s + GOSSIP_INTERVAL_S * rng.uniform(0.8, 1.2)
                _insert(asks, (again, number))
        total += now_s
    return total / draws


def _insert(asks: list[tuple[float, int]], one: tuple[float, int]) -> None:
    at = len(asks)
    while at and asks[at - 1] > one:
        at -= 1
    asks.insert(at, one)


HEADINGS = "nodes      Q  map, KB  planned  detector   news  pulses to  pulses  all, bytes/s  pushed to  known to all"


def line(one: Gossip) -> str:
    """Return a line below `HEADINGS`."""
    every = one.detector_bytes + one.news_bytes + one.pulse_bytes
    return (
        f"{one.nodes:5,}{one.partitions:7,}{one.map_bytes / 1000:9.1f}{one.planned_s:7.2f} s"
        f"{one.detector_bytes:10.0f}{one.news_bytes:7.0f}{one.pulse_peers:11.1f}{one.pulse_bytes:8,.0f}"
        f"{every:14,.0f}{one.pushes:11}{one.known_s:12.1f} s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES, help="sizes of cluster")
    sizes = parser.parse_args().nodes
    sys.stdout.write(HEADINGS + "\n")
    for nodes in sizes:
        sys.stdout.write(line(measured(nodes)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
