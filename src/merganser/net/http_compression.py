"""Compressed bodies: those of requests within bounds, those of answers where a client asks for them.

A body that expands without end is stopped at its bound, and what it expanded to is charged to the budget of
bodies like bytes that were sent.

A gzip file may have any number of members; one is read here, because 16 MiB of empty ones take seconds.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from typing import Final

from merganser.model.errors import OverloadedError
from merganser.net.http_messages import Request

GZIP_BYTES_MIN: Final = 1024
"""Below it an answer fits into one packet either way."""

_STEP_BYTES: Final = 64 * 1024
_TURN_BYTES: Final = 512 * 1024  # compressed in some 5 ms, in which the loop serves nobody else
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_GZIP: Final = 31
_FASTEST: Final = 1  # a page of JSON becomes 26 % of itself in 10 ms; the usual level takes 16 ms for 24 %


class UnreadableBodyError(ValueError):
    """The body is not what its content-encoding says, or that is one nobody reads here."""


class BodyTooLargeError(ValueError):
    """The body expands to more than it may."""


def expanded(request: Request, encoding: bytes, *, bytes_max: int) -> bytes:
    """Return the body of a request as it was before it was compressed.

    Args:
        request: charged for what is returned, until it is answered.
        encoding: the content-encoding, as it was sent.
        bytes_max: how large it may be.

    Raises:
        UnreadableBodyError: damaged, cut, followed by something, or of another encoding.
        BodyTooLargeError: more than ``bytes_max``.
        OverloadedError: the requests under way hold too much already.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return request.body
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise UnreadableBodyError(f"content-encoding {encoding.decode('latin-1')!r}: send gzip, deflate or identity")
    whole = bytearray()
    try:
        for piece in _inflated(request.body, window_bits):
            whole += piece
            if len(whole) > bytes_max:
                raise BodyTooLargeError(f"more than {bytes_max} bytes of body")
            if not request.hold(len(piece)):
                raise OverloadedError("requests under way hold too many bytes")
    except zlib.error as error:
        raise UnreadableBodyError(f"the body is not {encoding.decode()}: {error}") from None
    return bytes(whole)


def _inflated(body: bytes, window_bits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(window_bits)
    view = memoryview(body)
    end = 0
    while not inflater.eof and end < len(body):
        source: bytes | memoryview = view[end : end + _STEP_BYTES]
        end += len(source)
        while source:
            yield inflater.decompress(source, _STEP_BYTES)
            source = inflater.unconsumed_tail
    while not inflater.eof:
        piece = inflater.decompress(b"", _STEP_BYTES)
        if not piece and not inflater.eof:
            raise zlib.error("it is cut")
        yield piece
    if inflater.unused_data or end < len(body):
        raise zlib.error("something follows it")


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Tell whether a client wants gzip, from its accept-encoding header."""
    for one in accept_encoding.lower().split(b","):
        coding, _, parameter = one.partition(b";")
        if coding.strip() in (b"gzip", b"x-gzip"):
            name, _, weight = parameter.partition(b"=")
            return name.strip() != b"q" or weight.strip().rstrip(b"0") not in (b"", b".", b"0.")
    return False


async def gzipped(pieces: list[bytes]) -> list[bytes]:
    """Return ``pieces`` compressed into one gzip member; others have turns of the loop while it is made."""
    deflater = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
    compressed: list[bytes] = []
    since_turn = 0
    for piece in pieces:
        for start in range(0, len(piece), _TURN_BYTES):
            part = piece[start : start + _TURN_BYTES]
            since_turn += len(part)
            if since_turn > _TURN_BYTES:
                since_turn = len(part)
                await asyncio.sleep(0)
            compressed.append(deflater.compress(part))
    return [*compressed, deflater.flush()]
