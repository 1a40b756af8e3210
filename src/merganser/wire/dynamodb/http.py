"""HTTP: from a request to an operation and back.

`X-Amz-Target` names the operation, the body is JSON 1.0. Answers are made in `http_answers`.
`x-merganser-consistency: QUORUM`, or `w=2,pw=1,r=2`, sets the consistency of one request.

What is wrong is found in DynamoDB's order: the method and the content type (404), JSON, the operation, the signature,
the types of the members. Only right requests skip ahead: their JSON is read once their signature is known to be right,
and a body of more than a few KB from somebody who is not let in is not read at all.

A request takes its place among those that are served before anything of it is looked at: refusing one costs a tenth
of serving it.

An error of ours that nobody expected is answered as DynamoDB answers its own, and reported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import orjson

from merganser.model.consistency import UNSAID, Levels, parse_levels
from merganser.model.errors import UnknownOutcomeError
from merganser.net.http import Request, Response
from merganser.net.http_compression import BodyTooLargeError, UnreadableBodyError, accepts_gzip, expanded
from merganser.query.update import TOO_LARGE
from merganser.wire.dynamodb.attributes import TooLargeError
from merganser.wire.dynamodb.errors import (
    INTERNAL,
    ApiError,
    SerializationError,
    ValidationError,
    fault_of,
)
from merganser.wire.dynamodb.http_answers import JSON, PLAIN_JSON, Answers, Headers
from merganser.wire.dynamodb.operations import Answer, DynamoDB
from merganser.wire.dynamodb.signature import Verifier, region_of
from merganser.wire.dynamodb.unserved import unknown_operation, unknown_stream_operation

TARGET_PREFIX: Final = b"DynamoDB_20120810."
STREAMS_TARGET_PREFIX: Final = b"DynamoDBStreams_20120810."

_BODY_BYTES_MAX: Final = 16 * 1024 * 1024  # DynamoDB's largest request, a BatchWriteItem
_ITEM_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""An item is 400 KB as DynamoDB measures it. Written as JSON that is 1.2 MB for text of which every character is
escaped, and 3.7 MB at the very worst, a list of nothing but empty strings."""
_BATCHES = frozenset((b"BatchWriteItem", b"BatchGetItem", b"TransactWriteItems", b"TransactGetItems"))
_TOO_LARGE: Final = {b"PutItem": TooLargeError().message, b"UpdateItem": TOO_LARGE}
_TELLING_ARNS: Final = frozenset(("CreateTable", "UpdateTable", "DescribeTable", "DeleteTable"))
_STRANGERS_BODY_BYTES_MAX: Final = 4 * 1024

Report = Callable[[Exception], None]
"""Told of every error that clients cannot put right."""


def body_bound(headers: list[tuple[bytes, bytes]]) -> int:
    """Return how many bytes of body a request may have: what the operation can need, before it is read.

    Parsing a body of 10 MB keeps everyone else waiting for 0.6 s.
    """
    for name, value in headers:
        if name == b"x-amz-target":
            return _bound_of(value)
    return _ITEM_BODY_BYTES_MAX


def too_large(headers: list[tuple[bytes, bytes]]) -> Response | None:
    """Return what DynamoDB says of an item that does not fit into 4 MB of JSON; None of anything else."""
    target = next((value for name, value in headers if name == b"x-amz-target"), b"")
    message = _TOO_LARGE.get(target.removeprefix(TARGET_PREFIX))
    if message is None:
        return None
    return Response(400, b"content-type: %b\r\n" % JSON, fault_of(ValidationError(message)).body())


class Places(Protocol):
    """Places of requests that are served."""

    def enter(self) -> Coroutine[Any, Any, None] | None:
        """Take one; returns what to await for it, if it has to be waited for; either raises OverloadedError."""

    def leave(self) -> None:
        """Give it back."""


class _Everywhere:
    """Places for all."""

    def enter(self) -> None:
        """Take one."""

    def leave(self) -> None:
        """Give it back."""


