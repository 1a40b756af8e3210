"""Datagrams to and from the other nodes over UDP, on the number of the peer port.

What arrives is handed on as it is: who sent it stands in it, because behind NAT or a proxy the address tells
nothing. What cannot be sent is lost, as datagrams may be: to a node whose name is not resolved yet or does not resolve,
or while the socket is full. Names are resolved by the loop's threads, again every `RESOLVED_S`, and addresses
written as numbers never.

Source: docs/internals/membership.md.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from merganser.model.errors import ConfigurationError
from merganser.model.ids import NodeId
from merganser.net.sockets import split_address

RESOLVED_S = 30.0
"""A node that comes back under another address is found again within it."""
RESOLVE_TIMEOUT_S = 5.0
DATAGRAM_BYTES_MAX = 1472
"""What Ethernet carries in one piece; more is a mistake of ours."""

Receiver = Callable[[bytes], None]


class DatagramPortError(OSError):
    """The UDP port cannot be had, though the TCP port of that number can."""


class Datagrams:
    """This node's UDP sockets, one for each address it listens on."""

    def __init__(self) -> None:
        """Send to nobody, and drop what arrives."""
        self.receiver: Receiver | None = None
        """Told of each datagram."""
        self.sent = 0
        self.received = 0
        self.unsent = 0
        self._peers: dict[NodeId, _Peer] = {}
        self._ports: list[_Port] = []

    async def listen(self, listeners: Sequence[Any]) -> None:
        """Take the UDP port beside each of the listening TCP sockets.

        Raises:
            DatagramPortError: one cannot be had; none is kept.
        """
        loop = asyncio.get_running_loop()
        for listener in listeners:
            try:
                sock = _bound_beside(listener)
            except OSError as error:
                self.close()
                raise DatagramPortError(error.errno, error.strerror) from None
            _, port = await loop.create_datagram_endpoint(functools.partial(_Port, self, listener.family), sock=sock)
            self._ports.append(port)

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Know exactly these nodes; ``addresses`` are host:port."""
        for node, peer in list(self._peers.items()):
            if addresses.get(node) != peer.address:
                peer.close()
                del self._peers[node]
        for node, address in addresses.items():
            if node not in self._peers:
                self._peers[node] = _Peer(address)

    def send(self, node: NodeId, data: bytes) -> None:
        """Send ``data``; it may get lost."""
        assert len(data) <= DATAGRAM_BYTES_MAX
        peer = self._peers.get(node)
        if peer is not None:
            for family, address in peer.resolved():
                for port in self._ports:
                    if port.family == family and port.send(data, address):
                        self.sent += 1
                        return
        self.unsent += 1

    def close(self) -> list[asyncio.Task[None]]:
        """Let go of every socket; the returned tasks, if any, have been cancelled."""
        ending = [task for peer in self._peers.values() if (task := peer.close()) is not None]
        for port in self._ports:
            port.close()
        self._peers.clear()
        self._ports.clear()
        return ending


def _bound_beside(listener: Any) -> socket.socket:
    """Return a UDP socket with the address of a listening TCP socket, bound as `create_server` binds that."""
    sock = socket.socket(listener.family, socket.SOCK_DGRAM)
    try:
        if listener.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(listener.getsockname())
    except BaseException:
        sock.close()
        raise
    return sock


class _Port(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, datagrams: Datagrams, family: int) -> None:
        self.family = family
        self._datagrams = datagrams
        self._transport: asyncio.DatagramTransport | None = None
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._datagrams.received += 1
        if self._datagrams.receiver is not None:
            self._datagrams.receiver(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens where an earlier one went to; that is what the failure detector finds out."""

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def send(self, data: bytes, address: tuple[str, int]) -> bool:
        """Send, if there is room; tells whether there was."""
        if self._transport is None or self._is_full or self._transport.is_closing():
            return False
        try:
            self._transport.sendto(data, address)
        except OSError:  # no way there just now
            return False
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Peer:
    """Where one node is."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._found: list[tuple[int, tuple[str, int]]] = []
        self._resolve_at = 0.0
        self._resolving: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        try:
            self._host, self._port = split_address(address)
            ip = ipaddress.ip_address(self._host)
        except ConfigurationError:  # found out by the connection as well, which says so
            self._resolve_at = float("inf")
        except ValueError:  # a name
            pass
        else:
            self._found = [(socket.AF_INET if ip.version == 4 else socket.AF_INET6, (self._host, self._port))]
            self._resolve_at = float("inf")

    def resolved(self) -> Sequence[tuple[int, tuple[str, int]]]:
        """Return family and address of each way there that is known; looks for them again when it is time."""
        if self._loop.time() >= self._resolve_at and self._resolving is None:
            self._resolving = self._loop.create_task(self._resolve())
        return self._found

    def close(self) -> asyncio.Task[None] | None:
        """Resolve no more."""
        if self._resolving is not None:
            self._resolving.cancel()
        return self._resolving

    async def _resolve(self) -> None:
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
            self._found = [(int(family), (str(address[0]), int(address[1]))) for family, *_, address in found]
        except (OSError, UnicodeError, TimeoutError):  # what was found before still stands
            pass
        finally:
            self._resolve_at = self._loop.time() + RESOLVED_S
            self._resolving = None
