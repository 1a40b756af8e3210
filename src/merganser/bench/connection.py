"""One keep-alive HTTP connection of the load generator: one request at a time.

The generator shares the cores with what it measures, so an answer costs it as little as can be: one parse by httptools
without a callback for headers or body, one call, no task, no future and no timer per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, Self, cast

import httptools

REQUEST_TIMEOUT_S = 30.0

Answered = Callable[["Connection", int, list[bytes]], None]
"""Told of each answer: its status, and its bytes as they came, head and all. Status 0: the connection was lost."""


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Connection(asyncio.Protocol):
    """Sends one request at a time; opens the socket again where the server closes it after each answer, and says so."""

    def __init__(self, host: str, port: int, answered: Answered) -> None:
        """Prepare an unconnected protocol; `open` connects."""
        self._host = host
        self._port = port
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._parser = cast("_Parser", httptools.HttpResponseParser(self))
        self._received: list[bytes] = []
        self._is_complete = False
        self._is_kept = True
        self._abandoned = 0
        """Sockets closed here, of which the loop has not told yet."""
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Connect.

        Raises:
            OSError: that is refused.
        """
        self._parser = cast("_Parser", httptools.HttpResponseParser(self))
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        return self

    def send(self, request: bytes) -> None:
        """Send ``request``; its answer is told of.

        Raises:
            ConnectionError: the connection is lost.
        """
        if self._transport is None and not self._is_kept:
            self._opening = asyncio.get_running_loop().create_task(self._open_and_send(request))
            return
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is lost")
        self._transport.write(request)

    def close(self) -> None:
        """Close the socket; nothing more is told."""
        self._answered = _ignore
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._received.append(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._received = [f"what came is no HTTP: {error}".encode()]
            if self._transport is not None:
                self._transport.abort()
            return
        if self._is_complete:  # told here, outside of the parser, so that the next request may be sent at once
            self._is_complete = False
            received, self._received = self._received, []
            if not self._is_kept and self._transport is not None:
                self._abandoned += 1
                self._transport.close()
                self._transport = None
            self._answered(self, self._parser.get_status_code(), received)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of it, unless it was closed after an answer that said so."""
        if self._abandoned:
            self._abandoned -= 1
            return
        self._answered(self, 0, [*self._received, str(exc or "closed by the server").encode()])

    def on_message_complete(self) -> None:
        """Note it (called by the parser)."""
        self._is_complete = True
        self._is_kept = self._parser.should_keep_alive()

    async def _open_and_send(self, request: bytes) -> None:
        try:
            await self.open()
        except OSError as error:
            self._answered(self, 0, [str(error).encode()])
            return
        self.send(request)


class Asking(Connection):
    """A connection for few requests, each awaited, with the whole answer."""

    def __init__(self, host: str, port: int) -> None:
        """Prepare an unconnected protocol."""
        super().__init__(host, port, self._fulfil)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send ``request``; returns status and body.

        Raises:
            ConnectionError: the connection is lost.
            TimeoutError: no answer in time.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self.send(request)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await self._answer

    def on_body(self, body: bytes) -> None:
        """Collect (called by the parser)."""
        self._body.append(body)

    def _fulfil(self, _connection: Connection, status: int, received: list[bytes]) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if self._answer is None or self._answer.done():
            return
        if status:
            self._answer.set_result((status, body))
        else:
            self._answer.set_exception(ConnectionError(b"".join(received).decode(errors="replace")))


def _ignore(_connection: Connection, _status: int, _received: list[bytes]) -> None:
    """Tell nobody."""
