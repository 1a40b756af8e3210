"""An HTTP request as an application sees it, and the response that it gives; no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


def _has_room(_bytes: int) -> bool:
    return True


class Request(msgspec.Struct, gc=False):
    """A whole request."""

    method: bytes
    path: bytes
    """The target as it was sent, query and escapes included: signatures are computed over it."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in the order sent."""
    body: bytes
    peer: str
    """host:port of the client."""
    room: Callable[[int], bool] = _has_room
    """Takes bytes from the server's budget of bodies, if they fit; see `hold`."""
    held_bytes: int = 0
    """Beyond the body, until the request is answered."""
    named: Mapping[bytes, bytes] | None = None
    """See `first_of_each`, where whoever made the request knew it already."""

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


class Response(msgspec.Struct, gc=False):
    """What to answer. Length, date and connection headers are the server's to add."""

    status: int
    """200 to 599."""
    headers: bytes | list[tuple[bytes, bytes]] = b""
    """Lines that each end in CRLF (made once and used again), or pairs."""
    body: bytes | list[bytes] = b""


def text_response(status: int, message: str) -> Response:
    """Return a response for people."""
    return Response(status, b"content-type: text/plain; charset=utf-8\r\n", message.encode() + b"\n")
