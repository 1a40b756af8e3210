"""Compare this node's wall clock with those of its peers, and say when it is too far off to mint timestamps.

Every few seconds a few peers, drawn at random, are asked for their time; what their answers say is
`core.skew`'s to decide. The verdict is looked up at each mint, against the wall clock of that moment:
a clock that was set wrong is noticed at once, and one that was set right again as well.

A node that has just started compares first and mints then. It waits for most of those it asked,
or until all have answered or are known to be away, a second at the longest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from merganser.core.skew import Clocks, sample
from merganser.model.errors import ClockSkewError
from merganser.model.ids import NodeId
from merganser.model.messages import AskTime, Reply, TimeIs
from merganser.service.asking import Asker
from merganser.service.topology import Topology

INTERVAL_S = 2.0  # how long the clock of a peer may be misjudged after it was set; two small messages a peer
FIRST_INTERVAL_S = 0.1  # doubled up to the other: when a cluster starts, peers come up one after another
PEERS_MAX = 5  # of a round; a median of six clocks stands against two that are wrong
TIMEOUT_S = 1.0
FORGET_S = 60.0  # drift in that time is milliseconds; a cluster of 100 has asked half its peers
RESOLUTION_US = 100_000
"""The loop's time may be as old as a turn of the loop; one that takes longer than this is rare."""


class Standing(msgspec.Struct, frozen=True):
    """How this node's clock compares, for operators; seconds."""

    ahead_s: float
    """Of the median of all clocks known; negative if behind."""
    skew_max_s: float
    peers_s: dict[NodeId, tuple[float, float]]
    """How far each peer's clock is ahead of this node's, at least and at most."""
    refusal: str | None
    """Why the node mints no timestamps, None if it does."""


class ClockWatch:
    """This node's clock among those of its peers; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        skew_max_s: float,
        on_change: Callable[[str | None], None],
    ) -> None:
        """Watch the clock that ``wall_us`` reads.

        ``on_change`` is told why the node mints no more, and None when it does again.
        """
        self.skew_max_s = skew_max_s
        self._topology = topology
        self._asker = asker
        self._wall_us = wall_us
        self._rng = rng
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._clocks = Clocks(skew_max_us=int(skew_max_s * 1e6))
        self._is_refusing = False
        self._compared = asyncio.Event()

    async def run(self) -> None:
        """Ask peers for their time, for ever."""
        interval_s = FIRST_INTERVAL_S
        while True:
            await self._ask_some()
            self._compared.set()
            self._tell()
            await asyncio.sleep(interval_s * self._rng.uniform(0.75, 1.25))
            interval_s = min(2 * interval_s, INTERVAL_S)

    @property
    def has_compared(self) -> bool:
        """Tell whether the first comparison after the start is over."""
        return self._compared.is_set()

    async def compared(self, deadline: float) -> None:
        """Return when the first comparison after the start is over.

        Raises:
            TimeoutError: it is not at ``deadline`` (loop time).
        """
        async with asyncio.timeout_at(deadline):
            await self._compared.wait()

    def allow(self, skew_max_s: float) -> None:
        """Go by another bound from now on."""
        self.skew_max_s = skew_max_s
        self._clocks.allow(int(skew_max_s * 1e6))

    def check(self) -> None:
        """Do nothing if this node's clock may be right.

        Raises:
            ClockSkewError: it is certainly off by more than the bound.
        """
        difference_us = self._difference_us()
        if self._clocks.is_beyond(difference_us):
            self._tell()
            raise ClockSkewError(self._refusal(difference_us))

    def check_compared(self) -> None:
        """As `check`, for what can wait until the clock was compared.

        Raises:
            ClockSkewError: it is certainly off, or was not compared since the start.
        """
        if not self.has_compared:
            raise ClockSkewError("this node has yet to compare its clock with those of its peers")
        self.check()

    def standing(self) -> Standing:
        """Return how the clock compares just now."""
        difference_us = self._difference_us()
        is_beyond = self._clocks.is_beyond(difference_us)
        return Standing(
            ahead_s=self._clocks.ahead_us(difference_us) / 1e6,
            skew_max_s=self.skew_max_s,
            peers_s={
                peer: (low / 1e6, high / 1e6) for peer, (low, high) in self._clocks.offsets_us(difference_us).items()
            },
            refusal=self._refusal(difference_us) if is_beyond else None,
        )

    async def answer(self, _sender: NodeId, _request: AskTime) -> TimeIs:
        """Tell a peer what the wall clock shows."""
        return TimeIs(self._wall_us())

    async def _ask_some(self) -> None:
        peers = [node.id for node in self._topology.map.nodes if node.id != self._topology.node]
        self._clocks.keep_only(peers, since_us=self._monotonic_us() - int(FORGET_S * 1e6))
        asked = self._rng.sample(peers, PEERS_MAX) if len(peers) > PEERS_MAX else peers
        if asked:
            await asyncio.wait([self._ask(peer, len(asked)) for peer in asked])

    def _ask(self, peer: NodeId, asked: int) -> asyncio.Future[Reply]:
        asked_us = self._monotonic_us()

        def heard(answer: asyncio.Future[Reply]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                return
            reply = answer.result()
            if isinstance(reply, TimeIs):
                now_us = self._monotonic_us() + RESOLUTION_US
                self._clocks.add(
                    peer, sample(peer_wall_us=reply.wall_us, asked_us=asked_us - RESOLUTION_US, answered_us=now_us)
                )
            if 2 * self._clocks.known > asked:
                self._compared.set()

        future = self._asker.ask(peer, AskTime(), timeout_s=TIMEOUT_S)
        future.add_done_callback(heard)
        return future

    def _tell(self) -> None:
        difference_us = self._difference_us()
        is_beyond = self._clocks.is_beyond(difference_us)
        if is_beyond != self._is_refusing:
            self._is_refusing = is_beyond
            self._on_change(self._refusal(difference_us) if is_beyond else None)

    def _refusal(self, difference_us: int) -> str:
        ahead_s = self._clocks.ahead_us(difference_us) / 1e6
        direction = "ahead of" if ahead_s > 0 else "behind"
        return (
            f"this node's clock is {abs(ahead_s):.1f} s {direction} the median of the {self._clocks.known + 1} clocks "
            f"it knows, more than the {self.skew_max_s:g} s allowed: set it right"
        )

    def _difference_us(self) -> int:
        return self._wall_us() - self._monotonic_us()

    def _monotonic_us(self) -> int:
        return int(self._loop.time() * 1e6)
