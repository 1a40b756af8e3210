"""Global indexes of the wire "sim": what items of a simulated table are in them.

The value of an indexed item is its color, its shape and what tells it from all others, with bars between. By color
an index shows the whole item, by shape only that it is there, and only if it has a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.model.index import Entry, IndexRequest
from merganser.storage import keys

BY_COLOR: Final = "by_color"
BY_SHAPE: Final = "by_shape"
BY_BOTH: Final = "by_both"
INDEXES: Final = (IndexRequest(BY_COLOR), IndexRequest(BY_SHAPE))
_BAR: Final = b"|"


def value_of(color: bytes, shape: bytes, unique: bytes) -> bytes:
    """Return the value of an item that is indexed."""
    return _BAR.join((color, shape, unique))


def entries(table: Table, key: bytes, value: bytes) -> Sequence[Entry]:
    """Return what an item is in the indexes of its table; nothing if it has no color."""
    color, *more = value.split(_BAR)
    if len(more) != 2:
        return ()
    shape, found = more[0], list[Entry]()
    for index in table.indexes:
        if index.name == BY_COLOR:
            found.append(_entry(index.name, index.table, color, key, value))
        elif index.name == BY_SHAPE and shape:
            found.append(_entry(index.name, index.table, shape, key, b"there"))
        elif index.name == BY_BOTH:
            found.append(_entry(index.name, index.table, color + shape, key, value))
    return found


def _entry(name: str, table: TableId, by: bytes, key: bytes, shown: bytes) -> Entry:
    return Entry(name, keys.row_key(table, token_of(by), by, keys.split_row_key(key)[2]), shown)
