"""What it takes to tell how stale reads are (`core.staleness`): measured by each node, all the time.

*Links.* A node asks every other what its clock shows, some times a second, by the connection that requests go by. Of
the last `WINDOW` such questions the one with the shortest round trip tells how far the two clocks are apart, to within
half of the difference between its two ways; by that each way of each question is told apart. That is good for the time
that clocks drift little: `WINDOW` questions take seconds.

*Applies.* How long this node takes to apply a write of its own coordination, and to make it durable, by table, of some
writes.

*Behind.* Of reads that asked several replicas: how many answers there were, and how many of them lacked something that
another one had. That is what was seen, not what is predicted.

Source: Bailis 2012 §5.1 measures one-way latencies in the messages themselves; clocks as in Mills 1991, "Internet Time
Synchronization: the Network Time Protocol", the clock filter.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from merganser.core import staleness
from merganser.core.staleness import Basis, Link, Measured
from merganser.model.errors import RequestError
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import AskTime, Reply, TimeIs
from merganser.service.asking import Asker, error_of
from merganser.service.topology import Topology

PROBE_S: Final = 0.5
"""Between two questions to one peer."""
PROBES_PER_S: Final = 50.0
"""Of one node, to all others: some 2 ms of each second."""
PROBE_TIMEOUT_S: Final = 1.0
WINDOW: Final = 16
KEPT: Final = 256
"""Of each kind, the newest: a quantile of 0.99 is told by two or three of them."""
SAMPLE: Final = 8
"""One write in so many is timed."""
FIRST: Final = 100
"""So many are timed all, so that a table that is written to little can be told of soon."""
LOOK_S: Final = 10.0
TRIALS: Final = 400
"""Of what is told in `/status`: 5 ms of the loop for each table, every `LOOK_S`."""
TABLES_TOLD_MAX: Final = 20


class LinkTold(msgspec.Struct, frozen=True):
    """Seconds one way, the newest last; a negative one got lost."""

    out: tuple[float, ...]
    back: tuple[float, ...]
    seconds: float = 0.0
    """How long ago the oldest of them was; 0: the node does not say."""


class Told(msgspec.Struct, frozen=True):
    """What one node has measured that concerns one table."""

    node: NodeId
    links: dict[NodeId, LinkTold]
    applies: tuple[float, ...]
    writes: int
    reads: int
    applies_s: float = 0.0
    """How long ago the oldest of the writes was that ``applies`` is of; 0: the node does not say."""


class View(msgspec.Struct, frozen=True):
    """What `/status` tells of one table: reads and writes at ONE, through this node and its peers as it sees them."""

    fresh_at_once: float
    """Probability that a read at ONE that begins when a write at ONE is acknowledged sees it."""
    visible_after_ms: dict[str, float]
    """By probability: how long after the ack a read must begin."""
    within_versions: dict[str, float]
    """By k: probability that such a read returns one of the last k versions."""
    answers: int
    """Of replicas to reads that asked several."""
    answers_behind: int
    """How many of them lacked something that another answer had."""


class _Probe(NamedTuple):
    out_raw_s: float
    """The other's clock when it answered, less this one's when it asked."""
    round_trip_s: float


class _Pair:
    """Questions to one other node."""

    __slots__ = ("asked_at", "back", "newest", "out")

    def __init__(self) -> None:
        self.newest: deque[_Probe] = deque(maxlen=WINDOW)
        self.out: deque[float] = deque(maxlen=KEPT)
        self.back: deque[float] = deque(maxlen=KEPT)
        self.asked_at: deque[float] = deque(maxlen=KEPT)
        """Loop time, of each of ``out``."""

    def add(self, probe: _Probe) -> None:
        self.newest.append(probe)
        best = min(self.newest, key=lambda one: one.round_trip_s)
        apart_s = best.out_raw_s - best.round_trip_s / 2
        out_s = min(max(0.0, probe.out_raw_s - apart_s), probe.round_trip_s)
        self.out.append(out_s)
        self.back.append(probe.round_trip_s - out_s)


class _Traffic:
    """Of one table, through this node."""

    __slots__ = ("answers", "applied_at", "applies", "behind", "loop", "reads", "writes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.applies: deque[float] = deque(maxlen=KEPT)
        self.applied_at: deque[float] = deque(maxlen=KEPT)
        """Loop time, of each of ``applies``."""
        self.writes = 0
        self.reads = 0
        self.answers = 0
        self.behind = 0

    def applied(self, seconds: float) -> None:
        self.applies.append(seconds)
        self.applied_at.append(self.loop.time())


class Staleness:
    """What this node has measured; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, *, rng: random.Random, probe_s: float = PROBE_S) -> None:
        """Measure the peers that ``topology`` knows, through ``asker``; ``probe_s`` 0 asks nobody."""
        self._topology = topology
        self._asker = asker
        self._rng = rng
        self._probe_s = probe_s
        self._loop = asyncio.get_running_loop()
        self._pairs: dict[NodeId, _Pair] = {}
        self._traffic: dict[TableId, _Traffic] = {}
        self.views: dict[TableId, View] = {}
        topology.when_changed(lambda _current: self._forget_others())

    # Told by the coordinator

    def write(self, table: TableId) -> Callable[[float], None] | None:
        """Count a write; returns whom to tell how long it took on this node, None for most writes."""
        traffic = self._of(table)
        traffic.writes += 1
        return traffic.applied if traffic.writes % SAMPLE == 1 or traffic.writes <= FIRST else None

    def read(self, table: TableId, *, answers: int, behind: int) -> None:
        """Count a read, and what the answers of replicas were, if there were several."""
        traffic = self._of(table)
        traffic.reads += 1
        if answers > 1:
            traffic.answers += answers
            traffic.behind += behind

    # Told to others

    def told(self, table: TableId) -> Told:
        """Return what this node has measured that concerns a table."""
        traffic = self._of(table)
        links = {
            node: LinkTold(
                tuple(-1.0 if math.isinf(one) else one for one in pair.out),
                tuple(pair.back),
                self._since(pair.asked_at),
            )
            for node, pair in self._pairs.items()
        }
        applies_s = self._since(traffic.applied_at)
        return Told(self._topology.node, links, tuple(traffic.applies), traffic.writes, traffic.reads, applies_s)

    def behind(self, table: TableId) -> tuple[int, int]:
        """Return how many answers there were to reads that asked several replicas, and how many were behind."""
        traffic = self._of(table)
        return traffic.answers, traffic.behind

    # In the background

    async def run(self) -> None:
        """Ask what clocks show, and keep `views` for `/status`, for as long as the node lives."""
        look_at = self._loop.time() + LOOK_S
        for number in itertools.count():
            peers = [node.id for node in self._topology.map.nodes if node.id != self._topology.node]
            pause_s = max(self._probe_s / max(1, len(peers)), 1 / PROBES_PER_S)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.5))  # all at once would get into each other's way
            if peers:
                self._ask(peers[number % len(peers)])
            if self._loop.time() >= look_at:
                look_at = self._loop.time() + LOOK_S
                await self._look()

    def _ask(self, node: NodeId) -> None:
        if not self._asker.is_reachable(node):
            return
        asked_s = self._loop.time()
        answer = self._asker.ask(node, AskTime(), timeout_s=PROBE_TIMEOUT_S)

        def note(ended: asyncio.Future[Reply]) -> None:
            pair = self._pairs.setdefault(node, _Pair())
            pair.asked_at.append(asked_s)
            if error_of(ended) is not None:
                pair.out.append(math.inf)
            elif isinstance(reply := ended.result(), TimeIs):  # which is all that answers it
                pair.add(_Probe(reply.wall_us / 1e6 - asked_s, self._loop.time() - asked_s))

        answer.add_done_callback(note)

    async def _look(self) -> None:
        for table in list(self._traffic)[:TABLES_TOLD_MAX]:
            known = self._topology.table(table)
            if known is None or not self._of(table).applies:
                continue
            try:
                found = staleness.predict(
                    measured([self.told(table)]), n=known.n, r=1, w=1, draw=self._rng.random, trials=TRIALS
                )
            except RequestError:
                continue
            answers, behind = self.behind(table)
            self.views[table] = View(
                found.fresh(0.0),
                {f"{p:g}": _ms(staleness.quantile(found.visible_after_s, p)) for p in (0.9, 0.99, 0.999)},
                {str(k): found.within_versions(k) for k in (1, 2, 3)},
                answers,
                behind,
            )
            await asyncio.sleep(0)

    def _of(self, table: TableId) -> _Traffic:
        traffic = self._traffic.get(table)
        if traffic is None:
            traffic = self._traffic[table] = _Traffic(self._loop)
        return traffic

    def _since(self, times: deque[float]) -> float:
        return self._loop.time() - times[0] if times else 0.0

    def _forget_others(self) -> None:
        tables = {table.id for table in self._topology.map.tables}
        nodes = {node.id for node in self._topology.map.nodes}
        self._traffic = {table: traffic for table, traffic in self._traffic.items() if table in tables}
        self.views = {table: view for table, view in self.views.items() if table in tables}
        self._pairs = {node: pair for node, pair in self._pairs.items() if node in nodes}


def measured(told: list[Told]) -> Measured:
    """Return what several nodes have measured, together."""
    links = {
        (one.node, node): Link([math.inf if way < 0 else way for way in link.out], link.back)
        for one in told
        for node, link in one.links.items()
    }
    return Measured(
        links={(str(a), str(b)): link for (a, b), link in links.items()},
        applies={str(one.node): one.applies for one in told if one.applies},
        weights={str(one.node): float(one.writes + one.reads) for one in told},
    )


def basis(told: list[Told]) -> Basis:
    """Return what a prediction by what several nodes have measured rests on."""
    links = [link for one in told for link in one.links.values()]
    return Basis(
        nodes=len({one.node for one in told} | {node for one in told for node in one.links}),
        questions=sum(len(link.out) for link in links),
        questions_least=min((len(link.out) for link in links), default=0),
        questions_s=max((link.seconds for link in links), default=0.0),
        writes=sum(len(one.applies) for one in told),
        writes_s=max((one.applies_s for one in told), default=0.0),
    )


def _ms(seconds: float) -> float:
    return -1.0 if math.isinf(seconds) else round(seconds * 1000, 3)
