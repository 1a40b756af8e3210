"""What becomes of the entries of global indexes: which may be behind their items, and what may still change them.

The table of an index holds a register for each entry. Its value::

    version   number 8, leader 4, sequence 8: of the item in its base table
    shown     1 byte: 1, or 0 for a marker: no such entry as of that version
    value     to the end: the projected item, in the wire's own encoding; only if it is shown

Integers are big-endian and unsigned.

The *outbox* of an item names the entries that may not say yet what follows from its value. It is written with the item,
grows with each write that changes an entry, and is cleared by a write of its own when the entries are right::

    item written --entries changed--> outbox --chosen--> delivered, as of that version --all acknowledged--> cleared
                                        ^  |
                                        +--+ written again

Invariants:

- an entry that is not in the outbox of its item says what follows from the item's value;
- an entry never goes back to an earlier version of its item.

Source: design §5; docs/internals/indexes.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from merganser.model.errors import CorruptionError
from merganser.model.register import Content, Decided, Pending, Version

OUTBOX_MAX: Final = 1_000
"""Entries that may be behind one item, 100 KB of them. Without a bound, an item that is written again and again while
an index cannot be reached would grow for ever, and each write of it with it."""
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
    version, is_shown = _head(value)
    return Shown(version, value[_HEAD.size :] if is_shown else None)


def is_marker(value: bytes) -> bool:
    """Tell whether the register of an entry says that there is none.

    Raises:
        CorruptionError: as `decoded`.
    """
    return not _head(value)[1]


def shown_at(stored: bytes, at: int) -> int | None:
    """Return where the projected item begins, in an entry's value that begins at ``at``; None if it shows none."""
    end = at + _HEAD.size
    return end if len(stored) >= end and stored[end - 1] else None


def _head(value: bytes) -> tuple[Version, bool]:
    try:
        number, leader, sequence, is_shown = _HEAD.unpack_from(value)
    except struct.error:
        raise CorruptionError(f"not an entry of an index: {value[:64].hex()} ({len(value)} bytes)") from None
    return Version(number, leader, sequence), bool(is_shown)


def shown_in(rows: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the entries among the rows of an index's table, each with the projected item alone.

    Raises:
        CorruptionError: some are no entries.
    """
    entries = ((key, decoded(value).value) for key, value in rows)
    return tuple((key, value) for key, value in entries if value is not None)


# At the leader of the item.


def changed(before: Mapping[Pending, bytes], after: Mapping[Pending, bytes]) -> Iterator[Pending]:
    """Yield the entries that a write changes.

    Args:
        before: those that follow from the item before it, and what they show.
        after: those that follow from what it becomes.
    """
    yield from (entry for entry in before if entry not in after)
    yield from (entry for entry, value in after.items() if before.get(entry) != value)


def outbox_of(*parts: Iterable[Pending], is_gone: Callable[[Pending], bool]) -> tuple[Pending, ...]:
    """Return all entries of ``parts``, each once, without those of indexes that are gone."""
    return tuple(entry for entry in dict.fromkeys(entry for part in parts for entry in part) if not is_gone(entry))


def left(
    outbox: Iterable[Pending], delivered: Mapping[Pending, bytes | None], now: Mapping[Pending, bytes]
) -> tuple[Pending, ...]:
    """Return what stays in an outbox.

    Args:
        outbox: of the item as it is now.
        delivered: what entries show as of some version of it that they were delivered of, None for nothing. Nothing was
            delivered of a later version.
        now: what follows from the item as it is now.
    """
    return tuple(entry for entry in outbox if entry not in delivered or delivered[entry] != now.get(entry))


# At the leader of the entry.


def applied(content: Content, shown: Shown) -> Decided:
    """Return what becomes of the register of an entry when it is to show ``shown``.

    Raises:
        CorruptionError: what is there is no entry.
    """
    if content.value is not None and _head(content.value)[0] >= shown.version:
        return Decided(None)
    return Decided(Content(encoded(shown)))
