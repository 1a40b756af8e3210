"""How the wire "sim" indexes the items of one partition key: every table of it has two local indexes.

`BY_END` orders items by their values, read from the end, and so anew with each write. `SOME` holds about every other
item, by a key that several share.
"""

from __future__ import annotations

from typing import Final

from merganser.model.cluster import Table
from merganser.service.local_indexes import LocalKeys

BY_END: Final = 0
SOME: Final = 1


def local_keys(value: bytes) -> list[tuple[int, bytes]]:
    """Return where an item of that value stands in the local indexes."""
    by_end = (BY_END, value[::-1])
    return [by_end, (SOME, value[-1:] + b"\x00")] if value and value[-1] % 2 else [by_end]


def local_indexer(_table: Table) -> LocalKeys:
    """Return how the items of a table are indexed; the `service.local_indexes.LocalIndexer` of this wire."""
    return local_keys
