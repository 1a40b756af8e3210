"""What a key holds on a leaderless table, and what a write asks for.

A row is a map of cells and a row tombstone; `core.rows` gives its merge.
"""

from __future__ import annotations

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


class Row(msgspec.Struct, frozen=True):
    """Cells in ascending order of name, all of them later than the row tombstone."""

    cells: tuple[Cell, ...]
    deleted_at: Timestamp = BEGINNING
    """Every cell written at or before this time is gone. BEGINNING: never deleted."""


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
