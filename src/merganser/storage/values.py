"""Rows and metadata as stored bytes that prove themselves when read.

::

    version   1 byte   01
    checksum  4 bytes  CRC-32 of the key, then the body, starting from the version
    body

The key is under the checksum, so a good value under the wrong key is caught too. The body of a row is::

    shape     1 byte   1: a single cell, has a value, never expires, row never deleted (nearly every row)
                       0: anything else
                       2: a register of a leader-based table (`storage.registers`)
                       3: a causal row
    shape 1:  micros 8, writer 4, name length 2, value length 4, name, value
    shape 0:  deleted_at (micros 8, writer 4), number of cells 4, then each cell:
              micros 8, writer 4, flags 1 (bit 0: has a value, bit 1: expires), name length 2,
              value length 4, expires_at_s 8, name, value
    shape 3:  number of spans 4, then each: number 4, epoch 8, low 8, high 8; number of cells 4, then each as above

Integers are big-endian; micros and expires_at_s are signed. The body of metadata is its payload.

Checked whenever read: a damaged value is a `CorruptionError` and is never returned (design §6).
"""

from __future__ import annotations

import struct
import zlib

from merganser.core import causal_rows
from merganser.core.checksums import crc32
from merganser.model.errors import CorruptionError
from merganser.model.row import Cell, Row, Span
from merganser.model.timestamp import BEGINNING, Timestamp

FORMAT = 1
_VERSION_BYTE = b"\x01"
BODY_AT = 5
_CHECKSUM = struct.Struct(">I")
_GENERAL, _ONE_CELL, CAUSAL = 0, 1, 3
_ONE = struct.Struct(">BqIHI")
_MANY = struct.Struct(">BqII")
_CELL = struct.Struct(">qIBHIq")
_SPANS = struct.Struct(">BI")
_SPAN = struct.Struct(">Iqqq")
_CELLS = struct.Struct(">I")
_HAS_VALUE, _EXPIRES = 1, 2
_ONE_NAME_AT = BODY_AT + _ONE.size


def encode_row(key: bytes, row: Row) -> bytes:
    """Return the bytes to store under ``key``.

    Raises:
        ValueError: a name of more than 65,535 bytes or a number out of its range.
    """
    cells = row.cells
    try:
        if len(cells) == 1 and row.deleted_at == BEGINNING and not row.context:
            cell = cells[0]
            if cell.value is not None and cell.expires_at_s is None:
                return _encode_one(key, cell, cell.value)
        return seal(key, _causal_body(row) if row.context else _general_body(row))
    except struct.error as error:
        raise ValueError(f"a row that cannot be stored: {error}") from None


def decode_row(key: bytes, stored: bytes) -> Row:
    """Return the row stored under ``key``.

    Raises:
        CorruptionError: these are not the bytes that were stored there.
    """
    check_row(key, stored)
    try:
        if stored[BODY_AT] == _ONE_CELL:
            return _decode_one(stored)
        return _decode_causal(stored) if stored[BODY_AT] == CAUSAL else _decode_general(stored)
    except (struct.error, IndexError):
        raise damaged(key, stored, "the body ends too early") from None
    except _MalformedError as error:
        raise damaged(key, stored, str(error)) from None


def check_row(key: bytes, stored: bytes) -> None:
    """Check version and checksum without decoding.

    Raises:
        CorruptionError: these are not the bytes that were stored under ``key``.
    """
    if len(stored) < BODY_AT:
        raise damaged(key, stored, "too short for version and checksum")
    if stored[0] != FORMAT:
        raise damaged(key, stored, f"format version {stored[0]}, this node knows {FORMAT}")
    found = crc32(stored[BODY_AT:], zlib.crc32(key, FORMAT))
    if found != int.from_bytes(stored[1:BODY_AT], "big"):
        raise damaged(key, stored, f"checksum {found:08x}, stored with {stored[1:BODY_AT].hex()}")


def can_end(stored: bytes) -> bool:
    """Tell whether anything in a stored row is deleted or can expire; looks at one byte, and checks nothing."""
    return len(stored) <= BODY_AT or stored[BODY_AT] != _ONE_CELL


def begins_with_a_lasting_value(stored: bytes) -> bool:
    """Tell whether the first cell of a stored row has a value that never expires, by the look of it.

    Its checksum is right, the caller has seen. False may also mean that it takes a closer look (`decode_row`).
    """
    if len(stored) <= BODY_AT:
        return False
    at = BODY_AT
    try:
        if stored[at] == _ONE_CELL:
            return True
        if stored[at] == CAUSAL:
            at += _SPANS.size + _SPAN.size * int(_SPANS.unpack_from(stored, at)[1])
            count = _CELLS.unpack_from(stored, at)[0]
            at += _CELLS.size
        else:
            count = _MANY.unpack_from(stored, at)[3] if stored[at] == _GENERAL else 0
            at += _MANY.size
        return bool(count) and int(_CELL.unpack_from(stored, at)[2]) == _HAS_VALUE
    except struct.error:
        return False


def replaces(encoded: bytes, stored: bytes) -> bool:
    """Tell whether a row takes the place of another, whole, by the look of both: one cell of the same name, and later.

    Of nearly all that overwrites; false may also mean that it takes a closer look (`core.rows.merge`).

    Args:
        encoded: the row, which is intact.
        stored: the other; that its checksum is right, the caller has seen.
    """
    if min(len(encoded), len(stored)) < _ONE_NAME_AT or not encoded[BODY_AT] == stored[BODY_AT] == _ONE_CELL:
        return False
    _, micros, writer, name_bytes, value_bytes = _ONE.unpack_from(stored, BODY_AT)
    _, later_micros, later_writer, later_name_bytes, _ = _ONE.unpack_from(encoded, BODY_AT)
    end = _ONE_NAME_AT + name_bytes
    return (
        name_bytes == later_name_bytes
        and stored[_ONE_NAME_AT:end] == encoded[_ONE_NAME_AT:end]
        and (later_micros, later_writer) > (micros, writer)
        and end + value_bytes == len(stored)  # or its writer had a bug
    )


