"""When to ask one more replica because the first ones are slow: after what they usually take at most.

Source: Dean and Barroso 2013, "The Tail at Scale", hedged requests; the percentiles are `core.latency`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from merganser.core.latency import Latencies
from merganser.model.ids import NodeId
from merganser.service.asking import SILENT_S
from merganser.service.hinting import LATENCY_SAMPLE

HEDGE_S_MIN = 0.002  # below this a hedge saves nothing that a client could notice


class Hedging:
    """What the peers of one node usually take to answer a read."""

    def __init__(self, me: NodeId) -> None:
        """Know nothing of the peers of ``me``."""
        self._me = me
        self._latencies = Latencies()
        self._reads = 0

    def after_s(self, nodes: Sequence[NodeId]) -> float:
        """Return what the slowest of ``nodes`` usually takes at most."""
        hedge_s = HEDGE_S_MIN
        for node in nodes:
            if node != self._me:
                p95_s = self._latencies.p95_s(node)
                hedge_s = max(hedge_s, SILENT_S if p95_s is None else p95_s)
        return min(hedge_s, SILENT_S)

    def sample(self) -> Callable[[NodeId, float], None] | None:
        """Return whom to tell how long the answers to one more read take; None for most reads."""
        self._reads += 1
        return self._note if self._reads % LATENCY_SAMPLE == 0 else None

    def _note(self, node: NodeId, seconds: float) -> None:
        if node != self._me:
            self._latencies.add(node, seconds)
