"""Scan: the items of a table or index in the order of their keys, a page at a time; and the pages Query shares.

A page ends after ``Limit`` items, with the item that takes it to 1 MB, or with the range. In the first
two cases it carries a LastEvaluatedKey, also when that item happens to be the last one: DynamoDB does
not look ahead.

A segment of a parallel scan is an even share of the tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from merganser.core.token import TOKEN_MIN
from merganser.model.cluster import Table
from merganser.model.ids import Token
from merganser.storage.keys import table_range, token_range
from merganser.wire.dynamodb import capacity
from merganser.wire.dynamodb.answers import answer_of
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.capacity import Consumption, read_units
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import DETECTED, ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders, placeholders_of
from merganser.wire.dynamodb.items import TURN_BYTES, attributes_of, json_of, size_of
from merganser.wire.dynamodb.legacy import check_constraints, names_in
from merganser.wire.dynamodb.looking import Looking, looking_at
from merganser.wire.dynamodb.session import PageRequest, Session, Span
from merganser.wire.dynamodb.sources import STARTING_KEY, Source, source_of
from merganser.wire.dynamodb.views import WHOLE, View, legacy_view_of, view_of

PAGE_BYTES_MAX: Final = 1024 * 1024
SEGMENTS_MAX: Final = 1_000_000
FETCH_ROWS_MAX: Final = 200  # of one read of a range: some 3 ms in which the loop serves nobody else
FETCH_GROWTH: Final = 4  # a read that met nothing but tombstones is followed by a longer one
TOKENS: Final = 2**64

_TOLD_ALONE: Final = (
    "contains duplicates",
    "number set",
    "numeric value",
    "significant digits",
    "number with magnitude",
)
"""What DynamoDB says of a starting key without saying that it is one. Source: dynalite 4.0, compared with DynamoDB."""

_LEGACY = ("AttributesToGet", "ScanFilter", "ConditionalOperator")
_EXPRESSIONS = ("ProjectionExpression", "FilterExpression")
_CHOICES = {
    "COUNT": "only the Count",
    "ALL_ATTRIBUTES": "ALL_ATTRIBUTES",
    "ALL_PROJECTED_ATTRIBUTES": "ALL_PROJECTED_ATTRIBUTES",
}


class Page(NamedTuple):
    """Items given out together."""

    shown: list[bytes]
    """JSON of what the reader sees of them."""
    scanned: int
    """How many there are with those that the filter left out."""
    size: int
    """Of all those as they are in what was read, in bytes; not of what was looked up in the table besides."""
    fetched_units: float = 0.0
    """Of the items that were looked up in the table for what a local index does not show."""
    last: bytes | None = None
    """In stored form, the one after which the page ended; None if it ended with the range."""


async def scan(session: Session, request: dict[str, Any]) -> list[bytes]:
    """Return a page of a table, or of a segment of it."""
    view = _check(request)
    source = source_of(await session.table(request["TableName"]), request, now_ms=session.now_ms)
    looking = looking_at(source, request, view)
    view.check_keys(source.table)
    span = segment_of(source.read_from, request)
    start_key = request.get("ExclusiveStartKey")
    if start_key is not None:
        key = source.at(start_key)
        if not span.start <= key < span.end:
            raise ValidationError("Exclusive start key must lie within the segment")
        span = span.beyond(key)
    page = await read_page(session, source, span, request, looking)
    return answer(page, source, request)


async def read_page(session: Session, source: Source, span: Span, request: Mapping[str, Any], looking: Looking) -> Page:
    """Return the next page of a span, by the request's Limit and ConsistentRead."""
    limit = int(request["Limit"]) if request.get("Limit") is not None else None
    is_consistent = bool(request.get("ConsistentRead"))
    filling = _Filling(looking, limit, is_consistent=is_consistent)
    rows_max = FETCH_ROWS_MAX if limit is None else min(FETCH_ROWS_MAX, limit)
    while span.start < span.end:
        wanted = PageRequest(span, rows_max, filling.room, is_consistent, source.number)
        fetched = await (session.entries if source.is_global else session.page)(source.read_from, wanted)
        last = filling.take_as_stored(fetched.items) if looking.is_as_stored else await filling.take(fetched.items)
        if last is not None:
            return filling.page(last)
        if fetched.resume is None:
            break
        span = span._replace(end=fetched.resume) if span.reverse else span._replace(start=fetched.resume)
        if not fetched.items:
            rows_max = min(FETCH_ROWS_MAX, rows_max * FETCH_GROWTH)
    return filling.page(None)


class _Filling:
    """A page that is being filled."""

    __slots__ = (
        "_fetched_units",
        "_is_consistent",
        "_limit",
        "_looking",
        "_scanned",
        "_shown",
        "_size",
        "_turn_began_at",
        "room",
    )

    def __init__(self, looking: Looking, limit: int | None, *, is_consistent: bool) -> None:
        self._looking = looking
        self._limit = limit
        self._is_consistent = is_consistent
        self._shown: list[bytes] = []
        self._scanned = self._size = 0
        self._fetched_units = 0.0
        self.room = self._turn_began_at = PAGE_BYTES_MAX
        """Bytes that are left."""

    def page(self, last: bytes | None) -> Page:
        """Return what is there, which ended with ``last``."""
        return Page(self._shown, self._scanned, self._size, self._fetched_units, last)

    def take_as_stored(self, items: Sequence[bytes]) -> bytes | None:
        """Take items in, of which nobody wants to know more than they are; returns what `take` does."""
        room, left, ended_with = self.room, self._limit, None
        scanned = self._scanned
        for item in items:
            room -= size_of(item)
            scanned += 1
            if room <= 0 or scanned == left:
                ended_with = item
                break
        taken = items[: scanned - self._scanned]
        self._shown += map(json_of, taken)
        self._size += self.room - room
        self.room, self._scanned = room, scanned
        return ended_with

    async def take(self, items: Sequence[bytes]) -> bytes | None:
        """Take items in while there is room; returns the one that the page ends with, None if there is room left."""
        looking, view = self._looking, self._looking.view
        for whole in items:
            item = looking.entry_of(whole)
            seen = view.of(whole if looking.fetches else item)
            if seen is not None:
                self._shown.append(seen)
            self._scanned += 1
            self._size += size_of(item)
            self.room -= size_of(whole if looking.fetches else item)
            if looking.fetches:
                self._fetched_units += read_units(size_of(whole), is_consistent=self._is_consistent)
            if self._scanned == self._limit or self.room <= 0:
                return item
            if (view.filter is not None or looking.decodes) and self._turn_began_at - self.room > TURN_BYTES:
                self._turn_began_at = self.room
                await asyncio.sleep(0)
        return None


