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

The entries of local indexes are metadata, too: ``local|`` and the *entry*, which tells of one row and begins as its
key does, so that whatever looks at table, token or partition key of a row's key may be asked of an entry::

    table, token, partition key   of the row
    index      1 byte, the number of the index
    index key  bytes that order as the values do; 00 written as 00 FF, closed by 00 01
    sort key   of the row, raw, to the end
"""

from __future__ import annotations

import struct

from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId, Token
from merganser.model.leadership import Group

_HEAD = struct.Struct(">IQ")
_TABLE = struct.Struct(">I")
_TOKEN = struct.Struct(">Q")
_GROUP = struct.Struct(">BI")
_GROUP_OF_POLICY = struct.Struct(">II")
_POLICIES_FROM = 256
"""As `model.policy.FIRST_POLICY`: below it, a rule is a number of replicas."""
_TOKEN_OFFSET = 2**63
_TOKEN_AT = 4
TOKEN_END = 12
_END = b"\x00\x01"
METADATA = TableId(0)
"""The table of the node's own metadata."""
_HINTS = _TABLE.pack(METADATA) + b"hint|"
_HINT_ROW_AT = len(_HINTS) + _TABLE.size
_LOCAL = _TABLE.pack(METADATA) + b"local|"
LOCAL_INDEXES_MAX = 255
"""Of one table, as far as a byte can number them."""


def row_key(table: TableId, token: Token, partition_key: bytes, sort_key: bytes = b"") -> bytes:
    """Return the key of a row."""
    return _HEAD.pack(table, token + _TOKEN_OFFSET) + escaped(partition_key) + _END + sort_key


def escaped(part: bytes) -> bytes:
    """Return a part of a key so that a part may follow, once it is closed, and the order stays."""
    return part.replace(b"\x00", b"\x00\xff") if 0 in part else part  # to look for b"\0" raises an error first, in C


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
        token: Token = _TOKEN.unpack_from(key, _TOKEN_AT)[0] - _TOKEN_OFFSET  # to call Token costs a third of this
    except struct.error:
        raise _garbage(key) from None
    return token


def place_in(key: bytes) -> tuple[TableId, Token]:
    """Return the table and the token of a row's key.

    Raises:
        CorruptionError: too short to hold them.
    """
    try:
        table, token = _HEAD.unpack_from(key)
    except struct.error:
        raise _garbage(key) from None
    return table, token - _TOKEN_OFFSET


def table_in(key: bytes) -> TableId:
    """Return the table of a key, 0 for metadata.

    Raises:
        CorruptionError: too short to hold one.
    """
    try:
        table: TableId = _TABLE.unpack_from(key)[0]
    except struct.error:
        raise _garbage(key) from None
    return table


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


def all_metadata_range() -> tuple[bytes, bytes]:
    """Return the range of all that is kept and is no row, hints included; end exclusive."""
    return metadata_key(""), _TABLE.pack(METADATA + 1)


def group_key(prefix: bytes, group: Group) -> bytes:
    """Return the metadata key, below ``prefix``, of what is kept for a group."""
    rule, partition = group
    if rule < _POLICIES_FROM:
        return prefix + _GROUP.pack(rule, partition)
    return prefix + _GROUP_OF_POLICY.pack(rule, partition)


def group_in(prefix: bytes, key: bytes) -> Group:
    """Return the group in what `group_key` made.

    Raises:
        CorruptionError: it is no such key.
    """
    length = len(key) - len(prefix)
    try:
        rule, partition = (_GROUP_OF_POLICY if length == _GROUP_OF_POLICY.size else _GROUP).unpack(key[len(prefix) :])
    except struct.error:
        raise CorruptionError(f"not the key of a group: {key.hex()}") from None
    return Group(rule, PartitionId(partition))


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


def entry_prefix(rows_prefix: bytes, index: int) -> bytes:
    """Return what the entries of a local index begin with that tell of the rows of one partition key.

    Args:
        rows_prefix: what the keys of those rows begin with (`partition_prefix`).
        index: its number, from 0.
    """
    return rows_prefix + bytes((index,))


def index_key(key: bytes) -> bytes:
    """Return a key in an index as it stands in an entry, closed."""
    return escaped(key) + _END


def entry_of(row_key: bytes, index: int, key: bytes) -> bytes:
    """Return the entry of a local index that tells of a row whose key in it is ``key``."""
    sort_at = _closed_at(row_key, TOKEN_END)
    return row_key[:sort_at] + bytes((index,)) + index_key(key) + row_key[sort_at:]


def row_of(entry: bytes) -> bytes:
    """Return the key of the row that an entry tells of.

    Raises:
        CorruptionError: `entry_of` never returned this.
    """
    index_at = _closed_at(entry, TOKEN_END)
    return entry[:index_at] + entry[_closed_at(entry, index_at + 1) :]


def index_in(entry: bytes) -> int:
    """Return the number of an entry's index.

    Raises:
        CorruptionError: `entry_of` never returned this.
    """
    index_at = _closed_at(entry, TOKEN_END)
    if index_at >= len(entry):
        raise _garbage(entry)
    return entry[index_at]


def key_in(entry: bytes) -> bytes:
    """Return the key in its index that an entry tells of.

    Raises:
        CorruptionError: `entry_of` never returned this.
    """
    key_at = _closed_at(entry, TOKEN_END) + 1
    key = entry[key_at : _closed_at(entry, key_at) - len(_END)]
    return key.replace(b"\x00\xff", b"\x00")


def collection_of(bound: bytes) -> bytes:
    """Return the beginning of the rows, and of the entries, of the partition key of a row's key or an entry.

    What has no partition key, because it is only a bound of a range, is returned as it is.
    """
    closed_at = bound.find(_END, TOKEN_END)
    return bound if closed_at < 0 else bound[: closed_at + len(_END)]


def collections_between(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Return the range of the rows of all partition keys that have keys or entries in ``start <= key < end``."""
    last = collection_of(end)
    return collection_of(start), end if last == end else prefix_end(last)


def local_key(entry: bytes) -> bytes:
    """Return the key under which an entry of a local index is stored; so for bounds of ranges."""
    return _LOCAL + entry


def split_local_key(key: bytes) -> bytes:
    """Return the entry stored under ``key``.

    Raises:
        CorruptionError: `local_key` never returned this.
    """
    if not key.startswith(_LOCAL):
        raise _garbage(key)
    return key[len(_LOCAL) :]


def all_local_range() -> tuple[bytes, bytes]:
    """Return the range of all entries of local indexes."""
    return _LOCAL, prefix_end(_LOCAL)


def _closed_at(key: bytes, start: int) -> int:
    """Return where that ends which begins at ``start`` and is closed."""
    closed_at = key.find(_END, start)
    if closed_at < 0:
        raise _garbage(key)
    return closed_at + len(_END)


def _garbage(key: bytes) -> CorruptionError:
    return CorruptionError(f"not the key of a row: {key[:64].hex()} ({len(key)} bytes)")
