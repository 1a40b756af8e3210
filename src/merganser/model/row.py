"""What a key holds on a leaderless table, and what a write asks for.

A row is a map of cells and a row tombstone; `core.rows` gives its merge. Where conflicting writes are kept side by
side, it is a set of dotted cells and a causal context instead; `core.causal_rows` gives the merge of these.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from merganser.model.timestamp import BEGINNING, Timestamp


class Cell(msgspec.Struct, frozen=True):
    """One named value of a row, or its tombstone."""

    name: bytes
    written_at: Timestamp
    value: bytes | None
    """None marks a tombstone."""
    expires_at_s: int | None = None
    """Seconds since 1970 from which the cell reads as absent."""


class Dot(NamedTuple):
    """One event on one key, a put or a delete; the later one compares greater. No two events share one."""

    micros: int
    """When it was minted: hybrid logical time."""
    number: int
    """The node that minted it, together with ``epoch`` the *actor*."""
    epoch: int
    """The first dot that the actor minted for the key, in microseconds: 0 to ``micros``."""


class Span(NamedTuple):
    """All dots of one actor for one key from ``low`` to ``high`` microseconds, both included."""

    number: int
    epoch: int
    low: int
    high: int


Context = tuple[Span, ...]
"""Which dots were seen, as a version vector with gaps: ascending spans that neither overlap nor touch."""


class Row(msgspec.Struct, frozen=True):
    """Cells in ascending order of name, all of them later than the row tombstone."""

    cells: tuple[Cell, ...]
    deleted_at: Timestamp = BEGINNING
    """Every cell written at or before this time is gone. BEGINNING: never deleted."""
    context: Context = ()
    """Of a causal row, which is never without one, nor has it a row tombstone: each cell is named by its dot, and what
    was seen and is not among the cells has been overwritten."""


class CellWrite(msgspec.Struct, frozen=True):
    """A cell to set (or to delete, with value None)."""

    name: bytes
    value: bytes | None
    expires_at_s: int | None = None


class Mutation(msgspec.Struct, frozen=True):
    """What one write asks for, before the coordinator stamps it."""

    cells: tuple[CellWrite, ...] = ()
    """In ascending order of name, each name once."""
    deletes_row: bool = False
    """Bury everything older than this write; the cells above stay."""
    expires_at_s: int | None = None
    """Seconds since 1970 from which the whole row reads as absent. Such a write buries everything older, as
    cells it does not name would outlive the row."""
