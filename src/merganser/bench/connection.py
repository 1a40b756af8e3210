"""One keep-alive HTTP connection of the load generator."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

REQUEST_TIMEOUT_S = 30.0


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...


class Connection(asyncio.Protocol):
    """Sends one request at a time."""

    def __init__(self) -> None:
        """Prepare an unconnected protocol."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []
        self._parser = cast("_Parser", httptools.HttpResponseParser(self))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send ``request``; returns status and body.

        Raises:
            ConnectionError: the connection is lost.
            TimeoutError: no answer in time.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is lost")
        self._answer = self._loop.create_future()
        self._transport.write(request)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await self._answer

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(exc or "closed by the server")))

    def on_body(self, body: bytes) -> None:
        """Collect (called by the parser)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Complete the request (called by the parser)."""
        body = b"".join(self._body)
        self._body.clear()
        status = self._parser.get_status_code()
        self._parser = cast("_Parser", httptools.HttpResponseParser(self))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))
