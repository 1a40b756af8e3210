"""What has been seen of a key, as a set of dots, and the tokens in which clients carry that about.

A *dot* names one event, a put or a delete: when it was minted, by which node, in which epoch of that node's dealings
with the key. Dots are hybrid logical times, which no node mints twice in all its lives. A *context* is a set of
dots, written as spans of time for each actor (node, epoch)::

    actor A   [--------------------]           all of A's dots up to there: the usual case, a version vector entry
    actor B   [-------]   .     [--]           what only some of B's dots were seen of; a single dot is a span too

An actor mints its dots for a key in order, knowing each one before it mints the next. So it may say "all up to this
one" with every dot, and a key that R nodes write to has R spans, however often they write.

That claim is what makes the *epoch* necessary: a node that does not know its own earlier dots, because its disk was
lost, or the key was handed to it anew, or it was restarted before they were durable, would claim to have seen what it
has forgotten, and bury values that were acknowledged. `mint` goes on under an actor only where that is proven: it
began no earlier than what the node vouches for, without a gap, and nobody knows more of it. Otherwise it begins a
new one.

Invariants: contexts are ascending, their spans neither overlap nor touch; two contexts of the same dots are equal;
`join` is the union, so commutative, associative and idempotent.

Source: Almeida, Preguiça, Gonçalves, Fonte 2014, "Scalable and Accurate Causality Tracking for Eventually
Consistent Stores" (dotted version vectors; sets of them as siblings); Preguiça 2012, "Brief Announcement: Efficient
Causality Tracking in Distributed Storage Systems With Dotted Version Vectors". Epochs: Riak's "key epochs" (2.1).
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Collection, Iterable

from merganser.model.errors import RequestError
from merganser.model.row import Context, Dot, Span

NOTHING_SEEN: Context = ()
CONTEXT_FORMAT = 1
CONTEXT_BYTES_MAX = 64 * 1024
"""Of a token: 1,750 actors with their lives, where a key has as many as it has replicas."""
_HEAD = struct.Struct(">BI")
_SPAN = struct.Struct(">Iqqq")
_WAY_OUT = "read the key again and take the context of that answer"


def mint(context: Context, *, micros: int, number: int, since_us: int, seen: Context = NOTHING_SEEN) -> Dot:
    """Return the dot of an event that node ``number`` brings about on a key of whose past it knows ``context``.

    Args:
        context: everything that this node holds of the key.
        micros: a timestamp minted for this event alone, later than all of the context.
        number: of the node.
        since_us: actors that began earlier are not continued: this node may have forgotten some of their dots.
        seen: what the client has seen; it may know more of this node's past than the node itself.
    """
    mine = [span for span in context if span.number == number and span.epoch >= since_us]
    if mine:
        newest = max(mine, key=lambda span: span.epoch)
        has_gaps = newest.low != newest.epoch or sum(span.epoch == newest.epoch for span in mine) > 1
        is_known_better = any(
            span.number == number and span.epoch == newest.epoch and span.high > newest.high for span in seen
        )
        if not has_gaps and not is_known_better:
            return Dot(micros, number, newest.epoch)
    return Dot(micros, number, micros)


def with_dot(context: Context, dot: Dot) -> Context:
    """Return ``context`` after its owner minted ``dot``: with that, and all between the actor's last one and it."""
    before = [span for span in context if span[:2] == (dot.number, dot.epoch)]
    assert not before or before[-1].high < dot.micros, "an actor's dots ascend"
    low = before[-1].low if before else dot.micros
    return join(context, (Span(dot.number, dot.epoch, low, dot.micros),))


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
    if context != _normal(sorted(context)):
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
