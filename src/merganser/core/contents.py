"""How a value and what is said about it lie in one cell.

A *plain* value is the cell's bytes, as they are. A *described* one begins with what is said about it::

    length    4 bytes, big-endian, of what follows up to the value
    about     msgpack: content type, metadata, tags, client
    value     to the end

Which of the two a cell holds, its name tells: siblings have it before the dot. In tables where the last write wins the
one cell of a row is always of the second kind, so that each write takes the place of the one before.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from merganser.model.contents import Content, Tag
from merganser.model.errors import CorruptionError

PLAIN: Final = b""
DESCRIBED: Final = b"\x01"
_LENGTH = struct.Struct(">I")


class _About(msgspec.Struct, frozen=True, array_like=True):
    content_type: str
    metadata: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, int | bytes], ...]
    client: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_About)
_NOTHING = _encoder.encode(_About("", (), (), ""))
_NOTHING_SAID = _LENGTH.pack(len(_NOTHING)) + _NOTHING


def packed(content: Content) -> tuple[bytes, bytes]:
    """Return what kind of cell is to hold ``content``, and its bytes."""
    return (DESCRIBED, described(content)) if content.is_described else (PLAIN, content.value)


def described(content: Content) -> bytes:
    """Return the bytes of a described cell, whatever is said about the value."""
    if not content.is_described:
        return _NOTHING_SAID + content.value
    about = _encoder.encode(_About(content.content_type, content.metadata, content.tags, content.client))
    return b"".join((_LENGTH.pack(len(about)), about, content.value))


def unpacked(kind: bytes, stored: bytes) -> Content:
    """Return the content of a cell.

    Raises:
        CorruptionError: it is of no kind that is known here, or makes no sense.
    """
    if kind == PLAIN:
        return Content(stored)
    about, value_at = _about(kind, stored)
    tags = tuple([Tag(*tag) for tag in about.tags])
    return Content(stored[value_at:], about.content_type, about.metadata, tags, about.client)


def tags_of(kind: bytes, stored: bytes) -> tuple[Tag, ...]:
    """Return the tags of a cell, without a look at its value; raises as `unpacked`."""
    if kind == PLAIN or stored.startswith(_NOTHING_SAID):
        return ()
    about, _ = _about(kind, stored)
    return tuple([Tag(*tag) for tag in about.tags])


def _about(kind: bytes, stored: bytes) -> tuple[_About, int]:
    if kind != DESCRIBED:
        raise CorruptionError(f"a value of a kind that this node does not know: {kind[:32].hex()}")
    try:
        (length,) = _LENGTH.unpack_from(stored)
        if _LENGTH.size + length > len(stored):
            raise CorruptionError(f"a value of {len(stored)} bytes, of which {length} are to tell about it")
        return _decoder.decode(memoryview(stored)[_LENGTH.size : _LENGTH.size + length]), _LENGTH.size + length
    except (struct.error, msgspec.MsgspecError) as error:
        raise CorruptionError(f"what is said about a value makes no sense: {error}") from None
