"""Which of two claims about a member is believed, and how long a suspect has to refute.

Claims about one member are ordered by incarnation first, then ALIVE < SUSPECT < DEAD, and the greatest is
believed. So only the member itself, by a higher incarnation, gets out of SUSPECT or DEAD::

    ALIVE(i) --a probe fails--> SUSPECT(i) --time is up--> DEAD(i)
        ^                           |                         |
        i+1 ------- the member hears of it and refutes -------+

A suspicion names its accusers. The first waits long for a refutation, because the fault may be its own:
a slow accuser sees everyone silent. Each accuser more shortens the wait, down to the least::

    max - (max - min) * log(confirmations + 1) / log(confirmations expected + 1)

Invariant: `merge` is commutative, associative and idempotent, so the order of gossip does not matter.

Source: Das, Gupta, Motivala 2002, "SWIM", §4.2; Dadgar, Phillips, Currey 2018, "Lifeguard", §IV-B.
"""

from __future__ import annotations

import math

import msgspec

from merganser.model.gossip import Claim, State
from merganser.model.ids import NodeId

CONFIRMATIONS_MAX = 3
"""K: that many accusers besides the first make a suspicion as good as certain (Lifeguard §IV-B)."""

ACCUSERS_MAX = CONFIRMATIONS_MAX + 1

MIN_PERIODS = 4.0
"""Alpha: periods a suspect has at least, times log10 of the cluster's size. With 4, as in HashiCorp's memberlist, it
is pinged by some four members meanwhile, and each tells it first that it is suspected."""

MAX_RATIO = 6.0
"""Beta: how much longer it has while nobody confirms."""


def merge(one: Claim, other: Claim) -> Claim:
    """Return what two claims about one member come to; ``one`` itself if the other adds nothing."""
    assert one.node == other.node
    one_rank, other_rank = (one.incarnation, one.state), (other.incarnation, other.state)
    if one_rank != other_rank:
        return one if one_rank > other_rank else other
    if one.accusers == other.accusers:
        return one
    accusers = tuple(sorted({*one.accusers, *other.accusers})[:ACCUSERS_MAX])
    return one if accusers == one.accusers else msgspec.structs.replace(one, accusers=accusers)


def accuse(claim: Claim, accuser: NodeId) -> Claim:
    """Return ``claim`` about a member with ``accuser`` among those who suspect it; a DEAD one stays dead."""
    return merge(claim, Claim(claim.node, State.SUSPECT, claim.incarnation, (accuser,)))


def timeout_s(*, confirmations: int, confirmers: int, cluster_size: int, period_s: float) -> float:
    """Return how long after it was first heard of a suspicion becomes a verdict.

    Args:
        confirmations: accusers besides the first.
        confirmers: members alive that could confirm; with none the least time is enough.
        cluster_size: members of the map, dead or alive.
        period_s: of a probe.
    """
    min_s = MIN_PERIODS * max(1.0, math.log10(cluster_size)) * period_s
    expected = min(CONFIRMATIONS_MAX, confirmers)
    if confirmations >= expected:
        return min_s
    max_s = MAX_RATIO * min_s
    return max_s - (max_s - min_s) * math.log(confirmations + 1) / math.log(expected + 1)
