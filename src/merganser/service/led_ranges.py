"""Consistent reads of ranges at a leader: of rows, or of a local index.

::

    covered (first touches) --> page, as of one turn of the loop --> epoch confirmed, writes in flight chosen --> values

Of an index, whole item collections are covered and waited for: an item that is not known yet, or whose write is under
way, may come into the page from anywhere among the items of its partition key, or leave it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, UnavailableError
from merganser.model.leader_messages import Led, LedRows, ReadRangeLed
from merganser.model.register import Register
from merganser.service.first_touches import PAGE_ROWS, FirstTouches, Term
from merganser.service.in_flight import Proposal
from merganser.service.intents import Gone
from merganser.service.local_indexes import LocalIndexes
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, plain_value

LOOKS_MAX = 16
"""How often a page meets a damaged register, or an item that moves meanwhile, before it gives up."""


class HeldPage(NamedTuple):
    """What a leader holds of a range, as of one turn of the loop."""

    found: list[tuple[bytes, Register | bytes]]
    """By the keys of rows, or the entries of an index, in the order asked for; only the value of a plain register."""
    resume: bytes | None
    """Where it goes on; None: at the end, or nowhere."""
    damaged: bytes | None
    """The key of a damaged register, at which it stops."""


class LedRanges:
    """Pages of what this node leads; see the module's docstring."""

    def __init__(
        self,
        engine: Engine,
        touches: FirstTouches,
        local: LocalIndexes,
        *,
        confirmed: Callable[[Term], Awaitable[None]],
        chosen: Callable[[Term, Proposal], Awaitable[None]],
        value: Callable[[Table, bytes, Register], Awaitable[bytes | Gone | None]],
        read: Callable[[Term, Table, bytes], Awaitable[Led]],
    ) -> None:
        """Read what ``engine`` holds.

        Args:
            engine: holds the registers of this node.
            touches: makes known what is not.
            local: the local indexes.
            confirmed: returns once a majority has said that the epoch stands.
            chosen: returns once a write is.
            value: of an item whose register was looked at.
            read: reads one item anew.
        """
        self._engine = engine
        self._touches = touches
        self._local = local
        self._confirmed = confirmed
        self._chosen = chosen
        self._value = value
        self._read = read

    async def read(self, term: Term, table: Table, request: ReadRangeLed) -> LedRows:
        """Return a page of a range within one partition.

        Raises:
            RefusedError: the epoch does not stand.
            UnavailableError: the items are not known, or the epoch not confirmed, in time.
            CorruptionError: this node cannot read what it holds.
        """
        end = request.end
        if not self._touches.place(term, table).is_whole:
            end = await self._cover(term, table, request)
        for _ in range(LOOKS_MAX):
            page = self._held(request, end)
            if page.damaged is not None:
                await self._touches.touch(term, table, page.damaged)
                continue
            in_flight = term.flight.within(*self._rows_of(request, end))
            await self._confirmed(term)
            for proposal in in_flight:
                await self._chosen(term, proposal)
            rows = await self._values(term, table, page, is_indexed=request.index is not None)
            if rows is not None:
                resume = end if page.resume is None and end < request.end else page.resume
                return LedRows(rows, resume)
        raise UnavailableError("the range cannot be read here, or moves again and again; try again")

    async def _cover(self, term: Term, table: Table, request: ReadRangeLed) -> bytes:
        """Make known where the page begins; returns how far: to the end, if it is read from there."""
        covered, end = self._rows_of(request, request.end)
        start = covered
        rows_max = PAGE_ROWS  # a short page of an index may rest on a long collection
        if request.index is None:
            rows_max = request.rows_max
        while covered < end:
            covered = await self._touches.cover(term, table, covered, end, rows_max=rows_max)
            if request.reverse:
                continue
            if request.index is None:
                return covered
            whole = keys.collection_of(covered)  # all before it is known; of it, perhaps only a part
            if start < whole < end:
                return min(whole, request.end)
        return request.end

    def _rows_of(self, request: ReadRangeLed, end: bytes) -> tuple[bytes, bytes]:
        """Return the range of rows that a page up to ``end`` depends on."""
        return (request.start, end) if request.index is None else keys.collections_between(request.start, end)

    def _held(self, request: ReadRangeLed, end: bytes) -> HeldPage:
        if request.index is None:
            return page_of(self._engine, request, end=end)
        page = self._local.page(
            request.start,
            end,
            index=request.index,
            reverse=request.reverse,
            rows_max=request.rows_max,
            bytes_max=request.bytes_max,
        )
        found: list[tuple[bytes, Register | bytes]] = []
        for entry, stored in page.found:
            key = keys.row_of(entry)
            try:
                found.append((entry, decode_register(key, stored)))
            except CorruptionError:
                return HeldPage(found, None, key)
        return HeldPage(found, page.resume, None)

    async def _values(
        self, term: Term, table: Table, page: HeldPage, *, is_indexed: bool
    ) -> tuple[tuple[bytes, bytes], ...] | None:
        """Return the items that are there; of an index, those that stand where they were found, each once.

        None if one has moved in the index since the page was made: it may stand in the page where it was not then.
        """
        rows: list[tuple[bytes, bytes]] = []
        resolved: dict[bytes, bytes | None] = {}
        moved: dict[bytes, None] = {}
        for at, head in page.found:
            if isinstance(head, bytes):
                rows.append((at, head))
                continue
            if head.content.intent is None:
                if head.value is not None:
                    rows.append((at, head.value))
                continue
            key = keys.row_of(at) if is_indexed else at
            if key not in resolved:
                value = await self._value(table, key, head)
                if isinstance(value, Gone):  # the transaction is over, and what came after it is read
                    value = (await self._read(term, table, key)).value
                    moved[key] = None
                resolved[key] = value
            value = resolved[key]
            if value is not None and (not is_indexed or self._local.stands(table, at, value)):
                rows.append((at, value))
                moved.pop(key, None)
        is_lacking = is_indexed and any(resolved[key] is not None for key in moved)
        return None if is_lacking else tuple(rows)


def page_of(engine: Engine, request: ReadRangeLed, *, end: bytes) -> HeldPage:
    """Return keys and registers from the start of ``request`` up to ``end``, in its order and within its bounds.

    At least one register, if there is any.

    Raises:
        CorruptionError: the engine cannot read on.
    """
    page: list[tuple[bytes, Register | bytes]] = []
    bytes_left, rows_max = request.bytes_max, request.rows_max
    for key, stored in engine.scan(request.start, end, reverse=request.reverse):
        if page and (len(page) >= rows_max or bytes_left <= 0):
            return HeldPage(page, page[-1][0] if request.reverse else key, None)
        head: Register | bytes | None = plain_value(key, stored)
        if head is None:
            try:
                head = decode_register(key, stored)
            except CorruptionError:
                return HeldPage(page, None, key)
        page.append((key, head))
        bytes_left -= len(key) + len(stored)
    return HeldPage(page, None, None)
