"""Keys of any bytes, one on a line, so that no two look alike and a shell takes each for what it is."""

from __future__ import annotations

from typing import Final

_QUOTE: Final = "$'"
_NAMED: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\", "'": r"\'"}


def on_a_line(key: bytes) -> str:
    r"""Return ``key`` as it is, or quoted as bash has it, ``$'two\nlines'``, if a part of it cannot be printed."""
    text = key.decode(errors="surrogateescape")
    if text.isprintable() and not text.startswith(_QUOTE):
        return text
    return f"{_QUOTE}{''.join(map(_quoted, text))}'"


def _quoted(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))
