"""What names, keys and numbers of tables of keys and values may be, at whatever door they are told."""

from __future__ import annotations

from typing import Final

from merganser.core import snapshots
from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.storage import keys

KEY_BYTES_MAX: Final = 2048
TABLE_CHARACTERS_MAX: Final = 255
REPLICAS_MAX: Final = 16
TTL_S_MAX: Final = 10**9  # thirty years
LIMIT_MAX: Final = 1000
"""Of a page."""


def check_table_name(name: str) -> None:
    """Return if a table may have this name; raises a RequestError if not."""
    if not 1 <= len(name) <= TABLE_CHARACTERS_MAX or not name.isprintable():
        raise RequestError(
            f"table must be 1 to {TABLE_CHARACTERS_MAX} characters that can be printed, not {name!r:.80}"
        )
    if name.startswith(snapshots.HIDDEN):
        raise RequestError(f"{name!r:.80}: names with {snapshots.HIDDEN} in front are those of tables being restored")


def row_key(table: Table, key: bytes) -> bytes:
    """Return the key of the row of a client's key; raises a RequestError if there cannot be such."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise RequestError(f"key must be 1 to {KEY_BYTES_MAX:,} bytes, not {len(key):,}")
    return keys.row_key(table.id, token_of(key), key)
