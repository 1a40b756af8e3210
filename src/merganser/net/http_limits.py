"""Bounds of HTTP clients, in one place so that tests and operators can set them."""

from __future__ import annotations

import msgspec


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may make a server hold, and for how long."""

    connections_max: int = 4096
    """Open at once; each costs some 10 KB and a descriptor. One more is told 503 and closed."""
    refusals_max: int = 128
    """Connections that are being told so; beyond it they are reset without a word."""
    body_bytes_max: int = 16 * 1024 * 1024
    """DynamoDB's largest request, a BatchWriteItem."""
    bodies_bytes_max: int = 256 * 1024 * 1024
    """Of all connections together, received and not yet answered; beyond it a request is refused with 503.
    At least ``body_bytes_max``, or a body of that size is never taken."""
    answers_bytes_max: int = 256 * 1024 * 1024
    """Of all connections together, written and not taken by their clients; the one that passes it is closed."""
    header_bytes_max: int = 64 * 1024
    """Request line and headers together."""
    headers_max: int = 100
    pipelined_max: int = 64
    """Requests of one connection that may wait or run; beyond it, or beyond ``body_bytes_max`` bytes of
    bodies that wait, nothing more is read."""
    request_timeout_s: float = 30.0
    """From the first byte of a request to its last, and for a client to take any of its answers."""
    idle_timeout_s: float = 75.0
