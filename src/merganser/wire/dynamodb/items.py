"""How an item is stored: its size and its JSON.

::

    size  4 bytes  big-endian, as DynamoDB counts it
    JSON           of the attribute map, as it goes to clients

GetItem hands the JSON to the socket as it is, and a page is filled to its budget without decoding anything. In a
leader-based table this is the value of a register. In a leaderless one it is the only cell, named b"", of a row:
PutItem writes the cell, DeleteItem buries the row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from merganser.core import indexing
from merganser.core.rows import live_value
from merganser.model.errors import CorruptionError
from merganser.model.row import CellWrite, Mutation, Row
from merganser.query.update import TOO_LARGE
from merganser.storage.values import decode_row, sole_value
from merganser.wire.dynamodb.attributes import ITEM_BYTES_MAX, AttributeMap, TooLargeError, normalise
from merganser.wire.dynamodb.errors import ValidationError

CELL: Final = b""
TURN_BYTES: Final = 16 * 1024
"""As much of a request, or of what it finds, is looked into before others get a turn: a millisecond or two."""
_SIZE_BYTES: Final = 4

_DELETION: Final = Mutation(deletes_row=True)


def remeasured(item: AttributeMap, before: AttributeMap, size: int, names: Iterable[str]) -> int:
    """Bring an updated item into normal form, in place, and return its size.

    Args:
        item: as it is to be stored.
        before: as it was, in normal form; {} if it was not there.
        size: of the item before.
        names: different ones, of all attributes that are not as they were; only these are looked into.

    Raises:
        ValidationError: not what DynamoDB stores, or too large.
    """
    names = tuple(names)
    try:
        if 2 * len(names) >= len(item):  # one look at everything is as good as two at what changed
            return normalise(item)
        size -= normalise({name: before[name] for name in names if name in before})
        size += normalise({name: item[name] for name in names if name in item})
    except TooLargeError:
        raise ValidationError(TOO_LARGE) from None
    if size > ITEM_BYTES_MAX:
        raise ValidationError(TOO_LARGE)
    return size


def encoded(item: AttributeMap, size: int) -> bytes:
    """Return the stored form of an item in normal form."""
    return size.to_bytes(_SIZE_BYTES, "big") + orjson.dumps(item)


def mutation(item: bytes | None) -> Mutation:
    """Return what puts an item, in stored form, into a row of a leaderless table; None deletes it."""
    return _DELETION if item is None else Mutation(cells=(CellWrite(CELL, item),))


def stored(row: Row | None, now_s: int) -> bytes | None:
    """Return the stored form of the item in ``row``, None if there is none."""
    return None if row is None else live_value(row, CELL, now_s)


def item_in(key: bytes, row: bytes, now_s: int) -> bytes | None:
    """Return the stored form of the item in a stored row, whose checksum was looked at; None if there is none."""
    return sole_value(row, CELL) or stored(decode_row(key, row), now_s)


def size_of(item: bytes) -> int:
    """Return the size of a stored item as DynamoDB counts it."""
    return int.from_bytes(item[:_SIZE_BYTES], "big")


def measure(stored: bytes, at: int) -> int | None:
    """Return the size of the item that begins at ``at``; the `service.counts.Measure` of tables."""
    return int.from_bytes(stored[at : at + _SIZE_BYTES], "big")


def measure_entry(stored: bytes, at: int) -> int | None:
    """Return the size of the item that an entry of a global index shows; the `service.counts.Measure` of these."""
    start = indexing.shown_at(stored, at)
    return None if start is None else measure(stored, start)


def json_of(item: bytes) -> bytes:
    """Return the JSON of a stored item."""
    return item[_SIZE_BYTES:]


def attributes_of(item: bytes) -> dict[str, Any]:
    """Return the attribute map of a stored item.

    Raises:
        CorruptionError: not JSON.
    """
    try:
        attributes = orjson.loads(json_of(item))
    except orjson.JSONDecodeError as error:
        raise CorruptionError(f"stored item of {len(item)} bytes is no JSON: {error}") from None
    if not isinstance(attributes, dict):
        raise CorruptionError(f"stored item of {len(item)} bytes is no JSON object")
    return attributes
