"""What a node has taken on."""

from __future__ import annotations

import msgspec


class Load(msgspec.Struct, frozen=True):
    """What a node has taken on and what it has refused, since it started; for operators."""

    requests_in_flight: int
    requests_limit: int
    requests_waiting: int
    requests_refused: int
    most_requests_in_flight: int
    most_requests_waiting: int
    operations: int
    operations_refused: int
    most_operations: int
    served: int
    served_bytes: int
    served_refused: int
    most_served: int
    most_served_bytes: int
    led: int
    led_refused: int
    most_led: int
    background_share: float
    lag_s: float
    unloaded_s: float
