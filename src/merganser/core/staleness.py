"""How stale reads are with partial quorums (probabilistically bounded staleness), by Monte Carlo over latencies.

The model is WARS, with what this database does differently. A write leaves its coordinator for all N replicas at once
and is acknowledged at W acks; a read leaves its own coordinator later, for the R nearest replicas::

    coordinator --W--> replica --A--> coordinator    W: until a reader would see it;  A: apply, make durable, ack
    coordinator --R--> replica --S--> coordinator    R: until it is looked up;        S: back

A read that begins ``t`` after the ack sees the write if it reaches one of its R replicas after the write did. So each
trial comes to one number, the least ``t`` at which that would have been so, and the trials together are the curve:
*t-visibility*. If R + W > N it is 0 throughout. Reads that miss the last k writes are as rare as the k-th power of that
if one had nothing to do with the other: *k-staleness*. Earlier writes have had more time, which makes it rarer; a
replica that is away misses all of them, which does not.

What the model leaves out makes reads fresher: hedged reads, read repair, hints that arrive. A copy that got lost counts
as never arriving.

Source: Bailis, Venkataraman, Franklin, Hellerstein, Stoica 2012, "Probabilistically Bounded Staleness for Practical
Partial Quorums", VLDB 5(8): §3.4 (k-staleness), §4 (WARS), §5 (Monte Carlo).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from merganser.model.errors import RequestError

_T = TypeVar("_T")

Draw = Callable[[], float]
"""Returns numbers from 0 to 1, 1 left out, each as likely."""


class Link(NamedTuple):
    """What was measured from one node to another: seconds."""

    out: Sequence[float]
    """One way, from the first to the second; `math.inf` for what got lost."""
    back: Sequence[float]


class Measured(NamedTuple):
    """What a cluster's nodes have measured."""

    links: Mapping[tuple[str, str], Link]
    """From a coordinator to another node."""
    applies: Mapping[str, Sequence[float]]
    """By node: how long it takes to apply a write, and to make it durable."""
    weights: Mapping[str, float]
    """By node: the share of requests that it coordinates."""


class Prediction(NamedTuple):
    """What reads and writes come to."""

    visible_after_s: list[float]
    """Ascending, one of each trial: from the ack of a write to when a read must begin to see it."""
    writes_s: list[float]
    """Ascending: until a write is acknowledged."""
    reads_s: list[float]
    """Ascending: until a read is answered."""

    def fresh(self, after_s: float) -> float:
        """Return the probability that a read that begins so long after the ack of a write sees it."""
        return bisect_right(self.visible_after_s, after_s) / len(self.visible_after_s)

    def within_versions(self, k: int) -> float:
        """Return the probability that a read, at once after acks, returns one of the last ``k`` versions."""
        return 1.0 - (1.0 - self.fresh(0.0)) ** k


BASIS_MIN = 10
"""Measurements of a kind below which nothing is predicted: that would be what one or two of them happened to be."""
BASIS_GOOD = 100
"""Below, a quantile of 99 % is the largest that was met, and says nothing of what comes once in a hundred times."""


class Basis(NamedTuple):
    """What a prediction rests on."""

    nodes: int
    """That told what they have measured."""
    questions: int
    """How long a link takes, all links together."""
    questions_least: int
    """Of the link with the fewest."""
    questions_s: float
    """How far back they reach."""
    writes: int
    """That were timed on their node."""
    writes_s: float

    @property
    def is_enough(self) -> bool:
        """Tell whether anything should be predicted."""
        return self.writes >= BASIS_MIN and (self.nodes == 1 or self.questions >= BASIS_MIN)

    @property
    def is_good(self) -> bool:
        """Tell whether the rare cases are among them."""
        return self.writes >= BASIS_GOOD and (self.nodes == 1 or self.questions_least >= BASIS_GOOD)


