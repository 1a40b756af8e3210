"""Tags of values: in what order they stand in an index, what tags a row has, and how the pages of replicas become one.

A *place* orders the rows that have tags of one name and type: the tag's value, then the row in the order of the ring::

    integers   i  8 bytes, big-endian, offset by 2**63      row's key, without its table
    bytes      b  00 written as 00 FF, closed by 00 01      row's key, without its table

The tags of a row are those of all its values: of siblings each counts.

A page of one replica is complete up to where it stopped, so pages together are complete up to where the first of them
stopped. A row that all replicas that were asked tell of, as one and the same row, is found. One that some of them lack,
hold differently, or hold damaged, is *doubtful*: it takes a read of the row to know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from merganser.core import causal_rows, contents, last_writes
from merganser.model.contents import INTEGER_MAX, Tag
from merganser.model.errors import CorruptionError
from merganser.model.ids import NodeId
from merganser.model.row import Cell, Row

_INTEGER = struct.Struct(">Q")
_OFFSET = 2**63
_IS_INTEGER, _IS_BYTES = b"i", b"b"
_END = b"\x00\x01"
_TABLE_BYTES: Final = 4


class TagPage(NamedTuple):
    """What one replica tells."""

    entries: Sequence[tuple[bytes, int]]
    """Places, ascending, and fingerprints of the rows there, 0 of what is damaged."""
    stopped_at: bytes | None
    """It tells of all before this place; None: of all there are."""


class MergedTags(NamedTuple):
    """What all of them tell."""

    found: list[tuple[bytes, bool]]
    """Places, ascending, and whether each is doubtful."""
    resume: bytes | None
    """Where it goes on; None: nothing is left."""


def tags_of(row: Row | None, now_s: int | None = None) -> set[Tag]:
    """Return the tags of a row's values, of those that have not expired at ``now_s`` if that is given.

    Raises:
        CorruptionError: a value is of a kind that is not known here.
    """
    found: set[Tag] = set()
    if row is not None:
        for cell in row.cells:
            is_over = now_s is not None and cell.expires_at_s is not None and cell.expires_at_s <= now_s
            if cell.value is not None and not is_over:
                found.update(contents.tags_of(_kind_of(cell, row), cell.value))
    return found


def place_of(value: int | bytes, row_key: bytes) -> bytes:
    """Return where a row with a tag of that value stands."""
    return _value_place(value) + row_key[_TABLE_BYTES:]


def value_at(place: bytes) -> int | bytes:
    """Return the value of the tag that a row stands at ``place`` for.

    Raises:
        CorruptionError: `place_of` never returned this.
    """
    if place[:1] == _IS_INTEGER:
        return int(_INTEGER.unpack_from(place, 1)[0]) - _OFFSET
    return place[1 : _closed_at(place)].replace(b"\x00\xff", b"\x00")


def row_at(place: bytes, table_prefix: bytes) -> bytes:
    """Return the key of the row that stands at ``place``; raises as `value_at`."""
    row_at = 1 + _INTEGER.size if place[:1] == _IS_INTEGER else _closed_at(place) + len(_END)
    return table_prefix + place[row_at:]


def places_between(low: int | bytes | None, high: int | bytes | None, *, is_integer: bool) -> tuple[bytes, bytes]:
    """Return the range of places of values from ``low`` to ``high``, both included; None: no bound."""
    kind = _IS_INTEGER if is_integer else _IS_BYTES
    start = kind if low is None else _value_place(low)
    if high is None or high == INTEGER_MAX:
        return start, bytes((kind[0] + 1,))
    if isinstance(high, int):
        return start, _value_place(high + 1)
    closed = _value_place(high)
    return start, closed[:-1] + bytes((closed[-1] + 1,))


def merged(pages: Mapping[NodeId, TagPage], asked: Callable[[bytes], Collection[NodeId]], most: int) -> MergedTags:
    """Return what ``pages`` say together, ``most`` places at most.

    Args:
        pages: by replica, all of one range.
        asked: who of them was asked for the row at a place.
        most: at least 1.
    """
    stops = [page.stopped_at for page in pages.values() if page.stopped_at is not None]
    reach = min(stops, default=None)
    told: dict[bytes, dict[NodeId, int]] = {}
    for node, page in pages.items():
        for place, fingerprint in page.entries:
            if reach is None or place < reach:
                told.setdefault(place, {})[node] = fingerprint
    places = sorted(told)
    found = [(place, _is_doubtful(told[place], asked(place))) for place in places]
    if len(found) > most:
        return MergedTags(found[:most], places[most])
    return MergedTags(found, reach)


def _is_doubtful(told: Mapping[NodeId, int], asked: Collection[NodeId]) -> bool:
    fingerprints = {told.get(node, 0) for node in asked}
    return len(fingerprints) > 1 or 0 in fingerprints


def _kind_of(cell: Cell, row: Row) -> bytes:
    if row.context:
        return causal_rows.path_of(cell)
    return contents.DESCRIBED if cell.name == last_writes.NAME else contents.PLAIN


def _value_place(value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _IS_INTEGER + _INTEGER.pack(value + _OFFSET)
    return _IS_BYTES + value.replace(b"\x00", b"\x00\xff") + _END


def _closed_at(place: bytes) -> int:
    at = place.find(_END, 1)
    if at < 0 or place[:1] != _IS_BYTES:
        raise CorruptionError(f"no place of a tag: {place[:64].hex()}")
    return at
