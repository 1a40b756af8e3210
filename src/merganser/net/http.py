"""An HTTP/1.1 server for every front door: bytes to `Request`, `Response` to bytes.

The server listens, keeps the connections (`net/http_connection.py`) and the tasks of their requests, checks
their time limits once a tick, and closes them with a grace.

Requests that come in one turn of the loop are served one after the other in the next, each as far as it need not wait:
what can be answered by then takes neither a task nor a coroutine, what waits becomes a task. Their answers are written
after that, so that a client which waits for several is woken once, and each of the three stages stays in the caches of
the processor.

Invariants: at most one task per request, owned by the server; what the application raises is reported and answered;
the bodies of all connections together stay within `HttpLimits.bodies_bytes_max`, the answers that clients do
not take within `answers_bytes_max` and one answer, the connections within `connections_max` and `refusals_max`.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from merganser.net.http_connection import HttpConnection
from merganser.net.http_encoding import encode_response
from merganser.net.http_heads import Heads
from merganser.net.http_limits import HttpLimits
from merganser.net.http_messages import Exchange, Request, Response, text_response
from merganser.net.listening import port_of

__all__ = ["Application", "BodyBound", "HttpLimits", "HttpServer", "Request", "Response", "TooLarge", "text_response"]

if TYPE_CHECKING:
    import socket

Application = Callable[[Request], Response | Coroutine[Any, Any, Response]]
"""Answers a request: at once, or, where something has to be waited for, when what it returns is awaited. What it raises
is its bug: reported and answered with 500."""

BodyBound = Callable[[list[tuple[bytes, bytes]]], int]
"""Returns how many bytes of body a request with these headers may have, asked before the body is read."""

TooLarge = Callable[[list[tuple[bytes, bytes]]], Response | None]
"""Returns the answer to a request whose body passes the bound that the application gave it; None is a plain 413."""

_FLUSH_AT = 32
"""Answers that wait for one another in a turn of the loop: more would make the first of them late."""
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"


class HttpServer:
    """Serves an application to any number of listening sockets."""

    def __init__(
        self,
        application: Application,
        *,
        on_error: Callable[[BaseException], None],
        limits: HttpLimits | None = None,
        body_bound: BodyBound | None = None,
        too_large: TooLarge | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve ``application``; report its bugs to ``on_error``.

        ``body_bound`` may allow a request less than ``limits`` do; it is asked about bodies over a mebibyte only.
        ``too_large`` answers those that pass it.
        """
        self.limits = limits or HttpLimits()
        self.body_bound = body_bound
        self.too_large = too_large
        self.refusals = 0
        """Connections that are being told that there are too many."""
        self.refused_connections = 0
        """Since the start."""
        self.answers_bytes = 0
        """Written and not taken by their clients, over all connections that are paused."""
        self.connections: set[HttpConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.bodies_bytes = 0
        """Of request bodies received and not yet answered, over all connections."""
        self.is_closing = False
        self.is_draining = False
        """Close each connection after its next answer, so that clients look for another node."""
        self.heads = Heads()
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[HttpConnection, Exchange, Request]] = []
        self._to_flush: list[HttpConnection] = []
        self._is_in_turn = False
        self.application = application
        self._on_error = on_error
        self._tls = tls
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = b""
        self._date_second = -1

    async def listen(self, host: str, port: int) -> int:
        """Accept clients on ``host`` and ``port`` (0 picks a free one); return the port.

        Raises:
            OSError: the address cannot be had.
        """
        return await self._accept(host=host, port=port)

    async def listen_on(self, bound: socket.socket) -> int:
        """Accept clients on a socket that is bound to an address; return its port. The socket is the server's now."""
        return await self._accept(sock=bound)

    async def _accept(self, **where: Any) -> int:
        loop = asyncio.get_running_loop()
        patience_s = self.limits.request_timeout_s if self._tls else None
        listener = await loop.create_server(
            lambda: HttpConnection(self), ssl=self._tls, ssl_handshake_timeout=patience_s, backlog=1024, **where
        )
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweep()
        return port_of(listener)

    async def close(self, grace_s: float) -> None:
        """Stop accepting, let requests in flight end for ``grace_s``, then close every connection."""
        self.is_closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.close_when_answered()
        await self._wait([connection.lost for connection in self.connections], grace_s)
        for connection in list(self.connections):
            connection.abort()
        for task in self.tasks:
            task.cancel()
        await self._wait([*self.tasks, *(connection.lost for connection in self.connections)], 1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            await listener.wait_closed()

    def report(self, exchange: Exchange, error: Exception) -> list[bytes]:
        """Report a bug of the application, and return the answer of ``exchange`` that says so."""
        self._on_error(error)
        return self.encode(exchange, text_response(500, "internal error; the server's log has it"))

    def encode(self, exchange: Exchange, response: Response) -> list[bytes]:
        """Return ``response`` as the answer of ``exchange``."""
        connection = _CLOSE if exchange.is_last else _KEEP_ALIVE if exchange.is_http_1_0 else b""
        is_head = exchange.request is not None and exchange.request.method == b"HEAD"
        date = self.date(self._loop.time())
        return encode_response(response, date=date, connection=connection, is_head=is_head)

    def serve_soon(self, connection: HttpConnection, exchange: Exchange, request: Request) -> None:
        """Serve a request in the next turn of the loop, with those of all connections that came in this one."""
        if not self._due:
            self._loop.call_soon(self._turn)
        self._due.append((connection, exchange, request))

    def flush_soon(self, connection: HttpConnection) -> None:
        """Write the answers of a connection with those of all others that are answered in this turn of the loop.

        A client that waits is woken by the first byte: one by one, that costs both sides a change of context each.
        """
        if not (self._to_flush or self._is_in_turn):
            self._loop.call_soon(self._flush)
        self._to_flush.append(connection)

    def _turn(self) -> None:
        """Serve what is due as far as nothing has to be waited for, and write the answers."""
        due, self._due = self._due, []
        self._is_in_turn = True
        try:
            for connection, exchange, request in due:
                self._begin(connection, exchange, request)
                if len(self._to_flush) >= _FLUSH_AT:
                    self._flush()
        finally:  # or nobody would be answered any more
            self._is_in_turn = False
            self._flush()

    def _begin(self, connection: HttpConnection, exchange: Exchange, request: Request) -> None:
        try:
            task = connection.serve(exchange, request)
        except Exception as error:  # noqa: BLE001 - a bug of ours: the others of this turn are served all the same
            self._on_error(error)
            connection.abort()
            return
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def take_bytes(self, count: int) -> bool:
        """Charge the budget of bodies, if there is room; whoever asked gives it back."""
        if self.bodies_bytes + count > self.limits.bodies_bytes_max:
            return False
        self.bodies_bytes += count
        return True

    def _flush(self) -> None:
        connections, self._to_flush = self._to_flush, []
        for connection in connections:
            connection.flush()

    def date(self, now_s: float) -> bytes:
        """Return the date line; clients correct their clocks by it. ``now_s`` is the loop's."""
        second = int(now_s)
        if second != self._date_second:
            self._date_second = second
            self._date = b"date: %b\r\n" % email.utils.formatdate(usegmt=True).encode()
        return self._date

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self.connections):
            if connection.expires_at <= now:
                connection.expire(now)
        tick_s = min(1.0, self.limits.request_timeout_s / 4, self.limits.idle_timeout_s / 4)
        self._sweeper = loop.call_later(tick_s, self._sweep)

    @staticmethod
    async def _wait(futures: list[asyncio.Task[None] | asyncio.Future[None]], timeout_s: float) -> None:
        if futures:
            await asyncio.wait(futures, timeout=timeout_s)
