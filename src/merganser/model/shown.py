"""What somebody has given, as an error shows it."""

from __future__ import annotations


def shown(given: object, chars: int = 80) -> str:
    """Return the beginning of ``given`` as Python writes it; numbers of over 4,300 digits Python refuses to write."""
    try:
        return repr(given)[:chars]
    except ValueError:
        bits = f" of {given.bit_length():,} bits" if isinstance(given, int) else ", with a number too long to be shown"
        return f"{type(given).__name__}{bits}"
