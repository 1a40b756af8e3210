"""Pages of the keys of a table, without their values.

Each replica of a run of partitions reads a page of its rows and tells of each a few bytes (`core.briefs`), so that no
value goes over the network, and none is decoded that need not be::

    client --from--> any node --ListRange--> R replicas of the partitions from there on
                              <-- keys and briefs, a page each --
                     merged (`service.range_merge`); where replicas differ, the row is read at the level

So a key that was put at W, and is not deleted, is told if R + W > N, and one that was deleted is not: as of a page of
rows (`Coordinator.read_range`). As long as a member is of an older version, that is what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from merganser.core import briefs
from merganser.core.crdt import reading
from merganser.core.hash_tree import fingerprint
from merganser.model.cluster import Table
from merganser.model.consistency import ReadLevel
from merganser.model.errors import RefusedError, RequestError
from merganser.model.ids import NodeId
from merganser.model.messages import ReadRange, Rows
from merganser.model.value_messages import ListRange
from merganser.model.versions import LISTS_SINCE
from merganser.service.coordinator import Coordinator
from merganser.service.range_merge import merge_pages
from merganser.service.replica import NO_SUCH_TABLE, Replica
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.values import begins_with_a_lasting_value, decode_row

PAGE_MAX: Final = 1_000
READ_BYTES: Final = 1024 * 1024
"""Of rows that a replica reads for one page: some milliseconds of its loop."""
LOOKS_AT_ONCE: Final = 16


class KeyPage(NamedTuple):
    """Some keys, in the order of the ring."""

    keys: list[bytes]
    """The clients'. Perhaps fewer than asked for, even none, though there are more."""
    resume: bytes | None
    """What to go on with; None: nothing is left."""


class KeyLists:
    """This node's side of lists of keys; see the module's docstring."""

    def __init__(self, topology: Topology, coordinator: Coordinator, replica: Replica) -> None:
        """Ask through ``coordinator``, answer from ``replica``."""
        self._topology = topology
        self._coordinator = coordinator
        self._replica = replica

    async def page(
        self,
        table: Table,
        *,
        resume: bytes | None = None,
        prefix: bytes = b"",
        most: int = PAGE_MAX,
        level: ReadLevel,
        deadline: float,
    ) -> KeyPage:
        """Return those of a page of the keys that can be read that begin with ``prefix``.

        Args:
            table: without leaders.
            resume: of the page before; None: from the beginning.
            prefix: keys are in the order of the ring, so it spares telling them, not looking at them.
            most: keys, 1 to `PAGE_MAX`.
            level: how many replicas are to be asked of each key.
            deadline: loop time.

        Raises:
            RequestError: no page of the table has ended there, or ``most`` is out of its range; else as
                `Coordinator.read_range`.
        """
        low, end = keys.table_range(table.id)
        start = low if resume is None else resume
        if not low <= start < end:
            raise RequestError("from must be what the page before told; leave it out to begin anew")
        if not 1 <= most <= PAGE_MAX:
            raise RequestError(f"limit must be 1 to {PAGE_MAX}, not {most}")
        is_new = self._topology.map.version >= LISTS_SINCE
        found = await (self._page if is_new else self._page_of_rows)(table, start, end, most, level, deadline)
        return KeyPage([key for key in found.keys if key.startswith(prefix)], found.resume)

    async def answer(self, sender: NodeId, request: ListRange) -> Rows:
        """Tell of the rows that this node holds.

        Raises:
            RefusedError, CorruptionError: as `Replica.read_range`.
        """
        read = ReadRange(
            request.map_epoch,
            request.table,
            request.start,
            request.end,
            reverse=False,
            rows_max=min(request.rows_max, PAGE_MAX),
            bytes_max=min(request.bytes_max, READ_BYTES),
        )
        page = await self._replica.read_range(sender, read)
        table = self._topology.table(request.table)
        if table is None:
            epoch = self._topology.map.epoch
            raise RefusedError(NO_SUCH_TABLE, f"no table with id {request.table} any more", map_epoch=epoch)
        return Rows(tuple([(key, _brief_of(table, key, stored)) for key, stored in page.rows]), page.is_last)

    async def _page(
        self, table: Table, start: bytes, end: bytes, most: int, level: ReadLevel, deadline: float
    ) -> KeyPage:
        async with self._coordinator.range_turns.one(deadline):
            run = await self._coordinator.ask_run(
                table,
                start,
                end,
                level=level,
                deadline=deadline,
                make=lambda epoch, low, high: ListRange(epoch, table.id, low, high, most, READ_BYTES),
            )
        if run is None:
            return KeyPage([], None)
        merged = merge_pages(run.pages, reverse=False)
        now_s = self._coordinator.wall_us() // 1_000_000
        found = [(key, briefs.is_there(told.values(), now_s)) for key, told in merged.answers]
        doubtful = [key for key, is_there in found if is_there is None]
        there = dict(zip(doubtful, await self._looked_at(table, doubtful, level, deadline), strict=True))
        resume = merged.resume if merged.resume is not None else run.high if run.high < end else None
        return KeyPage([_key_of(key) for key, is_there in found if there.get(key, is_there)], resume)

    async def _page_of_rows(
        self, table: Table, start: bytes, end: bytes, most: int, level: ReadLevel, deadline: float
    ) -> KeyPage:
        page = await self._coordinator.read_range(
            table, start, end, level=level, rows_max=most, bytes_max=READ_BYTES, deadline=deadline
        )
        is_there = reading.is_there if table.conflicts == "crdt" else bool
        return KeyPage([_key_of(key) for key, row in page.rows if is_there(row)], page.resume)

    async def _looked_at(
        self, table: Table, row_keys: Sequence[bytes], level: ReadLevel, deadline: float
    ) -> list[bool]:
        """Tell of each row whether it can be read, by a read of it, which brings replicas up that are behind."""
        turns = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def is_there(key: bytes) -> bool:
            async with turns:
                row = await self._coordinator.read(table, key, level=level, deadline=deadline)
            now_s = self._coordinator.wall_us() // 1_000_000
            return row is not None and briefs.lasts_until_s(row, table.conflicts) > now_s

        looked_at = await asyncio.gather(*map(is_there, row_keys), return_exceptions=True)
        for one in looked_at:
            if isinstance(one, BaseException):
                raise one
        return cast("list[bool]", looked_at)


def _brief_of(table: Table, key: bytes, stored: bytes) -> bytes:
    is_plain = table.conflicts != "crdt" and begins_with_a_lasting_value(stored)  # nearly all: decoding takes 10 us
    until_s = briefs.FOREVER_S if is_plain else briefs.lasts_until_s(decode_row(key, stored), table.conflicts)
    return briefs.brief(fingerprint(key, stored, 0), until_s)


def _key_of(row_key: bytes) -> bytes:
    return keys.split_row_key(row_key)[2]