class DynamoDBApplication:
    """The application that `net.http` serves."""

    def __init__(
        self,
        dynamodb: DynamoDB,
        verifier: Verifier,
        *,
        rng: random.Random,
        report: Report,
        places: Places | None = None,
        host: str = "dynamodb.us-east-1.amazonaws.com",
        has_browsers: bool = True,
    ) -> None:
        """Serve ``dynamodb`` to clients that ``verifier`` lets in.

        Args:
            dynamodb: the operations.
            verifier: checks signatures.
            rng: draws what tells the request ids of this application from any other's.
            report: told of errors that are not the client's.
            places: where each request takes one; none: as many as come.
            host: what the health check says it is.
            has_browsers: let scripts of any origin send requests and read answers, as DynamoDB does; with signatures
                that anybody can make, every page that somebody opens beside this node could.
        """
        self._dynamodb = dynamodb
        self._targets = {TARGET_PREFIX + operation.encode(): operation for operation in dynamodb.operations}
        self._verifier = verifier
        self._answers = Answers(rng=rng, host=host, has_browsers=has_browsers)
        self._report = report
        self._places = places or _Everywhere()

    def let_in(self, verifier: Verifier, *, has_browsers: bool) -> None:
        """Go by another verifier from the next request on; arguments as when this was made."""
        self._verifier = verifier
        self._answers.has_browsers = has_browsers

    def __call__(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """Answer one request, at once if nothing has to be waited for."""
        headers = request.first_of_each()
        content_type = headers.get(b"content-type")
        if request.method != b"POST":
            return self._without_operation(request, headers)
        if content_type != JSON:
            content_type = _content_type(request, content_type)
            if content_type is None:
                return self._answers.unknown(headers)
        try:
            turn = self._places.enter()
        except Exception as error:  # noqa: BLE001 (the root of a request)
            return self._answer(*self._fault(error), headers, content_type)
        return (
            self._admitted(request, headers, content_type)
            if turn is None
            else self._later(turn, request, headers, content_type)
        )

    async def _later(
        self, turn: Coroutine[Any, Any, None], request: Request, headers: Headers, content_type: bytes
    ) -> Response:
        """Answer a request once there is a place for it."""
        try:
            await turn
        except Exception as error:  # noqa: BLE001 (the root of a request's task)
            response = self._answer(*self._fault(error), headers, content_type)
        else:
            response = self._admitted(request, headers, content_type)
        return response if isinstance(response, Response) else await response

    def _admitted(
        self, request: Request, headers: Headers, content_type: bytes
    ) -> Response | Coroutine[Any, Any, Response]:
        """Answer a request that has a place, which is given back."""
        status = 200
        try:
            body = self._serve(request, headers)
            if not isinstance(body, (bytes, list)):
                return self._served(body, headers, content_type)
        except Exception as error:  # noqa: BLE001 (the root of a request)
            status, body = self._fault(error)
        self._places.leave()
        return self._answer(status, body, headers, content_type)

    async def _served(self, coming: Coroutine[Any, Any, Answer], headers: Headers, content_type: bytes) -> Response:
        status = 200
        try:
            body = await coming
        except Exception as error:  # noqa: BLE001 (the root of a request's task)
            status, body = self._fault(error)
        finally:
            self._places.leave()
        response = self._answer(status, body, headers, content_type)
        return response if isinstance(response, Response) else await response

    def _fault(self, error: Exception) -> tuple[int, bytes]:
        """Return the status and body that tell of an error, which is reported if it is ours."""
        fault = fault_of(error)
        if fault.kind == INTERNAL and not isinstance(error, UnknownOutcomeError):
            self._report(error)
        return fault.status, fault.body()

    def _answer(
        self, status: int, body: Answer, headers: Headers, content_type: bytes
    ) -> Response | Coroutine[Any, Any, Response]:
        if b"accept-encoding" in headers and accepts_gzip(headers[b"accept-encoding"]):
            return self._answers.compressed(status, body, headers, content_type)
        return self._answers.answer(status, body, headers, content_type)

    def _without_operation(self, request: Request, headers: Headers) -> Response:
        if request.method in (b"GET", b"HEAD"):
            return self._answers.health(headers)
        if request.method == b"OPTIONS" and b"origin" in headers and self._answers.has_browsers:
            return self._answers.preflight(headers)
        return self._answers.unknown(headers)

    def _serve(self, request: Request, headers: Headers) -> Answer | Coroutine[Any, Any, Answer]:
        """Let a request in, and serve it; raises what is wrong before anything is waited for."""
        target = headers.get(b"x-amz-target", b"")
        try:
            operation = self._operation(target)
            self._verifier.verify(request, headers)
        except ApiError:
            _refuse_what_is_no_json(request, headers)
            raise
        body = request.body
        if b"content-encoding" in headers:
            body = _expanded(request, headers[b"content-encoding"], target)
        asked = headers.get(b"x-merganser-consistency")
        region = region_of(request, headers) if operation in _TELLING_ARNS else None
        return self._dynamodb.call(operation, body, UNSAID if asked is None else _levels(asked), region=region)

    def _operation(self, target: bytes) -> str:
        known = self._targets.get(target)
        if known is not None:
            return known
        if target.startswith(STREAMS_TARGET_PREFIX):
            raise unknown_stream_operation(target[len(STREAMS_TARGET_PREFIX) :].decode("latin-1"))
        raise unknown_operation(
            target.removeprefix(TARGET_PREFIX).decode("latin-1") if target.startswith(TARGET_PREFIX) else ""
        )


def _content_type(request: Request, given: bytes | None) -> bytes | None:
    """Return the content type of the answer; None if the request is none of DynamoDB's."""
    kind = (given or b"").partition(b";")[0].strip().lower()
    if kind == JSON:
        return JSON
    return PLAIN_JSON if kind == PLAIN_JSON or not request.body else None


def _refuse_what_is_no_json(request: Request, headers: Headers) -> None:
    """Refuse a body that is no JSON, which DynamoDB says before anything else of a request.

    Raises:
        SerializationError: it is none.
    """
    if request.body and len(request.body) <= _STRANGERS_BODY_BYTES_MAX and b"content-encoding" not in headers:
        try:
            orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise SerializationError from None


def _expanded(request: Request, encoding: bytes, target: bytes) -> bytes:
    try:
        return expanded(request, encoding, bytes_max=_bound_of(target))
    except (UnreadableBodyError, BodyTooLargeError) as error:
        raise SerializationError(str(error)) from None


def _bound_of(target: bytes) -> int:
    return _BODY_BYTES_MAX if target.removeprefix(TARGET_PREFIX) in _BATCHES else _ITEM_BODY_BYTES_MAX


def _levels(asked: bytes) -> Levels:
    text = asked.decode("latin-1")
    try:
        return parse_levels(text)
    except ValueError as error:
        raise ValidationError(f"x-merganser-consistency is {text!r}: {error}") from None
