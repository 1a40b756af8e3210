"""The request that a client is sending, gathered piece by piece as the parser finds it, within the limits.

::

    idle --its first byte--> in its head --headers complete--> in its body --complete--> in line, and idle again

Each piece is counted when it comes: what is too long, or has no room in the server's budget of bodies, raises
`RefusedRequestError` through the parser. The bytes of a body are charged here until the request is in line; from there
on they are its `Exchange`'s to give back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httptools

from merganser.net.http_messages import Exchange, Request, Response, text_response

if TYPE_CHECKING:
    from merganser.net.http import HttpServer
    from merganser.net.http_connection import HttpConnection

_NONE: Mapping[bytes, bytes] = {}
QUESTIONED_BYTES = 1024 * 1024
"""Whether the application takes a body at all is asked from here on; below it is not worth the call."""


class Incoming:
    """What has come of a connection's next request; see the module's docstring."""

    def __init__(self, connection: HttpConnection, server: HttpServer) -> None:
        """Gather requests for ``connection``."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._server = server
        self._limits = server.limits
        self._room = server.take_bytes
        self.parser = httptools.HttpRequestParser(self)
        self.peer = ""
        """Of the connection, as requests name it."""
        self.began_at = 0.0
        """By the loop's clock."""
        self.read_bytes = 0
        """That came with the last call."""
        self._forget()

    def _forget(self) -> None:
        self.is_in_head = self.is_in_message = False
        self.is_continue_due = False
        """The client waits to be told to send the body."""
        self.head_bytes = 0
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._named: Mapping[bytes, bytes] = _NONE
        self._trailers = 0
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        """Charged to the server and not yet to an exchange."""
        self._body_bytes_max = self._limits.body_bytes_max

    # What the connection calls.

    def drop(self) -> None:
        """Forget what has come; the next byte begins another request."""
        self._server.bodies_bytes -= self._body_bytes
        self._forget()

    def too_many_header_bytes(self) -> str:
        """Return what a client is told whose head is too long."""
        return f"more than {self._limits.header_bytes_max} bytes of headers"

    def head_without_upgrade(self) -> bytes:
        """Return the head of the request again, so that it is read on as HTTP/1.1, which a server may choose.

        The parser takes all after an offer to upgrade for the other protocol, the body of the request as well. Another
        one takes its place.
        """
        parser, self.parser = self.parser, httptools.HttpRequestParser(self)
        if parser.get_method() == b"CONNECT":  # has no body, and has been put in line
            return b""
        lines = [b"%b %b HTTP/%b\r\n" % (parser.get_method(), self._path, parser.get_http_version().encode())]
        lines += [b"%b: %b\r\n" % header for header in self._headers if header[0].lower() != b"upgrade"]
        self._forget()
        return b"".join([*lines, b"\r\n"])

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start the clock."""
        self.is_in_head = self.is_in_message = True
        self.began_at = self._loop.time()

    def on_url(self, piece: bytes) -> None:
        """Gather the target, which comes in pieces when the stream does."""
        self._path += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, which is counted once they are complete; count a trailer and drop it."""
        if self.is_in_head:
            self._headers.append((name, value))
            return
        self._trailers += 1
        self._count_headers(self._trailers)
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced too long or has no room; else ask for it if the client waits for that."""
        if self._is_upgrade_offered():
            return
        self._count_headers(len(self._headers))
        if self.head_bytes + self.read_bytes > self._limits.header_bytes_max:  # with what else came, if it is the head
            self.head_bytes = 0
            self._count_head(len(self._path) + sum([len(name) + len(value) for name, value in self._headers]))
        self.is_in_head = False
        self.head_bytes = 0
        # llhttp strips the front only
        headers = [(name.lower(), value.rstrip(b" \t")) for name, value in self._headers]
        named = dict(reversed(headers))
        self._headers, self._named = headers, named
        announced_bytes = int(named.get(b"content-length", 0))
        if announced_bytes >= QUESTIONED_BYTES or b"transfer-encoding" in named:
            self._question_body()
        if announced_bytes:
            self._check_room(announced_bytes)
        if b"expect" in named:
            self._expect(named[b"expect"])

    def on_body(self, piece: bytes) -> None:
        """Gather the body, and charge it."""
        size = len(piece)
        self._body_bytes += size
        self._server.bodies_bytes += size
        self._check_room(0)
        if not self._body:
            self._body = piece
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)  # a list of pieces of two bytes would hold 27 times as much
        self._body += piece

    def on_message_complete(self) -> None:
        """Put the request in line."""
        if self._is_upgrade_offered():
            return
        parser = self.parser
        request = Request(
            parser.get_method(), self._path, self._headers, bytes(self._body), self.peer, self._room, 0, self._named
        )
        is_last = self._server.is_draining or not parser.should_keep_alive()
        is_http_1_0 = b"connection" in self._named and parser.get_http_version() == "1.0"  # without it, it is the last
        self._connection.put_in_line(Exchange(request, is_last=is_last, is_http_1_0=is_http_1_0))
        self._forget()

    # Limits.

    def _is_upgrade_offered(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            raise RefusedRequestError(417, "the only expectation that can be met is 100-continue")
        if self.parser.get_http_version() != "1.0":
            self.is_continue_due = True
            self._connection.answer_done()

    def _count_headers(self, count: int) -> None:
        if count > self._limits.headers_max:
            raise RefusedRequestError(431, f"more than {self._limits.headers_max} headers")

    def _count_head(self, length: int) -> None:
        self.head_bytes += length
        if self.head_bytes > self._limits.header_bytes_max:
            raise RefusedRequestError(431, self.too_many_header_bytes())

    def _question_body(self) -> None:
        if self._server.body_bound is not None:
            self._body_bytes_max = min(self._body_bytes_max, self._server.body_bound(self._headers))

    def _check_room(self, more_bytes: int) -> None:
        if self._body_bytes + more_bytes > self._body_bytes_max:
            raise RefusedRequestError(413, f"more than {self._body_bytes_max} bytes of body", self._is_too_large())
        most = self._limits.bodies_bytes_max
        if self._server.bodies_bytes + more_bytes > most:
            raise RefusedRequestError(503, f"requests under way would hold more than {most} bytes; try again later")

    def _is_too_large(self) -> Response | None:
        server = self._server
        is_of_any = self._body_bytes_max == self._limits.body_bytes_max
        return None if is_of_any or server.too_large is None else server.too_large(self._headers)


class RefusedRequestError(Exception):
    """Raised through the parser: the request is not to be read to its end."""

    def __init__(self, status: int, message: str, response: Response | None = None) -> None:
        """Answer with ``response``, or with ``status`` and ``message``."""
        super().__init__(message)
        self.response = response or text_response(status, message)
