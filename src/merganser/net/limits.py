"""Bounds of peer connections, in one place so that tests and operators can set them."""

from __future__ import annotations

import msgspec

from merganser.net.frames import FRAME_BYTES_MAX


class PeerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may hold and how long things may take."""

    requests_in_flight_max: int = 8192
    """Per outgoing connection: some 100 ms of requests at the highest rate one core reaches."""
    unwritten_bytes_max: int = 32 * 1024 * 1024
    """Per outgoing connection; a new request fails once this is reached, so it is passed by one frame at most."""
    connections_max: int = 4096
    """Incoming; two of every other node, and room for strangers. One more is closed at once."""
    clients_max: int = 3072
    """Of the incoming ones: clients leave room for the nodes."""
    requests_served_max: int = 1024
    """Per incoming connection; beyond it nothing more is read."""
    frame_bytes_max: int = FRAME_BYTES_MAX
    connect_timeout_s: float = 2.0
    """To connect and to be greeted, in either direction."""
    backoff_min_s: float = 0.02
    backoff_max_s: float = 1.0
    """A peer that restarts is found again within this."""
    close_timeout_s: float = 1.0
    """How long a close waits for answers to leave and for cancelled handlers to end."""
