"""Which of several nodes to ask: the one that answers soonest, as far as whoever asks has seen.

Each answer moves the node's expected latency a little (an exponentially weighted average); what is on its way to the
node already counts on top, as every request there makes the next one wait: cost = latency * (1 + unanswered). So near
nodes are preferred, equally near ones share the load, and a node that grows slow is left alone before it has answered.
A node that was never asked costs nothing, and so is tried. One that failed is asked after all others for a while. One
of `LOOK_EVERY` requests goes to a node that would not be asked otherwise, or nobody would notice that it is near again.

Source: Suresh 2015, "C3: Cutting Tail Latency in Cloud Data Stores via Adaptive Replica Selection" (expected latency
times outstanding requests); DeCandia 2007 §6.4 (a client asks the replicas itself).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from merganser.core.latency import Latencies
from merganser.model.ids import NodeId

WEIGHT = 0.1
"""Of the newest answer: some twenty of them make an average forget what was before."""
AVOID_S = 2.0
"""For so long a node that failed comes last; one request in that time pays for finding out whether it answers again."""
LOOK_EVERY = 64
HEDGE_SHARE = 0.1
"""Of all requests at most this share is sent twice: a cluster that is slow because it has too much to do gets no more
to do."""
HEDGES_SAVED_MAX = 10.0


class Nearness:
    """What one client has seen of the nodes it asks."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self.latencies = Latencies()
        """Percentiles, for hedging."""
        self._average_s: dict[NodeId, float] = {}
        self._unanswered: dict[NodeId, int] = {}
        self._avoided_until: dict[NodeId, float] = {}
        self._asked = 0
        self._hedges = HEDGES_SAVED_MAX

    def sent(self, node: NodeId) -> None:
        """Note a request on its way to ``node``."""
        self._unanswered[node] = self._unanswered.get(node, 0) + 1

    def answered(self, node: NodeId, seconds: float, *, is_sampled: bool = True) -> None:
        """Note the answer to one, whatever it says; ``is_sampled``: among those that percentiles are of."""
        self._ended(node)
        known = self._average_s.get(node)
        self._average_s[node] = seconds if known is None else known + WEIGHT * (seconds - known)
        if is_sampled:
            self.latencies.add(node, seconds)
        self._avoided_until.pop(node, None)

    def failed(self, node: NodeId, now_s: float) -> None:
        """Note that one was not answered, or that the node has too much to do."""
        self._ended(node)
        self._avoided_until[node] = now_s + AVOID_S

    def order(self, nodes: Sequence[NodeId], now_s: float) -> list[NodeId]:
        """Return ``nodes``, whom to ask first in front; of equal ones the order stays."""
        ordered = sorted(nodes, key=lambda node: (self._avoided_until.get(node, 0.0) > now_s, self._cost(node)))
        self._asked += 1
        if len(ordered) > 1 and self._asked % LOOK_EVERY == 0:
            looked_at = 1 + self._asked // LOOK_EVERY % (len(ordered) - 1)
            if self._avoided_until.get(ordered[looked_at], 0.0) <= now_s:
                ordered.insert(0, ordered.pop(looked_at))
        return ordered

    def may_hedge(self) -> bool:
        """Tell whether one more request may be sent twice, and count it."""
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True

    def earn_hedge(self) -> None:
        """Note a request that may be sent twice."""
        self._hedges = min(self._hedges + HEDGE_SHARE, HEDGES_SAVED_MAX)

    def forget_others(self, nodes: Iterable[NodeId]) -> None:
        """Forget all but ``nodes``."""
        kept = set(nodes)
        for known in (self._average_s, self._avoided_until):
            for node in [node for node in known if node not in kept]:
                del known[node]

    def average_s(self, node: NodeId) -> float | None:
        """Return what ``node`` takes on average, None if it never answered."""
        return self._average_s.get(node)

    def _cost(self, node: NodeId) -> float:
        return self._average_s.get(node, 0.0) * (1 + self._unanswered.get(node, 0))

    def _ended(self, node: NodeId) -> None:
        left = self._unanswered.get(node, 0) - 1
        if left > 0:
            self._unanswered[node] = left
        else:
            self._unanswered.pop(node, None)
