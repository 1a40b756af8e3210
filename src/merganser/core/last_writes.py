"""Values of which the last write wins, with the same interface as siblings (`core.siblings`).

A row has one cell, of one name, so that each write takes the place of the one before whatever is said about either. The
context of a read, and of a write, has seen that one write: a dot whose actor is born with it. A put with a context is
later than all that context has seen, whatever the clocks show; what else it takes the place of, time alone decides.

Source: DeCandia 2007 §4.4, time-stamp based reconciliation.
"""

from __future__ import annotations

from merganser.core import causality, contents, rows
from merganser.core.siblings import Sibling, sibling_of
from merganser.model.contents import Content
from merganser.model.row import CellWrite, Context, Dot, Mutation, Row
from merganser.model.timestamp import Timestamp

NAME = contents.DESCRIBED
"""Of the cell, and the kind of what is in it."""


def mutation(content: Content | None, expires_at_s: int | None) -> Mutation:
    """Return what a put of ``content`` amounts to; None: a delete."""
    value = None if content is None else contents.described(content)
    return Mutation((CellWrite(NAME, value, expires_at_s),))


def values(row: Row | None, now_s: int) -> list[Sibling]:
    """Return what is read of a key at ``now_s`` (seconds since 1970): one value, or none.

    Raises:
        CorruptionError: what is said about the value makes no sense.
    """
    if row is None:
        return []
    return [
        sibling_of(NAME, cell, cell.value, _dot_of(cell.written_at))
        for cell in rows.live_cells(row, now_s)
        if cell.name == NAME and cell.value is not None
    ]


def seen_by_reader(row: Row | None) -> Context:
    """Return the context that goes with what is read of a key, be it a tombstone."""
    return () if row is None or not row.cells else seen_by_writer(rows.newest(row))


def seen_by_writer(timestamp: Timestamp) -> Context:
    """Return the context that goes with the answer to a write of ``timestamp``."""
    return causality.only(_dot_of(timestamp))


def newest(seen: Context) -> Timestamp:
    """Return the last write that was seen; the context is not empty."""
    return max(Timestamp(span.high, span.number) for span in seen)


def _dot_of(timestamp: Timestamp) -> Dot:
    return Dot(timestamp.micros, timestamp.writer, timestamp.micros)
