"""What a client is told whose request cannot be decoded: which field it is, and what was expected.

The frame says what is to be answered as long as it is msgpack and begins as a `frame_bodies.Call` does. Whoever wrote
the client, in whatever language, then learns what is wrong, and loses none of what else is under way on the connection.
"""

from __future__ import annotations

import re
from typing import Any, Final, get_args

import msgspec

from merganser.model.messages import Request
from merganser.net.frame_bodies import Call, Unreadable

_CALL_TAG: Final = Call.__struct_config__.tag
_KINDS: Final[dict[object, type[msgspec.Struct]]] = {kind.__struct_config__.tag: kind for kind in get_args(Request)}
_PLACE: Final = re.compile(r"^(?P<expected>.*) - at `\$\[(?P<index>\d+)\](?P<below>.*)`$", re.DOTALL)
_UNDECODABLE: Final = msgspec.MsgspecError, ValueError, RecursionError
"""ValueError: text that is not UTF-8."""


def unreadable(payload: bytes | memoryview) -> Unreadable | None:
    """Return what to take a payload for that is no frame; None if it is no call either."""
    try:
        parts = msgspec.msgpack.decode(payload, type=list[msgspec.Raw])
        if len(parts) < 2 or msgspec.msgpack.decode(parts[0]) != _CALL_TAG:
            return None
        return Unreadable(msgspec.msgpack.decode(parts[1], type=int), _wrong_in(parts[2:]))
    except _UNDECODABLE:
        return None


def _wrong_in(parts: list[msgspec.Raw]) -> str:
    """Return what is wrong with what follows the id of a call."""
    if len(parts) < 2:
        return "a call is [3, id, timeout_ms, request], and this one ends before its request"
    problem = _problem(parts[0], int)
    if problem is not None:
        return f"timeout_ms of the call: {problem}"
    try:
        tag = msgspec.msgpack.decode(msgspec.msgpack.decode(parts[1], type=list[msgspec.Raw])[0])
    except (*_UNDECODABLE, IndexError):
        return "a request is an array that begins with the number of its kind"
    kind = _KINDS.get(tag) if isinstance(tag, int) else None
    if kind is None:
        return f"{tag!r:.80} is the number of no kind of request that this release knows"
    return _placed(kind, _problem(parts[1], kind) or "it cannot be decoded")


def _problem(part: msgspec.Raw, kind: Any) -> str | None:
    try:
        msgspec.msgpack.decode(part, type=kind)
    except _UNDECODABLE as error:
        return str(error)
    return None


def _placed(kind: type[msgspec.Struct], problem: str) -> str:
    """Return ``problem`` with the field of ``kind`` in the place of its number."""
    place = _PLACE.match(problem)
    index = int(place["index"]) - 1 if place is not None else -1  # the number of the kind comes first
    if place is None or not 0 <= index < len(kind.__struct_fields__):
        return f"{kind.__name__}: {problem}; its fields are {', '.join(kind.__struct_fields__)}"
    return f"{kind.__name__}.{kind.__struct_fields__[index]}{place['below']}: {place['expected']}"
