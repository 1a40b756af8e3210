"""Requests to and from the other nodes over TCP, and datagrams over UDP: `transport.Transport` for real sockets.

Each node keeps one outgoing connection per peer and class of traffic (`link.Link`), serves what
others open to it (`server.PeerServer`), and has the UDP port of the same number (`datagrams`). See
docs/internals/peers.md.
"""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
from collections.abc import Callable, Mapping

from merganser.model.errors import PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request
from merganser.model.versions import SPOKEN, Versions
from merganser.net.datagrams import DatagramPortError, Datagrams
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.link import Connection, Link, connect
from merganser.net.listening import port_of, sockets_of
from merganser.net.server import PeerServer
from merganser.net.transport import Handler, Traffic, failed

PORT_TRIES = 50


class Peers:
    """This node's connections with all others. Made, used and closed on the event loop."""

    def __init__(
        self,
        node_id: NodeId,
        *,
        cluster_id: str,
        random: randomness.Random,
        handler: Handler,
        on_error: Callable[[BaseException], None],
        limits: PeerLimits | None = None,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        versions: Versions = SPOKEN,
    ) -> None:
        """Take part as ``node_id``.

        Args:
            node_id: who this node is.
            cluster_id: "" while it belongs to no cluster; set `cluster_id` when it does.
            random: spreads reconnects.
            handler: serves the peers' requests.
            on_error: told of the handler's bugs and of damaged bytes.
            limits: bounds.
            server_tls: for connections that peers open.
            client_tls: for connections that this node opens.
            versions: what this node speaks.
        """
        self._identity = Identity(node_id, cluster_id, versions)
        self._limits = limits or PeerLimits()
        self._random = random
        self._client_tls = client_tls
        self._server = PeerServer(self._identity, handler, on_error, limits=self._limits, tls=server_tls)
        self._server.on_greeted = self._is_back
        self.datagrams = Datagrams()
        self.when_greeted: Callable[[NodeId], None] | None = None
        self._links: dict[NodeId, Link] = {}
        """For data; the others are for bulk."""
        self._bulk_links: dict[NodeId, Link] = {}
        self._tasks: set[asyncio.Task[None] | asyncio.Task[Reply]] = set()

    @property
    def cluster_id(self) -> str:
        """What connections opened from now on are checked against."""
        return self._identity.cluster_id

    @cluster_id.setter
    def cluster_id(self, cluster_id: str) -> None:
        self._identity.cluster_id = cluster_id

    @property
    def receive_datagram(self) -> Callable[[bytes], None] | None:
        """Called with each datagram that arrives."""
        return self.datagrams.receiver

    @receive_datagram.setter
    def receive_datagram(self, receiver: Callable[[bytes], None] | None) -> None:
        self.datagrams.receiver = receiver

    def send_datagram(self, node: NodeId, data: bytes) -> None:
        """Send ``data`` to ``node``; see `transport.Transport.send_datagram`."""
        self.datagrams.send(node, data)

    async def listen(self, host: str, port: int) -> int:
        """Accept peers and datagrams on ``host`` and ``port`` (0 picks one that is free for both); return the port.

        Raises:
            OSError: the address cannot be had; `DatagramPortError` if it is the UDP port.
        """
        for _ in range(PORT_TRIES - 1 if port == 0 else 0):
            try:
                return await self._listen(host, 0)
            except DatagramPortError:
                continue
        return await self._listen(host, port)

    async def _listen(self, host: str, port: int) -> int:
        listener = await self._server.listen(host, port)
        try:
            await self.datagrams.listen(sockets_of(listener))
        except DatagramPortError:
            await self._server.stop_listening()
            raise
        return port_of(listener)

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Keep links to exactly these nodes, this one left out; ``addresses`` are host:port.

        What is pending to a node that was dropped or has moved fails at once.
        """
        self.datagrams.set_peers(addresses)
        for links in (self._links, self._bulk_links):
            for node, link in list(links.items()):
                if addresses.get(node) != link.address:
                    self._own(link.close())
                    del links[node]
        for node, address in addresses.items():
            if node != self._identity.node_id and node not in self._links:
                self._links[node] = self._new_link(node, address)
                self._bulk_links[node] = self._new_link(node, address)
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
        """Fail what is pending, stop serving, close every connection; nothing is left running."""
        for links in (self._links, self._bulk_links):
            for link in links.values():
                self._own(link.close())
            links.clear()
        for resolving in self.datagrams.close():
            self._own(resolving)
        for task in self._tasks:
            task.cancel()
        await self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask_once(self, address: str, request: Request, timeout_s: float) -> Reply:
        connection = Connection(self._identity, self._limits, address=address, expected=None)
        reply = connection.request(request, timeout_s)
        try:
            patience_s = min(timeout_s, self._limits.connect_timeout_s)
            await connect(connection, address, timeout_s=patience_s, tls=self._client_tls)
            return await reply
        finally:
            connection.close(f"{address}: the request was answered or given up")

    def _is_back(self, node: NodeId) -> None:
        if self.when_greeted is not None:
            self.when_greeted(node)
        for links in (self._links, self._bulk_links):
            link = links.get(node)
            if link is not None:
                link.is_back()

    def _new_link(self, node: NodeId, address: str) -> Link:
        return Link(node, address, self._identity, limits=self._limits, random=self._random, tls=self._client_tls)

    def _own(self, task: asyncio.Task[None] | asyncio.Task[Reply] | None) -> None:
        if task is not None and not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
