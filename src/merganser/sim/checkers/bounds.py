"""However much is asked of a node, it takes on what its limits say and no more, and every place is given back.

Source: docs/internals/overload.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.sim.checkers.replicas import NodeState


def exceeded_bounds(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each bound of a node's present life that it exceeded, and for each place still taken."""
    for state in states:
        load, limits = state.load, state.limits
        if load is None:
            continue
        for what, most, bound in (
            ("client requests at once", load.most_requests_in_flight, limits.requests_max),
            ("waiting client requests", load.most_requests_waiting, limits.waiting_max),
            ("operations at once", load.most_operations, limits.operations_max),
            ("requests of peers at once", load.most_served, limits.served_max),
            ("requests led at once", load.most_led, limits.led_max),
            ("bytes of writes at once", load.most_served_bytes, limits.served_bytes_max),
            ("places for client requests, now that nobody asks", load.requests_in_flight + load.requests_waiting, 0),
        ):
            if most > bound:
                yield f"{state.node} had {most} {what}, and {bound} are allowed"
