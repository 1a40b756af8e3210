"""Remove items that have expired: the leader of each partition does, by a step that the item's own leader evaluates.

::

    index not whole --walked, at every replica--> whole
                                                    |
    the leader, every few seconds: entries that are due --right--> step EXPIRY --> removed, or kept
                                                    |
                                                    +--wrong--> dropped

The index (`service.expiry_index`) only says where to look; every replica has it whole, so that a new leader goes on at
once. Whether an item is removed is decided in the turn of the
loop in which its leader looks at what it is: a write that moved its time, or made another item of it, has come before,
or comes after and finds it gone. A removal is a write like a client's: it has a version, goes to the replicas, and
takes entries of secondary indexes with it.

A node whose clock is too far from those of its peers removes nothing (`service.clock_watch`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from merganser.core.expiry import is_due
from merganser.model.cluster import Table
from merganser.model.errors import (
    ClockSkewError,
    CorruptionError,
    InvariantError,
    MerganserError,
    RequestError,
    StorageFailedError,
)
from merganser.model.ids import PartitionId
from merganser.model.register import EMPTY, Content, Decided
from merganser.service.expiry_index import DUE_MAX, Due, Expiring, ExpiryIndex
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership, Led
from merganser.service.steps import EXPIRY, Maker, Step
from merganser.service.topology import Topology

LOOK_S: Final = 5.0
"""With the margin, an item is gone some 15 s after its time. A look at 100 places where nothing is due takes 2 ms."""
AT_ONCE: Final = 16  # 2,000 a second where a write takes 8 ms
PLACES_AT_ONCE: Final = 8
"""So that one that cannot reach a majority does not keep the others waiting."""
TURN_PLACES: Final = 1_000  # looked at between two turns of the loop: a millisecond
TIMEOUT_S: Final = 5.0

_KEPT = Decided(None, is_rejected=True)
_REMOVED = Decided(EMPTY)


class Expirer:
    """Removes what has expired among the items that this node leads; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        index: ExpiryIndex,
        leadership: Leadership,
        leader_based: LeaderBased,
        *,
        wall_us: Callable[[], int],
        check_clock: Callable[[], None],
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        look_s: float = LOOK_S,
    ) -> None:
        """Look at what this node leads.

        Args:
            topology: knows the tables.
            index: of what this node holds.
            leadership: knows what it leads.
            leader_based: has steps done by whoever leads.
            wall_us: microseconds since 1970.
            check_clock: raises a ClockSkewError if nobody can rely on that.
            rng: spreads the work.
            admit: waits while clients need this node more.
            look_s: between two looks.
        """
        self._topology = topology
        self._index = index
        self._leadership = leadership
        self._leader_based = leader_based
        self._wall_us = wall_us
        self._check_clock = check_clock
        self._rng = rng
        self._admit = admit
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self.removed = 0
        """Items, since the start."""

    def maker(self) -> Maker:
        """Return the maker of `EXPIRY` steps."""
        return Maker(self._step_of, meets_intents=False)

    async def run(self) -> None:
        """Look every few seconds, for as long as the node lives."""
        while True:
            await asyncio.sleep(self._look_s * self._rng.uniform(0.8, 1.2))
            tables = [table for table in self._topology.map.tables if self._index.of(table) is not None]
            await self._walk(tables)
            places = [
                (led, table) for led in self._leadership.leading() for table in tables if table.rule == led.group.rule
            ]
            for at in range(0, len(places), PLACES_AT_ONCE):
                await asyncio.gather(*(self._look(*place) for place in places[at : at + PLACES_AT_ONCE]))

    async def _walk(self, tables: Sequence[Table]) -> None:
        """Make the index whole of what this node holds."""
        ids = {table.id for table in tables}
        for number, (table, partition) in enumerate(self._topology.held() if ids else ()):
            if table.id in ids:
                try:
                    await self._make_whole(table, partition)
                except (CorruptionError, StorageFailedError):  # of the disk, which others take care of
                    continue
            if number % TURN_PLACES == 0:
                await self._admit()

    async def _look(self, led: Led, table: Table) -> None:
        try:
            await self.sweep(led, table)
        except InvariantError:
            raise
        except MerganserError:  # of the disk, the clock or another leader: the next look tries again
            return

    async def sweep(self, led: Led, table: Table) -> int:
        """Remove what has expired of a table in the partition of ``led``; returns how many items.

        Raises:
            ClockSkewError: this node does not know what time it is.
            CorruptionError: it cannot read what it holds.
            MerganserError: an item could not be removed.
        """
        partition, removed, last = led.group.partition, 0, None
        await self._make_whole(table, partition)
        while led.is_standing:
            await self._admit()
            self._check_clock()
            expiring = self._expiring(table)
            if expiring is None:
                break
            due = self._index.due((table.id, partition), self._now_s, last)
            right = [entry for entry in due if self._is_right(table, partition, expiring, entry)]
            for at in range(0, len(right), AT_ONCE):
                removed += await self._remove(table, right[at : at + AT_ONCE])
            if len(due) < DUE_MAX:
                break
            last = due[-1]
        return removed

    async def _make_whole(self, table: Table, partition: PartitionId) -> None:
        place, position, identity = (table.id, partition), None, None
        splits = self._index.splits
        while self._index.splits == splits:
            expiring = self._expiring(table)
            if expiring is None or self._index.is_whole(place, expiring):
                return
            if expiring.identity != identity:
                position, identity = None, expiring.identity
            position = self._index.walk(place, expiring, position)
            await self._admit()

    def _expiring(self, table: Table) -> Expiring | None:
        """Return how the table's items expire by now."""
        known = self._topology.table(table.id)
        return None if known is None else self._index.of(known)

    def _is_right(self, table: Table, partition: PartitionId, expiring: Expiring, entry: Due) -> bool:
        try:
            return self._index.check((table.id, partition), expiring, entry)
        except CorruptionError:  # the register is healed by others, and looked at again
            return False

    async def _remove(self, table: Table, due: Sequence[Due]) -> int:
        deadline = self._loop.time() + TIMEOUT_S
        ended = await asyncio.gather(
            *(self._leader_based.change(table, entry.key, EXPIRY, b"", deadline=deadline) for entry in due),
            return_exceptions=True,
        )
        removed = sum(not isinstance(one, BaseException) and not one.is_rejected for one in ended)
        self.removed += removed
        for error in ended:
            if isinstance(error, BaseException):
                raise error
        return removed

    def _step_of(self, table: Table, _payload: bytes) -> Step:
        def step(content: Content) -> Decided:
            expiring = self._expiring(table)
            if expiring is None:
                raise RequestError(f"items of table {table.name} do not expire")
            try:
                self._check_clock()
            except ClockSkewError as error:
                raise RequestError(f"the leader does not know what time it is: {error}") from None
            expires_at_s = None if content.value is None else expiring.expires_at(content.value)
            return _REMOVED if expires_at_s is not None and is_due(expires_at_s, self._now_s) else _KEPT

        return step

    @property
    def _now_s(self) -> float:
        return self._wall_us() / 1e6
