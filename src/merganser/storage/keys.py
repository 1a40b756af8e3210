"""Where a row lies in the engine: its key orders rows by table, token, partition key, sort key.

::

    table   4 bytes  big-endian; 0 is the node's own metadata
    token   8 bytes  big-endian, offset by 2**63, so that negative tokens come first
    partition key    00 written as 00 FF, closed by 00 01
    sort key         raw, to the end

The escape keeps the order of partition keys, and no partition key's bytes begin with another's: the
rows of one partition key are one range, and so is every arc of the ring (design: cheap to stream,
count, drop). Ranges are half open, ``start <= key < end``, as `Engine.scan` takes them.

Metadata keys are table 0 and a name; they have no token. Hints are metadata: ``hint|``, the number of the
node they are for in 4 bytes, the key of the row.
"""

from __future__ import annotations

import struct

from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId, Token

_HEAD = struct.Struct(">IQ")
_TABLE = struct.Struct(">I")
_TOKEN = struct.Struct(">Q")
_TOKEN_OFFSET = 2**63
_TOKEN_AT = 4
TOKEN_END = 12
_END = b"\x00\x01"
METADATA = TableId(0)
"""The table of the node's own metadata."""
_HINTS = _TABLE.pack(METADATA) + b"hint|"
_HINT_ROW_AT = len(_HINTS) + _TABLE.size


def row_key(table: TableId, token: Token, partition_key: bytes, sort_key: bytes = b"") -> bytes:
    """Return the key of a row."""
    if b"\x00" in partition_key:
        partition_key = partition_key.replace(b"\x00", b"\x00\xff")
    return _HEAD.pack(table, token + _TOKEN_OFFSET) + partition_key + _END + sort_key


def partition_prefix(table: TableId, token: Token, partition_key: bytes) -> bytes:
    """Return what the keys of all rows of a partition key begin with, and no others do."""
    return row_key(table, token, partition_key)


def split_row_key(key: bytes) -> tuple[TableId, Token, bytes, bytes]:
    """Return the table, token, partition key and sort key of a row's key.

    Raises:
        CorruptionError: `row_key` never returned this.
    """
    closed_at = key.find(_END, TOKEN_END)
    if closed_at < 0 or table_in(key) == METADATA:
        raise _garbage(key)
    partition_key = key[TOKEN_END:closed_at]
    if b"\x00" in partition_key:
        if partition_key.count(b"\x00") != partition_key.count(b"\x00\xff"):
            raise _garbage(key)
        partition_key = partition_key.replace(b"\x00\xff", b"\x00")
    return table_in(key), token_in(key), partition_key, key[closed_at + 2 :]


def token_in(key: bytes) -> Token:
    """Return the token of a row's key.

    Raises:
        CorruptionError: too short to hold one.
    """
    try:
        return Token(_TOKEN.unpack_from(key, _TOKEN_AT)[0] - _TOKEN_OFFSET)
    except struct.error:
        raise _garbage(key) from None


def table_in(key: bytes) -> TableId:
    """Return the table of a key, 0 for metadata.

    Raises:
        CorruptionError: too short to hold one.
    """
    try:
        return TableId(_TABLE.unpack_from(key)[0])
    except struct.error:
        raise _garbage(key) from None


def table_range(table: TableId) -> tuple[bytes, bytes]:
    """Return the range of all keys of a table."""
    return _TABLE.pack(table), _TABLE.pack(table + 1)


def token_range(table: TableId, first: Token, last: Token) -> tuple[bytes, bytes]:
    """Return the range of all rows of a table from token ``first`` to ``last``, both included."""
    end = (table << 64) + last + _TOKEN_OFFSET + 1
    return _HEAD.pack(table, first + _TOKEN_OFFSET), end.to_bytes(TOKEN_END, "big")


def after(key: bytes) -> bytes:
    """Return the next possible key: where to go on after ``key``."""
    return key + b"\x00"


def prefix_end(prefix: bytes) -> bytes:
    """Return the smallest key greater than every key that begins with ``prefix``.

    Raises:
        ValueError: there is none, because ``prefix`` is empty or FF throughout.
    """
    kept = prefix.rstrip(b"\xff")
    if not kept:
        raise ValueError(f"no key is greater than every key that begins with {prefix.hex() or 'nothing'}")
    return kept[:-1] + bytes((kept[-1] + 1,))


def metadata_key(name: str) -> bytes:
    """Return the key of a piece of the node's own metadata."""
    return _TABLE.pack(METADATA) + name.encode()


def hint_key(target: int, row_key: bytes) -> bytes:
    """Return the key of the hint for the row under ``row_key`` and the node with number ``target``.

    The hints of a target lie together, in the order of their rows; ``row_key`` may be any bound of a range of rows.
    """
    return _HINTS + _TABLE.pack(target) + row_key


def split_hint_key(key: bytes) -> tuple[int, bytes]:
    """Return the target's number and the row's key.

    Raises:
        CorruptionError: `hint_key` never returned this.
    """
    if not key.startswith(_HINTS) or len(key) < _HINT_ROW_AT:
        raise _garbage(key)
    return int(_TABLE.unpack_from(key, len(_HINTS))[0]), key[_HINT_ROW_AT:]


def hint_range(target: int) -> tuple[bytes, bytes]:
    """Return the range of all hints for the node with number ``target``."""
    return hint_key(target, b""), prefix_end(hint_key(target, b""))


def all_hints_range() -> tuple[bytes, bytes]:
    """Return the range of all hints."""
    return _HINTS, prefix_end(_HINTS)


def _garbage(key: bytes) -> CorruptionError:
    return CorruptionError(f"not the key of a row: {key[:64].hex()} ({len(key)} bytes)")
