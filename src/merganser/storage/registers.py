"""Registers of leader-based tables as stored bytes; version and checksum as in `storage.values`.

The body, in place of a row's::

    shape     1 byte   2
    version   number 8, leader 4, sequence 8
    flags     1 byte   bit 0: has a value, bit 1: has an intent, bit 2: has an outbox
    intent    length 4, then msgpack; only if there is one
    outbox    length 4, then msgpack; only if there is one
    value     to the end; only if there is one

Integers are big-endian and unsigned.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import msgspec

from merganser.core.checksums import crc32
from merganser.model.leadership import Epoch
from merganser.model.register import EMPTY, UNWRITTEN, Content, Intent, Pending, Register, Version
from merganser.storage.values import BODY_AT, FORMAT, check_row, damaged, seal

SHAPE = 2
_HEAD = struct.Struct(">BQIQB")
_VALUE_AT = BODY_AT + _HEAD.size
PLAIN_VALUE_AT = _VALUE_AT
_LENGTH = struct.Struct(">I")
_CHECKSUM = struct.Struct(">I")
_FORMAT_BYTE = bytes((FORMAT,))
_HAS_VALUE, _HAS_INTENT, _HAS_OUTBOX = 1, 2, 4
_VERSION_AT = BODY_AT + 1
_EPOCH = struct.Struct(">QI")
_SEQUENCE_AT = _VERSION_AT + _EPOCH.size
_FLAGS_AT = _VALUE_AT - 1
_INTENT = msgspec.msgpack.Decoder(Intent)
_OUTBOX = msgspec.msgpack.Decoder(tuple[Pending, ...])


def encode_register(key: bytes, register: Register) -> bytes:
    """Return the bytes to store under ``key``.

    Raises:
        ValueError: a number out of its range.
    """
    (number, leader, sequence), content = register.version, register.content
    value, intent, outbox = content.value, content.intent, content.outbox
    flags = (value is not None) * _HAS_VALUE + (intent is not None) * _HAS_INTENT + bool(outbox) * _HAS_OUTBOX
    try:
        head = _HEAD.pack(SHAPE, number, leader, sequence, flags)
    except struct.error as error:
        raise ValueError(f"a version that cannot be stored: {error}") from None
    if intent is not None or outbox:
        parts = [part for part in (intent, outbox) if part]
        encoded = b"".join(_LENGTH.pack(len(part)) + part for part in map(msgspec.msgpack.encode, parts))
        return seal(key, head + encoded + (value or b""))
    value = value or b""
    checksum = crc32(value, zlib.crc32(key + head, FORMAT))
    return _FORMAT_BYTE + _CHECKSUM.pack(checksum) + head + value


def is_plain(stored: bytes) -> bool:
    """Tell whether a register says that it has a value, from `PLAIN_VALUE_AT` on, and nothing else; as nearly all."""
    return len(stored) >= _VALUE_AT and stored[_FLAGS_AT] == _HAS_VALUE and stored[BODY_AT] == SHAPE


def plain_value(key: bytes, stored: bytes) -> bytes | None:
    """Return the value of a register that says nothing else, as nearly all; a third of the time of `decode_register`.

    None of any other, and of one that is damaged.
    """
    if is_plain(stored) and stored[0] == FORMAT:
        checksum = crc32(stored[BODY_AT:], zlib.crc32(key, FORMAT))
        if checksum == int.from_bytes(stored[1:BODY_AT], "big"):
            return stored[_VALUE_AT:]
    return None


def epoch_bytes(epoch: Epoch) -> bytes:
    """Return what the stored registers of an epoch say of it, for `is_of_epoch`."""
    return _EPOCH.pack(*epoch)


def is_of_epoch(stored: bytes, epoch: bytes) -> bool:
    """Tell whether a stored register says that it was written in that epoch (`epoch_bytes`); it may be damaged."""
    return stored[_VERSION_AT:_SEQUENCE_AT] == epoch


def values_in(rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of stored registers that have one; the caller has checked their checksums.

    Raises:
        CorruptionError: one is no register.
    """
    found: list[tuple[bytes, bytes]] = []
    for key, stored in rows:
        if len(stored) >= _VALUE_AT and stored[_FLAGS_AT] == _HAS_VALUE and stored[BODY_AT] == SHAPE:  # nearly all
            found.append((key, stored[_VALUE_AT:]))
            continue
        begins = value_at(key, stored)
        if begins is not None:
            found.append((key, stored[begins:]))
    return found


