"""Requests from here to nodes over TCP: a `link.Link` for each of them and class of traffic.

What nodes (`net.peers`, eager: their links are opened when the cluster map names a peer) and clients (`client`: with
the first request) have in common.
"""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
from collections.abc import Mapping
from typing import Any

from merganser.model.errors import PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request
from merganser.model.versions import Versions
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.link import Connection, Link, connect
from merganser.net.transport import Traffic, failed


class Links:
    """Connections that this end opens. Made, used and closed on the event loop."""

    def __init__(
        self,
        identity: Identity,
        *,
        random: randomness.Random,
        limits: PeerLimits | None = None,
        tls: ssl.SSLContext | None = None,
        is_eager: bool = True,
    ) -> None:
        """Present ``identity`` on every connection.

        Args:
            identity: who opens them.
            random: spreads reconnects.
            limits: bounds.
            tls: for all of them.
            is_eager: open the links for data at once, not with their first request.
        """
        self._identity = identity
        self._limits = limits or PeerLimits()
        self._random = random
        self._client_tls = tls
        self._is_eager = is_eager
        self._links: dict[NodeId, Link] = {}
        """For data; the others are for bulk."""
        self._bulk_links: dict[NodeId, Link] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def cluster_id(self) -> str:
        """What connections opened from now on are checked against."""
        return self._identity.cluster_id

    @cluster_id.setter
    def cluster_id(self, cluster_id: str) -> None:
        self._identity.cluster_id = cluster_id

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Keep links to exactly these nodes, this one left out; ``addresses`` are host:port.

        What is pending to a node that was dropped or has moved fails at once.
        """
        for links in (self._links, self._bulk_links):
            for node, link in list(links.items()):
                if addresses.get(node) != link.address:
                    self._own(link.close())
                    del links[node]
        for node, address in addresses.items():
            if node != self._identity.node_id and node not in self._links:
                self._links[node] = self._new_link(node, address)
                self._bulk_links[node] = self._new_link(node, address)
                if self._is_eager:
                    self._links[node].open()

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether a request to ``node`` would leave now, or wait for the first attempt to connect."""
        link = self._links.get(node)
        return link is not None and link.is_hopeful

    def connected(self) -> Mapping[NodeId, bool]:
        """Tell of each peer whether a request would leave now."""
        return {node: link.is_connected for node, link in self._links.items()}

    @property
    def versions(self) -> Versions:
        """What this node speaks."""
        return self._identity.versions

    def agreed(self) -> Mapping[NodeId, int | None]:
        """Tell what is spoken with each peer, None while there is no connection to it."""
        return {node: link.version for node, link in self._links.items()}

    def problems(self) -> Mapping[NodeId, str | None]:
        """Tell of each peer why there is no connection to it, None if there is one."""
        return {node: link.down_because for node, link in self._links.items()}

    def require(self, version: int) -> None:
        """Open and take no connection that would speak anything older; see `transport.Transport.require`."""
        self._identity.require(version)

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Send ``request`` to ``node``; see `transport.Transport.request`."""
        link = (self._links if traffic is Traffic.DATA else self._bulk_links).get(node)
        if link is not None:
            return link.request(request, timeout_s)
        assert node != self._identity.node_id, "a node does not send requests to itself"
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        return failed(future, PeerUnreachableError(f"node {node} is not in the cluster map that this node has"))

    def introduce(self, address: str, request: Request, *, timeout_s: float) -> asyncio.Future[Reply]:
        """Send ``request`` to whoever answers at ``address``, over a connection of its own.

        The future completes as that of `request` does.
        """
        task = asyncio.get_running_loop().create_task(self._ask_once(address, request, timeout_s))
        self._own(task)
        return task

    async def close(self) -> None:
        """Fail what is pending, close every connection; nothing is left running."""
        self._close_links()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _close_links(self) -> None:
        for links in (self._links, self._bulk_links):
            for link in links.values():
                self._own(link.close())
            links.clear()
        for task in self._tasks:
            task.cancel()

    async def _ask_once(self, address: str, request: Request, timeout_s: float) -> Reply:
        connection = Connection(self._identity, self._limits, address=address, expected=None)
        reply = connection.request(request, timeout_s)
        try:
            patience_s = min(timeout_s, self._limits.connect_timeout_s)
            await connect(connection, address, timeout_s=patience_s, tls=self._client_tls)
            return await reply
        finally:
            connection.close(f"{address}: the request was answered or given up")

    def _new_link(self, node: NodeId, address: str) -> Link:
        return Link(node, address, self._identity, limits=self._limits, random=self._random, tls=self._client_tls)

    def _own(self, task: asyncio.Task[None] | asyncio.Task[Reply] | None) -> None:
        if task is not None and not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
