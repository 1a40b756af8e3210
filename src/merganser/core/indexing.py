"""What is stored in the table of a global index: for each entry the item it shows, and as of which of its versions.

::

    version   number 8, leader 4, sequence 8: of the item in its base table
    shown     1 byte: 1, or 0 for a marker: no such entry as of that version
    value     to the end: the projected item, in the wire's own encoding; only if it is shown

Integers are big-endian and unsigned.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from merganser.model.errors import CorruptionError
from merganser.model.register import Version

_HEAD: Final = struct.Struct(">QIQB")


class Shown(msgspec.Struct, frozen=True):
    """What the table of an index says of an entry."""

    version: Version
    """Of the item."""
    value: bytes | None
    """The projected item; None: there is no such entry."""


def encoded(shown: Shown) -> bytes:
    """Return the value of the register of an entry."""
    return _HEAD.pack(*shown.version, shown.value is not None) + (shown.value or b"")


def decoded(value: bytes) -> Shown:
    """Return what the register of an entry says.

    Raises:
        CorruptionError: `encoded` never returned this.
    """
    try:
        number, leader, sequence, is_shown = _HEAD.unpack_from(value)
    except struct.error:
        raise CorruptionError(f"not an entry of an index: {value[:64].hex()} ({len(value)} bytes)") from None
    return Shown(Version(number, leader, sequence), value[_HEAD.size :] if is_shown else None)


def shown_in(rows: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the entries among the rows of an index's table, each with the projected item alone.

    Raises:
        CorruptionError: some are no entries.
    """
    entries = ((key, decoded(value).value) for key, value in rows)
    return tuple((key, value) for key, value in entries if value is not None)