def decode_register(key: bytes, stored: bytes | None) -> Register:
    """Return the register stored under ``key``; UNWRITTEN for None.

    Raises:
        CorruptionError: these are not the bytes that were stored there.
    """
    if stored is None:
        return UNWRITTEN
    check_row(key, stored)
    version, flags = _head(key, stored)
    at, intent = _VALUE_AT, None
    outbox: tuple[Pending, ...] = ()
    if flags & (_HAS_INTENT | _HAS_OUTBOX):
        try:
            if flags & _HAS_INTENT:
                encoded, at = _part(stored, at)
                intent = _INTENT.decode(encoded)
            if flags & _HAS_OUTBOX:
                encoded, at = _part(stored, at)
                outbox = _OUTBOX.decode(encoded)
        except (struct.error, msgspec.DecodeError) as error:
            raise damaged(key, stored, f"an intent or outbox that makes no sense ({error})") from None
    if not flags & _HAS_VALUE:
        if at != len(stored):
            raise damaged(key, stored, f"{at} bytes by its own lengths")
        return Register(version, EMPTY if intent is None and not outbox else Content(None, intent, outbox))
    return Register(version, Content(stored[at:], intent, outbox))


def _part(stored: bytes, at: int) -> tuple[bytes, int]:
    """Return what begins with its length at ``at``, and where it ends."""
    start = at + _LENGTH.size
    end = start + _LENGTH.unpack_from(stored, at)[0]
    return stored[start:end], end


def value_at(key: bytes, stored: bytes) -> int | None:
    """Return where the value of a stored register begins, None if there is none, without a look at its checksum.

    Raises:
        CorruptionError: this is no register.
    """
    if len(stored) < _VALUE_AT or stored[BODY_AT] != SHAPE:
        raise damaged(key, stored, "no register")
    flags = stored[_FLAGS_AT]
    if flags == _HAS_VALUE:  # of nearly all
        return _VALUE_AT
    if not flags & _HAS_VALUE:
        return None
    at = _VALUE_AT
    try:
        for part in (_HAS_INTENT, _HAS_OUTBOX):
            if flags & part:
                at += _LENGTH.size + _LENGTH.unpack_from(stored, at)[0]
    except struct.error:
        raise damaged(key, stored, "the intent or outbox ends too early") from None
    return at


def version_of(key: bytes, stored: bytes) -> Version:
    """Return the version of a stored register, whose checksum the caller has checked.

    Raises:
        CorruptionError: this is no register.
    """
    return _head(key, stored)[0]


def is_later(key: bytes, stored: bytes, other: bytes) -> bool:
    """Tell whether a stored register is of a later version than another, both with checksums that were checked.

    Raises:
        CorruptionError: one of them is no register.
    """
    if min(len(stored), len(other)) < _VALUE_AT or not stored[BODY_AT] == other[BODY_AT] == SHAPE:
        return version_of(key, stored) > version_of(key, other)
    return stored[_VERSION_AT:_FLAGS_AT] > other[_VERSION_AT:_FLAGS_AT]  # big-endian and unsigned


def _head(key: bytes, stored: bytes) -> tuple[Version, int]:
    try:
        shape, number, leader, sequence, flags = _HEAD.unpack_from(stored, BODY_AT)
    except struct.error:
        raise damaged(key, stored, "the body ends too early") from None
    if shape != SHAPE:
        raise damaged(key, stored, f"shape {shape} is none of a register's")
    # as `Version(…)`, in a third of the time: that of a NamedTuple is written in Python
    return tuple.__new__(Version, (number, leader, sequence)), flags


def is_tombstone(key: bytes, stored: bytes) -> bool:
    """Tell whether a stored register, whose checksum the caller has checked, holds nothing but its version.

    Raises:
        CorruptionError: this is no register.
    """
    return _head(key, stored)[1] == 0


def may_have_outbox(stored: bytes) -> bool:
    """Tell whether what is stored says that it has an outbox; it may be damaged."""
    return len(stored) > _FLAGS_AT and stored[_FLAGS_AT] & _HAS_OUTBOX != 0
