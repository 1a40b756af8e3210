"""``--context``: what a reader has seen, as ``get`` printed it; in the command, in a file or on standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import orjson

from merganser.model.errors import ConfigurationError

STANDARD_INPUT: Final = "-"
FILE: Final = "@"
"""In front of its name, as curl has it; no context begins so."""


def context_of(given: str | None, *, value: str | None = None) -> str | None:
    """Return the context that an option names, None if there is none.

    Args:
        given: a context, ``-`` or ``@FILE``; what is read there is a context, or what ``get --json`` printed.
        value: another argument, for which ``-`` means standard input as well.

    Raises:
        ConfigurationError: there is none to be read.
    """
    if given is None:
        return None
    if given == STANDARD_INPUT:
        if value == STANDARD_INPUT:
            raise ConfigurationError("standard input cannot be both the value and the context: write --context @FILE")
        return _told(sys.stdin.buffer.read(), "standard input")
    if given.startswith(FILE):
        path = Path(given[len(FILE) :])
        try:
            return _told(path.read_bytes(), str(path))
        except OSError as error:
            raise ConfigurationError(f"the context cannot be read: {error}") from None
    return given


def _told(content: bytes, where: str) -> str:
    try:
        if content.lstrip().startswith(b"{"):
            context = str(orjson.loads(content)["context"])
        else:
            context = content.decode("ascii").strip()
    except (ValueError, KeyError):
        context = ""
    if not context:
        raise ConfigurationError(f"there is no context in {where}: write there what get --json, or put, printed")
    return context
