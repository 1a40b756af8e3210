"""Last writes: what `Conditions` does, on a table of values of which the last write wins."""

from __future__ import annotations

from merganser.sim.clients import Clients
from merganser.sim.workloads.conditions import Conditions


class LastWrites(Conditions):
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients, beside new ones."""
        clients.history.last_write_wins = True
        super().__init__(clients, hot_keys)
