"""Requests whose heads are made of lines that were read before.

The requests of a client differ in a line or two: its signature, the time, a length. So lines are remembered with the
name and the value that they say, and a whole request that comes in one piece is read by looking its lines up, in half
of the time that it takes to parse it.

Only requests of one shape are read here: ``POST / HTTP/1.1``, each header once and in plain characters, the body as
long as Content-Length says, and no header that bears on how the message ends or what becomes of the connection. The
parser reads all others; what is read here, it would read alike.

What is remembered is bounded: some hundred short lines, forgotten all at once when there are more.
"""

from __future__ import annotations

import re
from typing import Final

_START: Final = b"POST / HTTP/1.1\r\n"
_LENGTH: Final = b"content-length"
_LEFT_TO_THE_PARSER: Final = frozenset(
    (b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"expect", b"te", b"trailer")
)
_IS_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9-]*").fullmatch
_PLAIN: Final = bytes(range(32, 127))
HEAD_BYTES_MAX: Final = 4096
"""More than SDKs send, session token included."""
LINES_MAX: Final = 512
LINE_BYTES_MAX: Final = 160
"""Longer ones are signatures, which do not come again."""

Head = list[tuple[bytes, bytes]]
"""Headers with names in lower case, in the order sent."""


class Heads:
    """The lines that were read by one server."""

    __slots__ = ("_lines", "_names")

    def __init__(self) -> None:
        """Know none."""
        self._lines: dict[bytes, tuple[bytes, bytes]] = {}
        self._names: dict[bytes, bytes] = {}
        """In lower case, of those that may be read here."""

    def read(self, data: bytes) -> tuple[Head, dict[bytes, bytes], bytes] | None:
        """Return the headers, the same by name, and the body of the request that ``data`` is; None: it is to be parsed.

        Args:
            data: what came at once after the end of the request before.
        """
        if not data.startswith(_START):
            return None
        end = data.find(b"\r\n\r\n")
        if end < len(_START) or end > HEAD_BYTES_MAX:
            return None
        headers: Head = []
        named: dict[bytes, bytes] = {}
        lines = self._lines
        for line in data[len(_START) : end].split(b"\r\n"):
            header = lines.get(line)
            if header is None:
                header = self._header_in(line)
                if header is None:
                    return None
            headers.append(header)
            named[header[0]] = header[1]
        body = data[end + 4 :]
        if len(named) != len(headers) or named.get(_LENGTH) != b"%d" % len(body):
            return None
        return headers, named, body

    def _header_in(self, line: bytes) -> tuple[bytes, bytes] | None:
        """Return what a line says, and remember it; None if it is one that the parser has to see."""
        name, _, value = line.partition(b": ")
        lower = self._names.get(name) or self._name_in(name)
        if lower is None or not _is_plain(value):
            return None
        if len(line) <= LINE_BYTES_MAX:
            if len(self._lines) >= LINES_MAX:
                self._lines.clear()
            self._lines[line] = (lower, value)
        return lower, value

    def _name_in(self, name: bytes) -> bytes | None:
        lower = name.lower()
        if lower in _LEFT_TO_THE_PARSER or len(name) > LINE_BYTES_MAX or _IS_NAME(name) is None:
            return None
        if len(self._names) >= LINES_MAX:
            self._names.clear()
        self._names[name] = lower
        return lower


def _is_plain(value: bytes) -> bool:
    """Tell whether a value is of visible ASCII characters, with spaces between them at most."""
    return bool(value) and not value.translate(None, _PLAIN) and value == value.strip()
