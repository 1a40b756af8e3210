"""Addresses and socket options."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from merganser.model.errors import ConfigurationError

_KEEPALIVE_OPTIONS: Final = (
    ("TCP_KEEPIDLE", 5),  # seconds of silence before the first probe
    ("TCP_KEEPINTVL", 2),  # seconds between probes
    ("TCP_KEEPCNT", 3),  # probes without an answer before the connection is dead: 11 s in all
    ("TCP_USER_TIMEOUT", 11_000),  # ms that sent bytes may stay unacknowledged, when there is no silence to probe
)
"""A peer that lost power sends no FIN; Linux would wait for two hours before it asks."""
_PORT_MAX: Final = 65535
_PORT_DIGITS_MAX: Final = 9  # leading zeros are read, a book of digits is not


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6 address]:port``.

    Raises:
        ConfigurationError: it is neither.
    """
    host, _, port = address.rpartition(":")
    if "/" in address:
        raise ConfigurationError(f"{address!r} is a URL, or part of one: write host:port alone, as in 127.0.0.1:7000")
    if not host or not port.isascii() or not port.isdigit():
        raise ConfigurationError(f"{address!r} is not an address: write host:port, as in 127.0.0.1:7000")
    if len(port) > _PORT_DIGITS_MAX or int(port) > _PORT_MAX:
        raise ConfigurationError(f"{address!r} has port {port:.20}, and the highest there is is {_PORT_MAX}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def detect_dead_peer(transport: asyncio.BaseTransport) -> None:
    """Let the kernel notice within about 11 s that the other end is gone without a word."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS:
        option = getattr(socket, name, None)  # not every platform has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
