"""Registers of leader-based tables as stored bytes; version and checksum as in `storage.values`.

The body, in place of a row's::

    shape     1 byte   2
    version   number 8, leader 4, sequence 8
    flags     1 byte   bit 0: has a value, bit 1: has an intent
    intent    length 4, then msgpack; only if there is one
    value     to the end; only if there is one

Integers are big-endian and unsigned.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from merganser.model.register import EMPTY, UNWRITTEN, Content, Intent, Register, Version
from merganser.storage.values import BODY_AT, FORMAT, check_row, damaged, seal

SHAPE = 2
_HEAD = struct.Struct(">BQIQB")
_VALUE_AT = BODY_AT + _HEAD.size
_LENGTH = struct.Struct(">I")
_CHECKSUM = struct.Struct(">I")
_FORMAT_BYTE = bytes((FORMAT,))
_HAS_VALUE, _HAS_INTENT = 1, 2
_INTENT = msgspec.msgpack.Decoder(Intent)


def encode_register(key: bytes, register: Register) -> bytes:
    """Return the bytes to store under ``key``.

    Raises:
        ValueError: a number out of its range.
    """
    (number, leader, sequence), content = register.version, register.content
    value, intent = content.value, content.intent
    flags = (value is not None) * _HAS_VALUE + (intent is not None) * _HAS_INTENT
    try:
        head = _HEAD.pack(SHAPE, number, leader, sequence, flags)
    except struct.error as error:
        raise ValueError(f"a version that cannot be stored: {error}") from None
    if intent is not None:
        encoded = msgspec.msgpack.encode(intent)
        return seal(key, head + _LENGTH.pack(len(encoded)) + encoded + (value or b""))
    value = value or b""
    checksum = zlib.crc32(value, zlib.crc32(key + head, FORMAT))
    return _FORMAT_BYTE + _CHECKSUM.pack(checksum) + head + value


def decode_register(key: bytes, stored: bytes | None) -> Register:
    """Return the register stored under ``key``; UNWRITTEN for None.

    Raises:
        CorruptionError: these are not the bytes that were stored there.
    """
    if stored is None:
        return UNWRITTEN
    check_row(key, stored)
    version, flags = _head(key, stored)
    at = _VALUE_AT
    intent = None
    if flags & _HAS_INTENT:
        try:
            at += _LENGTH.size + _LENGTH.unpack_from(stored, at)[0]
            intent = _INTENT.decode(stored[_VALUE_AT + _LENGTH.size : at])
        except (struct.error, msgspec.DecodeError) as error:
            raise damaged(key, stored, f"an intent that makes no sense ({error})") from None
    if not flags & _HAS_VALUE:
        if at != len(stored):
            raise damaged(key, stored, f"{at} bytes by its own lengths")
        return Register(version, EMPTY if intent is None else Content(None, intent))
    return Register(version, Content(stored[at:], intent))


def version_of(key: bytes, stored: bytes) -> Version:
    """Return the version of a stored register, whose checksum the caller has checked.

    Raises:
        CorruptionError: this is no register.
    """
    return _head(key, stored)[0]


def _head(key: bytes, stored: bytes) -> tuple[Version, int]:
    try:
        shape, number, leader, sequence, flags = _HEAD.unpack_from(stored, BODY_AT)
    except struct.error:
        raise damaged(key, stored, "the body ends too early") from None
    if shape != SHAPE:
        raise damaged(key, stored, f"shape {shape} is none of a register's")
    return Version(number, leader, sequence), flags


def is_tombstone(key: bytes, stored: bytes) -> bool:
    """Tell whether a stored register, whose checksum the caller has checked, holds neither value nor intent.

    Raises:
        CorruptionError: this is no register.
    """
    return _head(key, stored)[1] == 0
