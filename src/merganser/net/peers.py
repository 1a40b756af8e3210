"""Requests to and from the other nodes over TCP, and datagrams over UDP: `transport.Transport` for real sockets.

Each node keeps one outgoing connection per peer and class of traffic (`links.Links`), serves what
others open to it (`server.PeerServer`), and has the UDP port of the same number (`datagrams`). See
docs/internals/peers.md.
"""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
from collections.abc import Callable, Mapping

from merganser.model.ids import NodeId
from merganser.model.versions import SPOKEN, Versions
from merganser.net.datagrams import DatagramPortError, Datagrams
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.links import Links
from merganser.net.listening import port_of, sockets_of
from merganser.net.server import PeerServer
from merganser.net.transport import Beginner, Handler, begins_nothing

PORT_TRIES = 50


class Peers(Links):
    """This node's connections with all others. Made, used and closed on the event loop."""

    def __init__(
        self,
        node_id: NodeId,
        *,
        cluster_id: str,
        random: randomness.Random,
        handler: Handler,
        begin: Beginner = begins_nothing,
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
            begin: those that it serves without a task.
            on_error: told of the handler's bugs and of damaged bytes.
            limits: bounds.
            server_tls: for connections that peers open.
            client_tls: for connections that this node opens.
            versions: what this node speaks.
        """
        super().__init__(Identity(node_id, cluster_id, versions), random=random, limits=limits, tls=client_tls)
        self._server = PeerServer(self._identity, handler, on_error, begin=begin, limits=self._limits, tls=server_tls)
        self._server.on_greeted = self._is_back
        self.datagrams = Datagrams()
        self.when_greeted: Callable[[NodeId], None] | None = None

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
        super().set_peers(addresses)

    async def close(self) -> None:
        """Fail what is pending, stop serving, close every connection; nothing is left running."""
        for resolving in self.datagrams.close():
            self._own(resolving)
        self._close_links()
        await self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _is_back(self, node: NodeId) -> None:
        if self.when_greeted is not None:
            self.when_greeted(node)
        for links in (self._links, self._bulk_links):
            link = links.get(node)
            if link is not None:
                link.is_back()
