"""What a server listens on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast


def port_of(server: asyncio.Server) -> int:
    """Return the port that ``server`` listens on."""
    return int(sockets_of(server)[0].getsockname()[1])


def sockets_of(server: asyncio.Server) -> Sequence[Any]:
    """Return what ``server`` listens on: uvloop has a list where asyncio says that there is a tuple."""
    sockets: Sequence[Any] = cast("Any", server).sockets
    return sockets
