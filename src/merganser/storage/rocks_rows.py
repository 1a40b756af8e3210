"""Reading a range of a RocksDB database, for whoever has opened one: the engine, and the reader of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from rocksdict import Rdict, ReadOptions


def rows_between(database: Rdict, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``start <= key < end``, not empty, in ascending order of bytes (descending if ``reverse``).

    Why the lower bound is compared here, and the status looked at in the end: see `storage.rocks`.

    Raises:
        Exception: while iterating, at a block that is damaged or cannot be read.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    rows = database.iter(options)
    if reverse:
        rows.seek_to_last()
    else:
        rows.seek(start)
    step = rows.prev if reverse else rows.next
    while rows.valid():
        key: bytes = rows.key()
        if key < start:
            break
        yield key, rows.value()
        step()
    rows.status()
