"""How services reach other nodes: the seam between real sockets and the simulated network."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Protocol

from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request


class Traffic(enum.Enum):
    """Which connection carries a request; bulk transfer never shares a queue with requests."""

    DATA = "data"
    BULK = "bulk"


class Transport(Protocol):
    """Requests to peers, by node id."""

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        """Send ``request`` and return the future of its reply; never blocks.

        The future always completes, at the latest after ``timeout_s``. It fails with

        - PeerUnreachableError: not sent (no connection, unknown node, queue full);
        - PeerLostError: sent, but the connection broke or the time was up: unknown whether done;
        - RefusedError: the peer answered `Refused`.
        """


Handler = Callable[[NodeId, Request], Awaitable[Reply]]
"""Serves a peer's request. A `MerganserError` it raises goes back as `Refused`."""
