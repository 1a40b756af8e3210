"""Bounds of HTTP clients, in one place so that tests and operators can set them."""

from __future__ import annotations

import msgspec


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may make the server hold, and for how long."""

    body_bytes_max: int = 16 * 1024 * 1024
    """DynamoDB's largest request, a BatchWriteItem."""
    header_bytes_max: int = 64 * 1024
    """Request line and headers together."""
    headers_max: int = 100
    pipelined_max: int = 64
    """Requests of one connection that may wait or run; beyond it, or beyond ``body_bytes_max`` bytes of
    bodies that wait, nothing more is read."""
    request_timeout_s: float = 30.0
    """From the first byte of a request to its last, and for a client to take any of its answers."""
    idle_timeout_s: float = 75.0
