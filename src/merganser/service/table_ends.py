"""Drop the tables whose time has come: those that a wire said would go at a time to come.

The time stands in the definition of the table, so it is known to every node that knows the table, and outlives the node
that set it. Each node looks by its own clock; whoever is first has the map changed, and for the others there is nothing
left to do. Dropping is a change by compare-and-set of exactly that table as it is defined: one that was made anew under
the name stays, and so does one that was given another definition meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import RequestError, UnavailableError, UnknownOutcomeError

LOOK_S: Final = 0.5
"""Between two looks; what clients ask about is dropped by their requests."""
DROP_TIMEOUT_S: Final = 5.0

Ends = Callable[[Table], int | None]
"""When a table of a wire is to go, in milliseconds since 1970; None: it stays."""


class Dropping(Protocol):
    """Whoever changes the cluster map: `service.catalog`."""

    @property
    def current(self) -> ClusterMap:
        """The newest map known here."""

    async def drop_table(self, table: Table, *, deadline: float) -> None:
        """Remove exactly this table; raises as `Catalog.drop_table`."""


class TableEnds:
    """Looks for tables that are to go; see the module's docstring."""

    def __init__(
        self, catalog: Dropping, ends: Mapping[str, Ends], *, wall_us: Callable[[], int], rng: random.Random
    ) -> None:
        """Look through the map of ``catalog``; ``ends`` is by the names of the wires."""
        self._catalog = catalog
        self._ends = ends
        self._wall_us = wall_us
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._looked_at: ClusterMap | None = None
        self._ending: list[tuple[int, Table]] = []
        """Those of the map that was looked at, with their ends."""

    async def run(self) -> None:
        """Look every half a second, for as long as the node lives."""
        while self._ends:
            await asyncio.sleep(LOOK_S * self._rng.uniform(0.8, 1.2))
            for table in self._overdue():
                await self._drop(table)

    def _overdue(self) -> list[Table]:
        if self._looked_at is not self._catalog.current:
            self._looked_at = self._catalog.current
            self._ending = [
                (ends_ms, table)
                for table in self._looked_at.tables
                if (ends := self._ends.get(table.wire)) and (ends_ms := ends(table)) is not None
            ]
        now_ms = self._wall_us() // 1000
        return [table for ends_ms, table in self._ending if ends_ms <= now_ms]

    async def _drop(self, table: Table) -> None:
        try:
            await self._catalog.drop_table(table, deadline=self._loop.time() + DROP_TIMEOUT_S)
        except (RequestError, UnavailableError, UnknownOutcomeError):
            return  # the next look tells what is left to do
