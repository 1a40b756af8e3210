"""What has been seen of a key, as a set of dots, and the tokens in which clients carry that about.

A *dot* names one event, a put or a delete: when it was minted, by which node, in which epoch of that node's dealings
with the key. Dots are hybrid logical times, which no node mints twice in all its lives. A *context* is a set of
dots, written as spans of time for each actor (node, epoch)::

    actor A   [--------------------]           all of A's dots up to there: the usual case, a version vector entry
    actor B   [-------]  [----]                one of B's dots was not seen, the others were

Each dot comes with a span that reaches back to right after the actor's last dot, and so holds no other. Spans that
touch become one: whoever has seen all of an actor's dots has one span for it, however many they are. So a context is
exact, it claims nothing but what was seen, and a key that R nodes mint for has R spans.

To know its last dot for a key a node has to remember it, and it does so in memory alone (`Actors`). After a restart, or
when it has forgotten the key, it begins a new epoch, that is, another actor. What it holds of the key on its disk is no
evidence: it may have been lost or put back, and a span that reaches back over a forgotten dot would claim to have
seen it, and bury a value that was acknowledged.

Invariants: contexts are ascending, their spans neither overlap nor touch; two contexts of the same dots are equal;
`join` is the union, so commutative, associative and idempotent.

Source: Almeida, Preguiça, Gonçalves, Fonte 2014, "Scalable and Accurate Causality Tracking for Eventually
Consistent Stores" (dotted version vectors; sets of them as siblings); Preguiça 2012, "Brief Announcement: Efficient
Causality Tracking in Distributed Storage Systems With Dotted Version Vectors". Contexts with gaps: Almeida, Shoker,
Baquero 2018, "Delta State Replicated Data Types", §7.2. Epochs: Riak's "key epochs" (2.1).
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable
from itertools import pairwise

from merganser.model.errors import RequestError
from merganser.model.row import Context, Dot, Span

NOTHING_SEEN: Context = ()
CONTEXT_FORMAT = 1
CONTEXT_BYTES_MAX = 1024 * 1024
"""Of a token: 28,000 spans, where a key has about as many as it has replicas, and one more for each life of each of
these until it rests. At 64 KiB, as it was, a key that some 600 rolling restarts had found busy could not be written,
resolved or deleted any more. Reading one of 1 MiB takes the loop 0.1 s, and of 8 MiB a whole second."""
KEYS_MAX = 65_536
"""Keys that a node remembers its last dot for: 15 MiB. A key that it forgets is a key that rests, and may be purged."""
_HEAD = struct.Struct(">BI")
_SPAN = struct.Struct(">Iqqq")
_WAY_OUT = "read the key again and take the context of that answer"


class Actors:
    """One node as the actor of each key that it mints dots for, in one life of its process."""

    __slots__ = ("_keys_max", "_last", "_number")

    def __init__(self, number: int, *, keys_max: int = KEYS_MAX) -> None:
        """Mint for node ``number``, with no dot behind it; remember the ``keys_max`` keys minted for last."""
        self._number = number
        self._keys_max = keys_max
        self._last: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def mint(self, key: bytes, micros: int) -> Span:
        """Return a span that ends with a new dot for ``key`` and holds no other.

        Args:
            key: of the event.
            micros: a timestamp that this node has minted for this event alone.
        """
        epoch, last = self._last.get(key, (micros, micros - 1))
        if last >= micros:  # this event has waited, and a later one of the key was faster
            return Span(self._number, micros, micros, micros)
        self._last[key] = epoch, micros
        self._last.move_to_end(key)
        if len(self._last) > self._keys_max:
            self._last.popitem(last=False)
        return Span(self._number, epoch, last + 1, micros)


def dot_of(span: Span) -> Dot:
    """Return the dot that ``span`` was minted for."""
    return Dot(span.high, span.number, span.epoch)


def only(dot: Dot) -> Context:
    """Return the context of who has seen ``dot`` and nothing else."""
    return (Span(dot.number, dot.epoch, dot.micros, dot.micros),)


def has_seen(context: Context, dot: Dot) -> bool:
    """Tell whether ``dot`` is in ``context``."""
    return any(
        span.low <= dot.micros <= span.high and span.number == dot.number and span.epoch == dot.epoch
        for span in context
    )


def join(a: Context, b: Context) -> Context:
    """Return what both together have seen; ``a`` itself if that is all."""
    if a == b or not b:
        return a
    if not a:
        return b
    joined = _normal(sorted((*a, *b)))
    return a if joined == a else joined


def covers(a: Context, b: Context) -> bool:
    """Tell whether ``a`` has seen all that ``b`` has."""
    return join(a, b) is a


def without(context: Context, dots: Iterable[Dot]) -> Context:
    """Return ``context`` as of one who has not seen ``dots``."""
    for dot in dots:
        context = tuple(part for span in context for part in _split(span, dot))
    return context


def newest_us(context: Context) -> int:
    """Return when the last event that was seen took place; the context is not empty."""
    return max(span.high for span in context)


def oldest_us(context: Context) -> int:
    """Return when the first event took place that may have been seen; the context is not empty."""
    return min(span.low for span in context)


def actors(context: Context) -> set[tuple[int, int]]:
    """Return whose dots were seen."""
    return {(span.number, span.epoch) for span in context}


def encode(key: bytes, context: Context) -> bytes:
    """Return ``context`` as an opaque token for the client that read or wrote ``key``: ASCII, empty for no context."""
    if not context:
        return b""
    body = b"".join([_SPAN.pack(*span) for span in context])
    return base64.urlsafe_b64encode(_HEAD.pack(CONTEXT_FORMAT, _checksum(key, body)) + body)


def decode(key: bytes, token: bytes) -> Context:
    """Return the context that a client sends back with ``key``; an empty token has seen nothing.

    Raises:
        RequestError: no token that `encode` made for that key.
    """
    if not token:
        return NOTHING_SEEN
    if len(token) > CONTEXT_BYTES_MAX:
        raise RequestError(f"a context of {len(token)} bytes, of {CONTEXT_BYTES_MAX} at most: {_WAY_OUT}")
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"the context is no token of this database (not base64): {_WAY_OUT}") from None
    if len(raw) <= _HEAD.size:
        raise RequestError(f"the context was cut off after {len(raw)} bytes: {_WAY_OUT}")
    version, checksum = _HEAD.unpack_from(raw)
    if version != CONTEXT_FORMAT:
        raise RequestError(f"the context has format {version}, this node knows {CONTEXT_FORMAT}: {_WAY_OUT}")
    body = raw[_HEAD.size :]
    if checksum != _checksum(key, body):
        raise RequestError(f"the context belongs to another key, or was changed on its way: {_WAY_OUT}")
    if len(body) % _SPAN.size:
        raise RequestError(f"the context was cut off after {len(raw)} bytes: {_WAY_OUT}")
    context = tuple(Span(*fields) for fields in _SPAN.iter_unpack(body))
    flaw = flaw_of(context)
    if flaw:
        raise RequestError(f"the context {flaw}: {_WAY_OUT}")
    return context


def flaw_of(context: Context) -> str:
    """Return what makes ``context`` none, in words; empty if it is one."""
    for span in context:
        if not 0 <= span.epoch <= span.low <= span.high:
            return f"has the span {span.low} to {span.high} of an actor that began at {span.epoch}"
    for before, span in pairwise(context):
        if span <= before or (span[:2] == before[:2] and span.low <= before.high + 1):
            return "names spans twice, or not in order"
    return ""


def _normal(spans: list[Span]) -> Context:
    """Return sorted spans with those that overlap or touch as one."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is None or last[:2] != span[:2] or span.low > last.high + 1:
            found.append(span)
        elif span.high > last.high:
            found[-1] = Span(last.number, last.epoch, last.low, span.high)
    return tuple(found)


def _split(span: Span, dot: Dot) -> Collection[Span]:
    if span[:2] != (dot.number, dot.epoch) or not span.low <= dot.micros <= span.high:
        return (span,)
    parts = []
    if span.low < dot.micros:
        parts.append(Span(span.number, span.epoch, span.low, dot.micros - 1))
    if dot.micros < span.high:
        parts.append(Span(span.number, span.epoch, dot.micros + 1, span.high))
    return parts


def _checksum(key: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key, CONTEXT_FORMAT))
