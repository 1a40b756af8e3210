"""What is said of global indexes between a wire and the services: entries, and what is asked of a new index."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """What an item is in one index."""

    index: str
    """Name of the index."""
    key: bytes
    """Key of a row (`storage.keys`) in the table of the index (`model.cluster.Index.table`): made of the key attributes
    of the index and then, so that no two items share one, of the whole primary key of the item."""
    value: bytes
    """The projected item, in the wire's own encoding. Not empty."""


class IndexRequest(msgspec.Struct, frozen=True):
    """An index to be made."""

    name: str
    definition: bytes = b""
    """As `model.cluster.Index.definition`."""
