"""How the newest cluster map comes to all nodes: pushed to some by whoever has changed it, pulled by the others.

::

    changed --push--> the voters, and up to 32 others
    asked by a newer map than is known --catch_up--> pulled from whoever asked
    once a second --catch_up with anybody--> pulled, if it is newer

So whoever makes a change sends a bounded number of copies however many nodes there are, and one of them that a push has
not reached knows of it some seconds later, or as soon as a node that does asks it for anything.

Source: Demers 1987, "Epidemic Algorithms for Replicated Database Maintenance" (pull: who does not know yet is squared
each round); docs/internals/cluster-map.md.
"""

from __future__ import annotations

import asyncio
import random

from merganser.core.quorum import Verdict
from merganser.model.cluster import ClusterMap
from merganser.model.errors import InvariantError, MerganserError, UnknownOutcomeError
from merganser.model.ids import NodeId
from merganser.model.messages import Adopt, Done, FetchMap, MapIs
from merganser.service.asking import Asker, Writing
from merganser.service.topology import Topology

GOSSIP_INTERVAL_S = 1.0
PUSHES_MAX = 32
"""Beside the voters. A map of 1,000 nodes is some 300 KB, encoded for each: to push it to all would hold up the node
for seconds."""
ROUND_TIMEOUT_S = 1.0


class MapNews:
    """Spreads the map and keeps up with it; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, *, rng: random.Random) -> None:
        """Tell of, and learn for, ``topology``; ``rng`` chooses whom to ask."""
        self._topology = topology
        self._asker = asker
        self._rng = rng

    async def catch_up(self, peer: NodeId) -> None:
        """Take the peer's map if it is newer; silently goes on without it if the peer does not answer."""
        try:
            reply = await self._asker.ask(peer, FetchMap(self._topology.map.epoch), timeout_s=ROUND_TIMEOUT_S)
            if isinstance(reply, MapIs) and reply.map is not None:
                await self._topology.learn(reply.map)
        except InvariantError:
            raise
        except MerganserError:
            return

    async def run(self) -> None:
        """Ask a random peer for news every second, for as long as the node lives."""
        while True:
            await asyncio.sleep(GOSSIP_INTERVAL_S * self._rng.uniform(0.8, 1.2))
            peers = [node.id for node in self._topology.map.nodes if node.id != self._asker.node]
            if peers:
                await self.catch_up(self._rng.choice(peers))

    def answer(self, request: FetchMap) -> MapIs:
        """Answer a peer that asks for news."""
        current = self._topology.map
        return MapIs(current.epoch, current if current.epoch > request.known_epoch else None)

    async def adopt(self, request: Adopt) -> Done:
        """Take a map that a peer pushed, durably."""
        await self._topology.learn(request.map)
        return Done()

    async def push(self, newest: ClusterMap, deadline: float) -> None:
        """Learn the map, and push it; returns once this node and a majority of the voters know it.

        Raises:
            UnknownOutcomeError: no majority of them has said so by ``deadline`` (loop time).
            StorageFailedError: this node cannot keep it.
        """
        await self._topology.learn(newest)
        current = self._topology.map  # it may be a newer one by now
        voters = [node.id for node in current.nodes if node.number in current.voters]
        learning = Writing(voters, required=len(voters) // 2 + 1)
        for node in self._told(newest, voters):
            learning.watch(node, self._asker.ask(node, Adopt(newest), timeout_s=ROUND_TIMEOUT_S))
        if await learning.settled(deadline) is not Verdict.SUCCEEDED:
            raise UnknownOutcomeError("the change was accepted, but too few nodes confirmed that they know it")

    def _told(self, newest: ClusterMap, voters: list[NodeId]) -> list[NodeId]:
        """Return whom to push to: all, or the voters and some of the others, drawn anew each time."""
        others = [node.id for node in newest.nodes if node.id not in voters]
        if len(others) <= PUSHES_MAX:
            return [node.id for node in newest.nodes]
        return [*voters, *self._rng.sample(others, PUSHES_MAX)]
