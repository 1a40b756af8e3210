"""Native clients in a simulated cluster, and nodes made by hand that answer them what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from merganser.client.client import Client
from merganser.client.session import Session
from merganser.core import cluster_map
from merganser.model.client_messages import FetchRing
from merganser.model.cluster import KEY_VALUE_WIRE, ClusterMap, Conflicts, NodeRecord, Table
from merganser.model.errors import PeerUnreachableError
from merganser.model.ids import ClusterId, NodeId
from merganser.model.messages import MapIs, Reply, Request
from merganser.net.transport import Traffic, failed
from merganser.sim.loop import SimulatedLoop
from merganser.sim.native_clients import native_client
from merganser.sim.world import World
from service.plays import member, started, until

NODES = [NodeId(letter * 16) for letter in "abcde"]


async def made(world: World, *, conflicts: Conflicts = "siblings", n: int = 3) -> Table:
    """A key-value table that all machines know."""
    await started(world)
    table = await world.table("values", conflicts=conflicts, n=n, wire=KEY_VALUE_WIRE)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    return table


@contextlib.asynccontextmanager
async def client(world: World, name: str = "client", *, timeout_s: float = 2.0) -> AsyncIterator[Client]:
    async with native_client(world, name, timeout_s=timeout_s) as opened:
        yield opened


def a_map(nodes: int = 5, *, epoch: int = 1) -> ClusterMap:
    """A map of as many nodes, each with partitions of its own."""
    records = [NodeRecord(node, 0, f"{node[0]}:7700", {}, f"zone-{node[0]}", speaks=4) for node in NODES[:nodes]]
    found = cluster_map.found(ClusterId("c" * 16), records, 16)
    for _ in range(epoch - found.epoch):
        found = cluster_map.with_presence(found, NODES[0], {"admin": f"{found.epoch}:1"}, speaks=4)
    return found


Says = Callable[[NodeId, Request], Reply | Exception | None]
"""What a node answers, or fails with; None: it says nothing."""


class Nodes:
    """A transport to nodes that answer what a test says, the ring apart."""

    def __init__(self, current: ClusterMap, says: Says) -> None:
        self.map = current
        self.says = says
        self.asked: list[tuple[NodeId, Request]] = []
        self.peers: Mapping[NodeId, str] = {}
        self.away: set[NodeId] = set()

    def is_reachable(self, node: NodeId) -> bool:
        return node not in self.away

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        self.peers = dict(addresses)

    def introduce(self, address: str, request: Request, *, timeout_s: float) -> asyncio.Future[Reply]:
        node = next((node.id for node in self.map.nodes if node.peer_address == address), NodeId("nobody"))
        return self.request(node, request, timeout_s=timeout_s)

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if node in self.away or node not in NODES:
            return failed(answer, PeerUnreachableError(f"{node} is away"))
        if isinstance(request, FetchRing):
            answer.set_result(MapIs(self.map.epoch, self.map if request.known_epoch < self.map.epoch else None))
            return answer
        self.asked.append((node, request))
        said = self.says(node, request)
        if isinstance(said, Exception):
            answer.set_exception(said)
            answer.exception()
        elif said is not None:
            answer.set_result(said)
        return answer


@contextlib.asynccontextmanager
async def client_of(
    nodes: Nodes, *, seeds: Sequence[str] = ("a:7700",), timeout_s: float = 2.0
) -> AsyncIterator[Client]:
    session = Session(seeds, nodes, rng=random.Random(1))
    async with Client(seeds, timeout_s=timeout_s, session=session) as opened:
        yield opened


def on_virtual_time(script: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        loop = SimulatedLoop(random.Random(1))
        loop.run(script())
        assert loop.errors == []

    test.__name__ = script.__name__
    return test
