"""News waiting to ride on packets: the least sent first, each only so often.

Every packet of the failure detector has room to spare; what fits of the news goes along. A claim that has been sent
``sends_max`` times by every member that heard it has reached all with high probability, and is forgotten.

Invariants: one claim per member, the latest added; no claim is taken more than ``sends_max`` times;
a claim is taken only when those sent less often do not fit, or go along.

Source: Das, Gupta, Motivala 2002, "SWIM", §4.1.
"""

from __future__ import annotations

import math

import msgspec

from merganser.model.gossip import Claim
from merganser.model.ids import NodeId

RETRANSMISSIONS = 4
"""Lambda: times log10 of the cluster's size. 4 as in HashiCorp's memberlist; with 3 of 10 packets lost each member
still hears of a claim from several others."""

_encode = msgspec.msgpack.Encoder().encode


def sends_max(cluster_size: int) -> int:
    """Return how often a member of a cluster of that size repeats a claim."""
    return RETRANSMISSIONS * math.ceil(math.log10(cluster_size + 1))


class Dissemination:
    """Claims to spread, by how often they were sent."""

    __slots__ = ("_by_sends", "_sends")

    def __init__(self) -> None:
        """Begin without news."""
        self._by_sends: list[dict[NodeId, tuple[Claim, int]]] = [{}]
        """Claim and its encoded size, in order of arrival; the index is how often they were sent."""
        self._sends: dict[NodeId, int] = {}

    def __len__(self) -> int:
        """Return how many claims wait."""
        return len(self._sends)

    def add(self, claim: Claim) -> None:
        """Spread ``claim`` from now on, instead of what was to be said of that member."""
        self.discard(claim.node)
        self._by_sends[0][claim.node] = claim, len(_encode(claim))
        self._sends[claim.node] = 0

    def discard(self, node: NodeId) -> None:
        """Say nothing more of ``node``."""
        sends = self._sends.pop(node, None)
        if sends is not None:
            del self._by_sends[sends][node]

    def take(self, room_bytes: int, *, sends_max: int) -> list[Claim]:
        """Return the claims that go along with the next packet, together no longer than ``room_bytes``."""
        taken = self._fitting(room_bytes)
        for claim in taken:
            self._count(claim.node, sends_max)
        return taken

    def _fitting(self, room_bytes: int) -> list[Claim]:
        fitting: list[Claim] = []
        for waiting in self._by_sends:
            for claim, claim_bytes in waiting.values():
                if claim_bytes > room_bytes:
                    return fitting
                room_bytes -= claim_bytes
                fitting.append(claim)
        return fitting

    def _count(self, node: NodeId, sends_max: int) -> None:
        sends = self._sends[node]
        entry = self._by_sends[sends].pop(node)
        sends += 1
        if sends >= sends_max:
            del self._sends[node]
            return
        if sends == len(self._by_sends):
            self._by_sends.append({})
        self._by_sends[sends][node] = entry
        self._sends[node] = sends