def predict(
    measured: Measured, *, n: int, r: int, w: int, draw: Draw, trials: int = 2_000, fan_out_all: bool = False
) -> Prediction:
    """Return what ``n`` replicas, of which ``r`` are read and ``w`` must ack, come to.

    Args:
        measured: of at least one node.
        n: replicas of each key, on distinct nodes where there are enough.
        r: replicas that a read asks, from 1 to ``n``.
        w: acks of a write, from 1 to ``n``.
        draw: random numbers.
        trials: the more, the less the curve shakes: by about 1 / sqrt(trials).
        fan_out_all: reads go to all replicas and take the first ``r`` answers, as in Dynamo and in the paper.

    Raises:
        RequestError: there are no such numbers, or nothing was measured yet.
    """
    if n < 1 or not 1 <= r <= n or not 1 <= w <= n:
        raise RequestError(f"n={n}, r={r}, w={w}: r and w are from 1 to n")
    nodes = sorted({node for pair in measured.links for node in pair} | set(measured.applies))
    if not nodes or not measured.applies:
        raise RequestError("nothing was measured yet: have the nodes serve some writes, and ask again in a minute")
    model = _Model(measured, nodes, draw)
    visible, writes, reads = [], [], []
    for _ in range(trials):
        replicas = model.replicas(n)
        arrivals, committed = model.write(replicas, w)
        asked, answered = model.read(replicas, r, fan_out_all=fan_out_all)
        writes.append(committed)
        reads.append(answered)
        if math.isinf(committed):
            continue  # never acknowledged: nobody was promised anything
        visible.append(max(0.0, min(arrivals[at] - committed - reached for at, reached in asked)))
    return Prediction(sorted(visible or [math.inf]), sorted(writes), sorted(reads))


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return what that share of the numbers does not exceed."""
    return ascending[min(len(ascending) - 1, max(0, math.ceil(share * len(ascending)) - 1))]


class _Model:
    def __init__(self, measured: Measured, nodes: Sequence[str], draw: Draw) -> None:
        self._measured = measured
        self._nodes = nodes
        self._draw = draw
        self._any_links = [link for link in measured.links.values() if link.out]
        self._any_applies = [applies for applies in measured.applies.values() if applies]
        self._weights = [max(0.0, measured.weights.get(node, 0.0)) for node in nodes]
        if not any(self._weights):
            self._weights = [1.0] * len(nodes)
        self._total = sum(self._weights)

    def replicas(self, n: int) -> list[str]:
        """Return who holds a key, in the order of its preference list; more than there are nodes: as many others."""
        left = list(self._nodes)
        chosen: list[str] = []
        while left and len(chosen) < n:
            chosen.append(left.pop(int(self._draw() * len(left))))
        return chosen + [f"another {number}" for number in range(n - len(chosen))]

    def write(self, replicas: Sequence[str], w: int) -> tuple[list[float], float]:
        """Return when each replica has a write, and when it is acknowledged, from when it was sent."""
        coordinator = self._coordinator()
        arrivals, acks = [], []
        for replica in replicas:
            out, back = self._both_ways(coordinator, replica)
            arrivals.append(out)
            acks.append(out + self._apply(replica) + back)
        return arrivals, sorted(acks)[w - 1]

    def read(self, replicas: Sequence[str], r: int, *, fan_out_all: bool) -> tuple[list[tuple[int, float]], float]:
        """Return which replicas a read counts, when it reaches each, and when it is answered, from its beginning."""
        coordinator = self._coordinator()
        order = sorted(range(len(replicas)), key=lambda at: replicas[at] != coordinator)
        asked = []
        for at in order if fan_out_all else order[:r]:
            out, back = self._both_ways(coordinator, replicas[at])
            if math.isinf(out):  # another one is asked in its place, after a while
                out, back = self._slowest(coordinator, replicas[at])
            asked.append((out + back, at, out))
        asked.sort()
        return [(at, out) for _, at, out in asked[:r]], asked[r - 1][0]

    def _coordinator(self) -> str:
        drawn = self._draw() * self._total
        for node, weight in zip(self._nodes, self._weights, strict=True):
            drawn -= weight
            if drawn < 0:
                return node
        return self._nodes[-1]

    def _both_ways(self, coordinator: str, replica: str) -> tuple[float, float]:
        if coordinator == replica:
            return 0.0, 0.0
        link = self._measured.links.get((coordinator, replica))
        if link is None or not link.out:
            if not self._any_links:
                return 0.0, 0.0
            link = self._one_of(self._any_links)
        out = self._one_of(link.out)
        return out, self._one_of(link.back) if link.back else out

    def _slowest(self, coordinator: str, replica: str) -> tuple[float, float]:
        link = self._measured.links.get((coordinator, replica)) or self._one_of(self._any_links)
        slowest = max((one for one in link.out if not math.isinf(one)), default=0.0)
        return slowest, max(link.back, default=slowest)

    def _apply(self, replica: str) -> float:
        applies = self._measured.applies.get(replica) or self._one_of(self._any_applies)
        return self._one_of(applies)

    def _one_of(self, there: Sequence[_T]) -> _T:
        return there[int(self._draw() * len(there))]
