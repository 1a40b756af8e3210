"""An HTTP response as bytes; no I/O here."""

from __future__ import annotations

import http
from typing import Final

from merganser.net.http_messages import Response

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
JOIN_BYTES_MAX: Final = 64 * 1024
"""Joining pieces costs less than a scattered write up to about this size."""
_WITHOUT_BODY = frozenset((204, 304))


def encode_response(response: Response, *, date: bytes, connection: bytes, is_head: bool) -> list[bytes]:
    """Return ``response`` as pieces to be written one after the other.

    Args:
        response: what the application answered.
        date: the whole date line.
        connection: the whole connection line, b"" for none.
        is_head: announce the body and leave it out.

    Raises:
        TypeError: the application made it of something else than bytes.
    """
    status, headers, body = response.status, response.headers, response.body
    assert status >= 200
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if not isinstance(headers, bytes):
        headers = b"".join([b"%b: %b\r\n" % (name, value) for name, value in headers])
    if status in _WITHOUT_BODY:
        return [b"%b%b%b%b\r\n" % (line, headers, date, connection)]
    length = len(body) if isinstance(body, bytes) else sum(map(len, body))
    head = b"%b%b%b%bcontent-length: %d\r\n\r\n" % (line, headers, date, connection, length)
    if is_head:
        return [head]
    if isinstance(body, bytes):
        return [head + body] if length <= JOIN_BYTES_MAX else [head, body]
    return [head, *_checked(body)]


def _checked(pieces: list[bytes]) -> list[bytes]:
    if not all(isinstance(piece, bytes) for piece in pieces):
        raise TypeError("a body is bytes or a list of bytes")
    return pieces
