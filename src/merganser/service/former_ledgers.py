"""Have tables forget in which ledgers their transactions had records before their policies changed (`core.ledgers`).

They may once nobody asks any more for what happened by such a record. The driver of operations sees to it, by its own
monotonic clock and nobody's wall clock: when all members have told that they know the change, no transaction can be
begun by an older map, those under way are over a minute later, and ten minutes after that their tokens are forgotten.
A driver that follows another begins to count anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from merganser.core import ledgers
from merganser.core.transaction import KEPT_S
from merganser.model.cluster import ClusterMap
from merganser.model.errors import InvariantError, MerganserError
from merganser.model.ids import NodeId
from merganser.model.messages import AskMoves, Moves
from merganser.service.asking import Asker, error_of
from merganser.service.catalog import Catalog
from merganser.service.topology import Topology

LOOK_S: Final = 30.0
LEAST_S: Final = KEPT_S + 120.0
"""A request ends in a minute, however patient its client is; the other minute is for clocks that run fast."""
_ASK_TIMEOUT_S: Final = 1.0
_CHANGE_TIMEOUT_S: Final = 5.0


class FormerLedgers:
    """See the module's docstring."""

    def __init__(
        self, topology: Topology, asker: Asker, catalog: Catalog, *, driver: Callable[[], NodeId | None]
    ) -> None:
        """Change the map through ``catalog`` while this node is the ``driver``."""
        self._topology = topology
        self._asker = asker
        self._catalog = catalog
        self._driver = driver
        self.least_s = LEAST_S
        """How long what all know is still remembered."""
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._known_at: dict[ledgers.Remembered, float] = {}
        """When all members had told that they know it."""
        topology.when_changed(self._look_at)
        self._look_at(topology.map)

    async def run(self) -> None:
        """Look every now and then while tables remember anything, for as long as the node lives."""
        while True:
            await self._news.wait()
            await asyncio.sleep(LOOK_S)
            await self.look()

    def _look_at(self, current: ClusterMap) -> None:
        if ledgers.remembered(current):
            self._news.set()
        else:
            self._news.clear()

    async def look(self) -> None:
        """Have forgotten what may be, if it is this node's turn."""
        current = self._topology.map
        remembered = ledgers.remembered(current)
        if not remembered or self._driver() != self._topology.node:
            self._known_at = {}
            return
        self._known_at = {one: self._known_at[one] for one in remembered if one in self._known_at}
        if len(self._known_at) < len(remembered) and await self._is_known_to_all(current):
            now = self._loop.time()
            self._known_at = {one: self._known_at.get(one, now) for one in remembered}
        old = [one for one, known_at in self._known_at.items() if self._loop.time() - known_at >= self.least_s]
        if old:
            await self._forget(old)

    async def _is_known_to_all(self, current: ClusterMap) -> bool:
        """Tell whether every member knows the placement of ``current``, policies included, or a later one."""
        asked = [self._asker.ask(node.id, AskMoves(), timeout_s=_ASK_TIMEOUT_S) for node in current.nodes]
        await asyncio.wait(asked)
        replies = [None if error_of(answer) is not None else answer.result() for answer in asked]
        return all(isinstance(reply, Moves) and reply.placed >= current.placed for reply in replies)

    async def _forget(self, old: list[ledgers.Remembered]) -> None:
        try:
            deadline = self._loop.time() + _CHANGE_TIMEOUT_S
            await self._catalog.change(lambda newest: ledgers.forgotten(newest, old), deadline=deadline)
        except InvariantError:
            raise
        except MerganserError:  # most voters are away, or another node drives: looked at again
            return
