"""How services reach other nodes: the seam between real sockets and the simulated network."""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from merganser.model.errors import MerganserError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request
from merganser.model.refusal import Refused
from merganser.model.versions import Versions


class Traffic(enum.Enum):
    """Which connection carries a request; bulk transfer never shares a queue with requests."""

    DATA = "data"
    BULK = "bulk"


class Outgoing(Protocol):
    """Requests to nodes, by node id: all that a client needs."""

    def is_reachable(self, node: NodeId) -> bool:
        """Tell whether a request to ``node`` would be sent now, as far as is known."""

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Send ``request`` and return the future of its reply; never blocks.

        The future always completes, at the latest after ``timeout_s``. It fails with

        - PeerUnreachableError: not sent (no connection, unknown node);
        - PeerBusyError, which is one of those: not sent, because too much waits for that peer already;
        - PeerLostError: sent, but the connection broke or the time was up: unknown whether done;
        - RefusedError: the peer answered `Refused`.
        """

    def introduce(self, address: str, request: Request, *, timeout_s: float) -> asyncio.Future[Reply]:
        """Send ``request`` to whoever listens at ``address`` (host:port); completes as `request` does.

        For nodes that are not in the cluster map yet: one connection, closed after the reply.
        """

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Know exactly these peers (without this node itself) from now on."""


class Transport(Outgoing, Protocol):
    """Requests and datagrams to peers, by node id."""

    @property
    def versions(self) -> Versions:
        """What this node speaks."""

    receive_datagram: Callable[[bytes], None] | None
    """Called with each datagram that arrives, whoever sent it; set by who wants them."""
    when_greeted: Callable[[NodeId], None] | None
    """Called with every node that opens a connection; set by who wants to know."""

    def send_datagram(self, node: NodeId, data: bytes) -> None:
        """Send ``data``, at most 1,200 bytes, to ``node``; it may get lost, come twice, or overtake others."""

    def require(self, version: int) -> None:
        """Talk to nobody who speaks only what is older than ``version``, from the next connection on."""


Handler = Callable[[NodeId, Request], Awaitable[Reply]]
"""Serves a peer's request. A `MerganserError` it raises goes back as `Refused`."""

Beginner = Callable[[NodeId, Request], "asyncio.Future[Reply] | Reply | None"]
"""Serves a peer's request without a task of its own: returns the answer, or its future, which may be cancelled.

None: the `Handler` is to be asked. It raises as that, and so may the future."""


def begins_nothing(_sender: NodeId, _request: Request) -> asyncio.Future[Reply] | Reply | None:
    """Leave everything to the handler: a `Beginner`."""
    return None


def failed(future: asyncio.Future[Reply], error: MerganserError) -> asyncio.Future[Reply]:
    """Fail ``future``, without a complaint from the loop if its owner has stopped listening."""
    future.set_exception(error)
    future.exception()
    return future


def refusal(reply: Refused) -> RefusedError:
    """Return what a request fails with that was answered by ``reply``."""
    return RefusedError(reply.code, reply.message, map_epoch=reply.map_epoch, epoch=reply.epoch)


def refused(error: MerganserError) -> Refused:
    """Return how a request is answered that failed with ``error``."""
    if isinstance(error, RefusedError):
        return Refused(error.code, str(error), error.map_epoch, error.epoch)
    return Refused(refusal_code(error), str(error))


def refusal_code(error: MerganserError) -> str:
    """Return the class name in snake case without Error: TableNotFoundError gives table_not_found."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
