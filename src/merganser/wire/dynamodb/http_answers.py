"""From the JSON of an answer to its HTTP response: checksum, request id, compression, what browsers need.

The checksum is that of the bytes on the wire, compressed or not, as SDKs check it (the Java SDK's
``calculateCRC32FromCompressedData``). It is not among the headers that browsers show to scripts, which see
answers only once they are expanded.
"""

from __future__ import annotations

import random
import string
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from merganser.core.checksums import crc32
from merganser.net.http import Response
from merganser.net.http_compression import GZIP_BYTES_MIN, gzipped

JSON: Final = b"application/x-amz-json-1.0"
PLAIN_JSON: Final = b"application/json"
_UNKNOWN: Final = b"<UnknownOperationException/>\n"

_CONTENT_TYPES: Final = {kind: b"content-type: %b\r\n" % kind for kind in (JSON, PLAIN_JSON)}
_ID_CHARACTERS: Final = (string.ascii_uppercase + string.digits).encode()
_ID_RANDOM: Final = 36
"""And 16 digits that count, together the 52 of DynamoDB's: counting costs a tenth of drawing each anew."""

_ALLOW_ORIGIN: Final = b"access-control-allow-origin: *\r\n"
_EXPOSE: Final = b"access-control-expose-headers: x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,Date\r\n"
_PREFLIGHT_AGE: Final = b"access-control-max-age: 172800\r\n"

Headers = Mapping[bytes, bytes]
"""Of a request, by name in lower case; of several with one name the first."""


class Answers:
    """Makes the responses of one application."""

    def __init__(self, *, rng: random.Random, host: str, has_browsers: bool) -> None:
        """Draw from ``rng`` what tells the request ids of this application from any other's.

        Without ``has_browsers`` no script of another origin reads an answer.
        """
        self.has_browsers = has_browsers
        self._id_prefix = bytes(rng.choices(_ID_CHARACTERS, k=_ID_RANDOM))
        self._count = 0
        self._health = f"healthy: {host} ".encode()

    def answer(self, status: int, body: bytes | list[bytes], headers: Headers, content_type: bytes) -> Response:
        """Return the answer to a request with ``headers``, as it is."""
        return self._response(status, body, headers, _CONTENT_TYPES[content_type])

    def compressed(
        self, status: int, body: bytes | list[bytes], headers: Headers, content_type: bytes
    ) -> Response | Coroutine[Any, Any, Response]:
        """Return the answer to a request whose client takes gzip, compressed if it is worth it."""
        pieces = [body] if isinstance(body, bytes) else body
        if sum(map(len, pieces)) < GZIP_BYTES_MIN:
            return self.answer(status, body, headers, content_type)
        return self._gzipped(status, pieces, headers, content_type)

    async def _gzipped(self, status: int, pieces: list[bytes], headers: Headers, content_type: bytes) -> Response:
        lines = _CONTENT_TYPES[content_type] + b"content-encoding: gzip\r\n"
        return self._response(status, await gzipped(pieces), headers, lines)

    def health(self, headers: Headers) -> Response:
        """Return what load balancers want to hear."""
        return self._response(200, self._health, headers, b"content-type: text/plain\r\n")

    def unknown(self, headers: Headers) -> Response:
        """Return the answer to what is no request of DynamoDB's protocol."""
        return self._response(404, _UNKNOWN, headers, b"")

    def preflight(self, headers: Headers) -> Response:
        """Return what a browser asks before it sends a request from another origin: everything is allowed."""
        lines = _PREFLIGHT_AGE
        for asked, allowed in ((b"headers", b"headers"), (b"method", b"methods")):
            value = headers.get(b"access-control-request-" + asked)
            if value:
                lines += b"access-control-allow-%b: %b\r\n" % (allowed, value)
        return self._response(200, b"", headers, lines)

    def _response(self, status: int, body: bytes | list[bytes], headers: Headers, lines: bytes) -> Response:
        checksum = crc32(body, 0) if isinstance(body, bytes) else _checksum(body)
        self._count += 1
        if self.has_browsers and b"origin" in headers:
            lines += _ALLOW_ORIGIN + _EXPOSE
        made = b"x-amzn-requestid: %b%016d\r\nx-amz-crc32: %d\r\n%b" % (
            self._id_prefix,
            self._count,
            checksum,
            lines,
        )
        return Response(status, made, body)


def _checksum(pieces: Iterable[bytes]) -> int:
    checksum = 0
    for piece in pieces:
        checksum = crc32(piece, checksum)
    return checksum
