"""From the text of an expression to tokens.

White space separates and is dropped; keywords match in any case; a character that belongs nowhere
becomes a token of its own, so that the parser can say where it stands.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

EOF: Final = "<EOF>"
IDENTIFIER: Final = "identifier"
NAME: Final = "name"
VALUE: Final = "value"
INDEX: Final = "index"
UNKNOWN: Final = "unknown"

KEYWORDS: Final = frozenset(("AND", "OR", "NOT", "IN", "BETWEEN", "SET", "ADD", "DELETE", "REMOVE"))

_TOKEN = re.compile(
    r"[ \t\r\n]*(?:(?P<identifier>[A-Za-z][A-Za-z0-9_]*)|(?P<name>\#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+)"
    r"|(?P<index>0|[1-9][0-9]*)|(?P<symbol><>|<=|>=|[=<>+\-,().\[\]])|(?P<unknown>[^ \t\r\n]))"
)


class Token(NamedTuple):
    """A piece of an expression."""

    kind: str
    """One of the constants above, a keyword in capitals, or the symbol itself."""
    text: str
    start: int
    end: int


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of ``text``, the last of them EOF."""
    tokens = [_token(match) for match in _TOKEN.finditer(text)]
    tokens.append(Token(EOF, EOF, len(text), len(text)))
    return tokens


def _token(match: re.Match[str]) -> Token:
    kind = match.lastgroup or UNKNOWN
    text = match[kind]
    start, end = match.span(kind)
    if kind == "symbol":
        kind = text
    elif kind == IDENTIFIER and text.upper() in KEYWORDS:
        kind = text.upper()
    return Token(kind, text, start, end)
