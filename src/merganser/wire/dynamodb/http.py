"""HTTP: from a request to an operation and back.

`X-Amz-Target` names the operation, the body is JSON 1.0. Answers carry the CRC-32 that SDKs check
and a request id. `x-merganser-consistency: QUORUM`, or `w=2,pw=1,r=2`, sets the consistency of one request.

A request takes its place among those that are served before anything of it is looked at: refusing one costs a tenth
of serving it.

An error of ours that nobody expected is answered as DynamoDB answers its own, and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import string
import zlib
from collections.abc import Callable
from typing import Final

from merganser.model.consistency import UNSAID, Levels, parse_levels
from merganser.model.errors import UnknownOutcomeError
from merganser.net.http import Request, Response
from merganser.wire.dynamodb.errors import INTERNAL, UNKNOWN_OPERATION, ApiError, ValidationError, fault_of
from merganser.wire.dynamodb.operations import DynamoDB
from merganser.wire.dynamodb.signature import Verifier

TARGET_PREFIX: Final = b"DynamoDB_20120810."
CONTENT_TYPES: Final = (b"application/x-amz-json-1.0", b"application/json")

_BODY_BYTES_MAX: Final = 16 * 1024 * 1024  # DynamoDB's largest request, a BatchWriteItem
_ITEM_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""An item is 400 KB as DynamoDB measures it. Written as JSON that is 1.2 MB for text of which every character is
escaped, and 3.7 MB at the very worst, a list of nothing but empty strings."""
_BATCHES = frozenset((b"BatchWriteItem", b"BatchGetItem", b"TransactWriteItems", b"TransactGetItems"))

_JSON = b"application/x-amz-json-1.0"
_ID_CHARACTERS = (string.ascii_uppercase + string.digits).encode()
_ID_RANDOM = 36
_ID_COUNTED = 16  # together the 52 of DynamoDB's; counting costs a tenth of drawing each anew

Report = Callable[[Exception], None]
"""Told of every error that clients cannot put right."""


def body_bound(headers: list[tuple[bytes, bytes]]) -> int:
    """Return how many bytes of body a request may have: what the operation can need, before it is read.

    Parsing a body of 10 MB keeps everyone else waiting for 0.6 s.
    """
    for name, value in headers:
        if name == b"x-amz-target":
            is_batch = value.removeprefix(TARGET_PREFIX) in _BATCHES
            return _BODY_BYTES_MAX if is_batch else _ITEM_BODY_BYTES_MAX
    return _ITEM_BODY_BYTES_MAX


class DynamoDBApplication:
    """The application that `net.http` serves."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        verifier: Verifier,
        *,
        rng: random.Random,
        report: Report,
        places: contextlib.AbstractAsyncContextManager[None] | None = None,
        host: str = "dynamodb.us-east-1.amazonaws.com",
    ) -> None:
        """Serve ``dynamodb`` to clients that ``verifier`` lets in.

        Args:
            dynamodb: the operations.
            verifier: checks signatures.
            rng: draws what tells the request ids of this application from any other's.
            report: told of errors that are not the client's.
            places: entered for each request, again and again; raises OverloadedError when there is no place.
            host: what the health check says it is.
        """
        self._dynamodb = dynamodb
        self._verifier = verifier
        self._id_prefix = bytes(rng.choices(_ID_CHARACTERS, k=_ID_RANDOM))
        self._answers = 0
        self._report = report
        self._places = places or contextlib.nullcontext()
        self._health = f"healthy: {host} ".encode()

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if request.method in (b"GET", b"HEAD"):
            return self._respond(200, self._health, b"text/plain")
        try:
            async with self._places:
                body = await self._serve(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (the root of a request's task)
            fault = fault_of(error)
            if fault.kind == INTERNAL and not isinstance(error, UnknownOutcomeError):
                self._report(error)
            return self._respond(fault.status, fault.body(), _JSON)
        return self._respond(200, body, _JSON)

    async def _serve(self, request: Request) -> bytes | list[bytes]:
        operation = self._operation(request)
        self._verifier.verify(request)
        return await self._dynamodb.call(operation, request.body, _levels(request))

    def _operation(self, request: Request) -> str:
        content_type = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        target = request.header(b"x-amz-target") or b""
        if request.method != b"POST" or content_type not in CONTENT_TYPES or not target.startswith(TARGET_PREFIX):
            raise ApiError(UNKNOWN_OPERATION)
        operation = target[len(TARGET_PREFIX) :].decode("latin-1")
        if not self._dynamodb.serves(operation):
            raise ApiError(UNKNOWN_OPERATION)
        return operation

    def _respond(self, status: int, body: bytes | list[bytes], content_type: bytes) -> Response:
        checksum = 0
        for piece in [body] if isinstance(body, bytes) else body:
            checksum = zlib.crc32(piece, checksum)
        headers = b"x-amzn-requestid: %b\r\nx-amz-crc32: %d\r\ncontent-type: %b\r\n" % (
            self._request_id(),
            checksum,
            content_type,
        )
        return Response(status, headers, body)

    def _request_id(self) -> bytes:
        self._answers += 1
        return b"%b%0*d" % (self._id_prefix, _ID_COUNTED, self._answers)


def _levels(request: Request) -> Levels:
    asked = request.header(b"x-merganser-consistency")
    if asked is None:
        return UNSAID
    text = asked.decode("latin-1")
    try:
        return parse_levels(text)
    except ValueError as error:
        raise ValidationError(f"x-merganser-consistency is {text!r}: {error}") from None