def answer(page: Page, source: Source, request: Mapping[str, Any]) -> list[bytes]:
    """Return the body of a Scan or Query."""
    counts = (b'"Count":%d,"ScannedCount":%d' % (len(page.shown), page.scanned),)
    items = () if request.get("Select") == "COUNT" else (b'"Items":[', b",".join(page.shown), b"]")
    last: Sequence[bytes] = ()
    if page.last is not None:
        last = (b'"LastEvaluatedKey":', orjson.dumps(source.position_of(attributes_of(page.last))))
    return answer_of(counts, items, last, capacity.told(request, _consumption(page, source, request)))


def _consumption(page: Page, source: Source, request: Mapping[str, Any]) -> Consumption:
    units = read_units(page.size, is_consistent=bool(request.get("ConsistentRead")))
    if source.index is None:
        return Consumption(source.table.name, units)
    consumption = Consumption(source.table.name, page.fetched_units)
    indexes = consumption.global_indexes if source.is_global else consumption.local_indexes
    indexes[source.index.name] = units
    return consumption


def check_listed(violations: Violations, request: Mapping[str, Any]) -> None:
    """Collect what breaks the constraints that Scan and Query share."""
    violations.enums(request, "ReturnConsumedCapacity", "Select", "ConditionalOperator")
    check_constraints(violations, request)
    violations.table_name(request)
    if request.get("IndexName") is not None:
        violations.name(request["IndexName"], "indexName")
    violations.between(request, "Limit", least=1)


def check_start_and_select(request: Mapping[str, Any]) -> None:
    """Check ExclusiveStartKey (and bring it into normal form) and Select, without knowing the table.

    Raises:
        ValidationError: in DynamoDB's words.
    """
    start_key = request.get("ExclusiveStartKey")
    if start_key is not None:
        try:
            normalise(start_key)
        except ValidationError as error:
            is_told = any(words in error.message for words in _TOLD_ALONE)
            raise ValidationError(error.message if is_told else STARTING_KEY + error.message) from None
    select, index = request.get("Select"), request.get("IndexName")
    has_projection = request.get("AttributesToGet") is not None or request.get("ProjectionExpression") is not None
    if select == "SPECIFIC_ATTRIBUTES" and not has_projection:
        raise ValidationError(
            f"{DETECTED}Must specify the AttributesToGet or ProjectionExpression when choosing to get "
            "SPECIFIC_ATTRIBUTES"
        )
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise ValidationError(f"{DETECTED}ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
    if select in _CHOICES and has_projection:
        name = "ProjectionExpression" if request.get("AttributesToGet") is None else "AttributesToGet"
        raise ValidationError(f"{DETECTED}Cannot specify the {name} when choosing to get {_CHOICES[select]}")


def _check(request: Mapping[str, Any]) -> View:
    violations = Violations()
    check_listed(violations, request)
    violations.between(request, "Segment", least=0, most=SEGMENTS_MAX - 1)
    violations.between(request, "TotalSegments", least=1, most=SEGMENTS_MAX)
    violations.settle()
    check_parameters(request, expressions=_EXPRESSIONS, legacy=_LEGACY, with_values=("FilterExpression",))
    names_in(request)  # which a Scan looks at before its filter, and a Query after
    legacy = legacy_view_of(request, "ScanFilter")
    check_start_and_select(request)
    _check_segment(request)
    check_placeholders(request)
    placeholders = placeholders_of(request)
    view = view_of(request, placeholders)
    placeholders.check_all_used()
    return view if legacy is WHOLE else legacy


def _check_segment(request: Mapping[str, Any]) -> None:
    segment, total = request.get("Segment"), request.get("TotalSegments")
    if segment is not None and total is None:
        raise ValidationError(
            "The TotalSegments parameter is required but was not present in the request "
            "when Segment parameter is present"
        )
    if total is not None and segment is None:
        raise ValidationError(
            "The Segment parameter is required but was not present in the request "
            "when parameter TotalSegments is present"
        )
    if segment is not None and total is not None and segment >= total:
        raise ValidationError("The Segment parameter is zero-based and must be less than parameter TotalSegments")


def segment_of(table: Table, request: Mapping[str, Any]) -> Span:
    """Return the rows that a Scan goes through: an even share of the tokens, or all."""
    if request.get("TotalSegments") is None:
        return Span(*table_range(table.id))
    number, total = int(request["Segment"]), int(request["TotalSegments"])
    first = TOKEN_MIN + number * TOKENS // total
    last = TOKEN_MIN + (number + 1) * TOKENS // total - 1
    return Span(*token_range(table.id, Token(first), Token(last)))
