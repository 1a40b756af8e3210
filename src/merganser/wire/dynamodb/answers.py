"""Answers put together from JSON that is already there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_JOIN_BYTES_MAX = 16 * 1024
"""Copying costs less than handling pieces up to about this size."""


def joined(*pieces: bytes) -> bytes | list[bytes]:
    """Return the pieces of an answer, as one if they are short."""
    return b"".join(pieces) if len(pieces[1]) <= _JOIN_BYTES_MAX else list(pieces)


def answer_of(*members: Sequence[bytes]) -> list[bytes]:
    """Return the JSON of an answer, in pieces.

    Args:
        members: each the pieces of a name, a colon and a value; without any pieces it is left out.
    """
    return [b"{", *_listed(members), b"}"]


def _listed(members: Iterable[Sequence[bytes]]) -> Iterable[bytes]:
    is_first = True
    for pieces in members:
        if pieces:
            if not is_first:
                yield b","
            yield from pieces
            is_first = False
