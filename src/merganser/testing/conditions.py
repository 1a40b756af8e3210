"""What happens to bytes on their way from one node to another, and when they may arrive.

Nodes are numbered from 0. Conditions hold for an ordered pair of nodes, so that a link can be cut, or
slow, in one direction only. Traffic whose sender is not known passes untouched.
"""

from __future__ import annotations

import enum
import random

import msgspec


class Cut(enum.Enum):
    """How a link is cut."""

    SILENT = "silent"
    """As by a firewall that drops: nothing arrives, nobody is told."""
    RESET = "reset"
    """As by a firewall that rejects: connections are reset, now and when they are tried again."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions of one direction between two nodes."""

    cut: Cut | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay: up to so much, drawn anew for each piece of a stream and each datagram."""
    bytes_per_s: float | None = None
    """How many bytes a second pass on each connection; None: as many as come."""
    loss: float = 0.0
    """Share of datagrams that are lost; TCP would send its segments again, so streams lose nothing."""


CLEAR = Conditions()


class Departures:
    """When the pieces of one stream leave: one after another, in order, however the delays fall."""

    __slots__ = ("_free_s", "_last_s", "_rng")

    def __init__(self, rng: random.Random) -> None:
        """Draw jitter from ``rng``."""
        self._rng = rng
        self._free_s = 0.0
        self._last_s = 0.0

    def due(self, now_s: float, length: int, conditions: Conditions) -> float:
        """Return when a piece of ``length`` bytes that came at ``now_s`` is to be delivered."""
        self._free_s = max(now_s, self._free_s)
        if conditions.bytes_per_s is not None:
            self._free_s += length / conditions.bytes_per_s
        self._last_s = max(self._last_s, self._free_s + delay_of(conditions, self._rng))
        return self._last_s


def delay_of(conditions: Conditions, rng: random.Random) -> float:
    """Draw a delay, in seconds."""
    return conditions.delay_s + (rng.uniform(0.0, conditions.jitter_s) if conditions.jitter_s else 0.0)