def sole_value(stored: bytes, name: bytes) -> bytes | None:
    """Return the value of a row that is one cell of that name and cannot end, as nearly all; None: `decode_row` tells.

    Its checksum is right, the caller has seen.
    """
    if len(stored) < _ONE_NAME_AT or stored[BODY_AT] != _ONE_CELL:
        return None
    _, _, _, name_bytes, value_bytes = _ONE.unpack_from(stored, BODY_AT)
    value_at = _ONE_NAME_AT + name_bytes
    is_well = stored[_ONE_NAME_AT:value_at] == name and value_at + value_bytes == len(stored)
    return stored[value_at:] if is_well else None


def seal(key: bytes, payload: bytes) -> bytes:
    """Return ``payload`` with version and checksum, to store under ``key``."""
    return _VERSION_BYTE + _CHECKSUM.pack(crc32(payload, zlib.crc32(key, FORMAT))) + payload


def unseal(key: bytes, stored: bytes) -> bytes:
    """Return the payload stored under ``key``.

    Raises:
        CorruptionError: these are not the bytes that were stored there.
    """
    check_row(key, stored)
    return stored[BODY_AT:]


class _MalformedError(Exception):
    """The checksum holds and the body makes no sense: whoever wrote it had a bug."""


def _encode_one(key: bytes, cell: Cell, value: bytes) -> bytes:
    """Encode without copying the value twice; it is the long part."""
    written_at = cell.written_at
    head = _ONE.pack(_ONE_CELL, written_at[0], written_at[1], len(cell.name), len(value)) + cell.name
    checksum = crc32(value, zlib.crc32(key + head, FORMAT))
    return _VERSION_BYTE + _CHECKSUM.pack(checksum) + head + value


def _decode_one(stored: bytes) -> Row:
    _, micros, writer, name_bytes, value_bytes = _ONE.unpack_from(stored, BODY_AT)
    value_at = _ONE_NAME_AT + name_bytes
    if value_at + value_bytes != len(stored):
        raise _MalformedError(f"{value_at + value_bytes} bytes by its own lengths")
    cell = Cell(stored[_ONE_NAME_AT:value_at], Timestamp(micros, writer), stored[value_at:])
    return Row((cell,))


def _general_body(row: Row) -> bytes:
    return b"".join([_MANY.pack(_GENERAL, *row.deleted_at, len(row.cells)), *_cell_parts(row)])


def _causal_body(row: Row) -> bytes:
    spans = [_SPAN.pack(*span) for span in row.context]
    return b"".join([_SPANS.pack(CAUSAL, len(spans)), *spans, _CELLS.pack(len(row.cells)), *_cell_parts(row)])


def _cell_parts(row: Row) -> list[bytes]:
    parts: list[bytes] = []
    for cell in row.cells:
        value = cell.value or b""
        flags = (cell.value is not None) * _HAS_VALUE + (cell.expires_at_s is not None) * _EXPIRES
        parts.append(_CELL.pack(*cell.written_at, flags, len(cell.name), len(value), cell.expires_at_s or 0))
        parts += (cell.name, value)
    return parts


def _decode_general(stored: bytes) -> Row:
    shape, micros, writer, count = _MANY.unpack_from(stored, BODY_AT)
    if shape != _GENERAL:
        raise _MalformedError(f"unknown shape {shape}")
    cells = _decode_cells(stored, count, BODY_AT + _MANY.size)
    return Row(cells, Timestamp(micros, writer))


def _decode_causal(stored: bytes) -> Row:
    _, count = _SPANS.unpack_from(stored, BODY_AT)
    at = BODY_AT + _SPANS.size
    spans = []
    for _ in range(count):
        spans.append(Span(*_SPAN.unpack_from(stored, at)))
        at += _SPAN.size
    if not spans:
        raise _MalformedError("a causal row that has seen nothing")
    cells = _decode_cells(stored, _CELLS.unpack_from(stored, at)[0], at + _CELLS.size)
    row = Row(cells, BEGINNING, tuple(spans))
    flaw = causal_rows.flaw_of(row)
    if flaw:
        raise _MalformedError(flaw)
    return row


def _decode_cells(stored: bytes, count: int, at: int) -> tuple[Cell, ...]:
    cells = []
    for _ in range(count):
        cell, at = _decode_cell(stored, at)
        cells.append(cell)
    if at != len(stored):
        raise _MalformedError(f"{at} bytes by its own lengths")
    return tuple(cells)


def _decode_cell(stored: bytes, at: int) -> tuple[Cell, int]:
    micros, writer, flags, name_bytes, value_bytes, expires_at_s = _CELL.unpack_from(stored, at)
    name_at = at + _CELL.size
    value_at = name_at + name_bytes
    value = stored[value_at : value_at + value_bytes] if flags & _HAS_VALUE else None
    expiry = expires_at_s if flags & _EXPIRES else None
    return Cell(stored[name_at:value_at], Timestamp(micros, writer), value, expiry), value_at + value_bytes


def damaged(key: bytes, stored: bytes, found: str) -> CorruptionError:
    """Return what to raise for ``stored``, which lies under ``key`` and is not what was stored there."""
    return CorruptionError(f"damaged value of {len(stored)} bytes under key {key[:64].hex()}: {found}")
