"""An HTTP request as an application sees it, the response that it gives, and the place of both in line; no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def _has_room(_bytes: int) -> bool:
    return True


class Request:
    """A whole request. No struct, which could not be compiled: its members are read some thirty times."""

    __slots__ = ("body", "headers", "held_bytes", "method", "named", "path", "peer", "room")

    def __init__(
        self,
        method: bytes,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        peer: str,
        room: Callable[[int], bool] = _has_room,
        held_bytes: int = 0,
        named: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Hold what was sent.

        Args:
            method: as it was sent.
            path: the target as it was sent, query and escapes included: signatures are computed over it.
            headers: names in lower case, in the order sent.
            body: whole.
            peer: host:port of the client.
            room: takes bytes from the server's budget of bodies, if they fit; see `hold`.
            held_bytes: beyond the body, until the request is answered.
            named: see `first_of_each`, where whoever made the request knew it already.
        """
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.peer = peer
        self.room = room
        self.held_bytes = held_bytes
        self.named = named

    def hold(self, count: int) -> bool:
        """Charge the request for more bytes than it was sent; returns False if there is no room for them."""
        if not self.room(count):
            return False
        self.held_bytes += count
        return True

    def first_of_each(self) -> Mapping[bytes, bytes]:
        """Return the headers by name (lower case), of several with one name the first."""
        return self.named or dict(reversed(self.headers))

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of ``name`` (lower case), None if there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Response:
    """What to answer. Length, date and connection headers are the server's to add."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int, headers: bytes | list[tuple[bytes, bytes]] = b"", body: bytes | list[bytes] = b""
    ) -> None:
        """Answer with ``status`` (200 to 599), ``headers`` (lines that each end in CRLF, or pairs) and ``body``."""
        self.status = status
        self.headers = headers
        self.body = body


class Exchange:
    """A request and the place of its response in the order of answers."""

    __slots__ = ("answer", "is_http_1_0", "is_last", "request")

    def __init__(self, request: Request | None, *, is_last: bool, is_http_1_0: bool = False) -> None:
        """Take the next place."""
        self.request = request
        """None when it could not be read, and once it is answered."""
        self.is_last = is_last
        self.is_http_1_0 = is_http_1_0
        self.answer: list[bytes] | None = None


def text_response(status: int, message: str) -> Response:
    """Return a response for people."""
    return Response(status, b"content-type: text/plain; charset=utf-8\r\n", message.encode() + b"\n")
