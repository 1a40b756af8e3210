"""StreamSpecification: whether a table has a stream of its changes, and what of an item its records tell.

The setting is kept and described, with an ARN that is another one each time a stream is switched on. There are no
records yet: the operations of DynamoDB Streams are answered with an UnknownOperationException.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError

_INVALID: Final = "One or more parameter values were invalid: "


class StreamSettings(msgspec.Struct, frozen=True):
    """The stream that a table has, or had last."""

    view: str
    """StreamViewType."""
    since_ms: int
    """When it was switched on, milliseconds since 1970: it is named after that."""
    is_enabled: bool = True

    def described(self, table_arn: str) -> dict[str, Any]:
        """Return the members of a TableDescription that tell of it; its name is told for as long as the table lives."""
        began = datetime.datetime.fromtimestamp(self.since_ms / 1000, datetime.UTC).replace(tzinfo=None)
        label = began.isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"LatestStreamLabel": label, "LatestStreamArn": f"{table_arn}/stream/{label}"}
        if self.is_enabled:
            told["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": self.view}
        return told


def find_stream_violations(violations: Violations, request: Mapping[str, Any]) -> None:
    """Add what is wrong with a StreamSpecification by the API's model."""
    stream = request.get("StreamSpecification")
    if stream is not None:
        violations.required(stream, "StreamEnabled", "streamSpecification.")
        violations.enum(stream, "StreamViewType", "streamSpecification.")


def check_stream(request: Mapping[str, Any]) -> None:
    """Check a StreamSpecification, whatever the table is.

    Raises:
        ValidationError: it makes no sense.
    """
    stream = request.get("StreamSpecification")
    if stream is None:
        return
    is_viewed = stream.get("StreamViewType") is not None
    if stream["StreamEnabled"] and not is_viewed:
        raise ValidationError(f"{_INVALID}StreamViewType is required when StreamEnabled is true")
    if is_viewed and not stream["StreamEnabled"]:
        raise ValidationError(f"{_INVALID}StreamViewType can only be specified when StreamEnabled is true")


def stream_of(
    request: Mapping[str, Any], before: StreamSettings | None, *, table: str, now_ms: int
) -> StreamSettings | None:
    """Return the stream that a checked request asks for, ``before`` if it does not say.

    Raises:
        ValidationError: ``table`` has a stream already, or none that could be switched off.
    """
    asked = request.get("StreamSpecification")
    if asked is None:
        return before
    has_stream = before is not None and before.is_enabled
    if not asked["StreamEnabled"]:
        if before is None or not has_stream:
            raise ValidationError(f"Table does not have an enabled stream to disable: TableName: {table}")
        return msgspec.structs.replace(before, is_enabled=False)
    if has_stream:
        raise ValidationError(f"Table already has an enabled stream: TableName: {table}")
    since_ms = now_ms if before is None else max(now_ms, before.since_ms + 1)  # or two streams had one name
    return StreamSettings(asked["StreamViewType"], since_ms)


def first_stream_of(request: Mapping[str, Any], *, now_ms: int) -> StreamSettings | None:
    """Return the stream that a checked CreateTable asks for."""
    asked = request.get("StreamSpecification")
    return StreamSettings(asked["StreamViewType"], now_ms) if asked and asked["StreamEnabled"] else None
