"""Dropping what is kept, under a prefix, of tables that are gone: entries of indexes, marks, images."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId
from merganser.storage import keys
from merganser.storage.engine import Batch, Readable

_TABLE = struct.Struct(">I")


def drop_others(engine: Readable, prefix: bytes, tables: Sequence[TableId], batch: Batch) -> None:
    """Have ``batch`` drop what ``engine`` holds under ``prefix`` and the number, in 4 bytes, of any other table.

    Where there is nothing, nothing is dropped: that is looked at whenever the map changes, and range deletions cost.

    Args:
        engine: what cannot be read of it is dropped.
        prefix: of metadata.
        tables: in ascending order.
        batch: to be committed, unless it is empty.
    """
    for start, end in _between(prefix, tables):
        if _holds_any(engine, start, end):
            batch.delete_range(start, end)


def _between(prefix: bytes, tables: Sequence[TableId]) -> Iterator[tuple[bytes, bytes]]:
    start = prefix
    for table in tables:
        yield start, prefix + _TABLE.pack(table)
        start = prefix + _TABLE.pack(table + 1)
    yield start, keys.prefix_end(prefix)


def _holds_any(engine: Readable, start: bytes, end: bytes) -> bool:
    try:
        return next(iter(engine.scan(start, end)), None) is not None
    except CorruptionError:
        return True
