"""How two copies of a causal row become one: what one of them has seen and does not hold was overwritten.

A causal row is a set of dotted cells and a context (`core.causality`). Of two copies, a cell stays if both hold it, or
if one holds it and the other has never seen its dot; the context is that of both. So a write that saw a value
replaces it everywhere, and two writes that did not see one another stay side by side, whatever their timestamps are.

A cell's name is a path (empty for plain siblings) and then the cell's dot, so that no two events share a name.

Events make a context grow and nothing takes from it but `purged`, once a horizon (`core.horizon`) has passed the
*newest* event of the row: everything that ever happened to it is then on every replica, so what was overwritten
is gone everywhere. An older event by itself is no reason: the event that overwrote it may not have arrived everywhere.

Invariants: each cell's dot is in the context; a row of no cells is a tombstone; the cell of one dot is the same
everywhere (if a peer is at fault the greater bytes win, so that `merge` stays a lattice).

Source: Almeida 2014 §6 (dotted version vector sets); Almeida, Shoker, Baquero 2018, "Delta State Replicated Data
Types", §7.2 (causal CRDTs: a dot store and a causal context, and their join).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from merganser.core import causality
from merganser.model.row import Cell, Context, Dot, Row
from merganser.model.timestamp import BEGINNING, Timestamp

_DOT = struct.Struct(">QIQ")
DOT_BYTES = _DOT.size


def name_of(path: bytes, dot: Dot) -> bytes:
    """Return the name of the cell that ``dot`` wrote at ``path``."""
    return path + _DOT.pack(*dot)


def dot_of(cell: Cell) -> Dot:
    """Return the dot of a cell."""
    return Dot(*_DOT.unpack_from(cell.name, len(cell.name) - DOT_BYTES))


def path_of(cell: Cell) -> bytes:
    """Return what stands before the dot in a cell's name."""
    return cell.name[:-DOT_BYTES]


def cell_of(path: bytes, dot: Dot, value: bytes, expires_at_s: int | None = None) -> Cell:
    """Return the cell that ``dot`` writes at ``path``."""
    return Cell(name_of(path, dot), Timestamp(dot.micros, dot.number), value, expires_at_s)


def merge(a: Row, b: Row) -> Row:
    """Return the least causal row that covers both; ``a`` itself if it covers ``b``."""
    theirs = {cell.name: cell for cell in b.cells}
    kept: dict[bytes, Cell] = {}
    for cell in a.cells:
        other = theirs.pop(cell.name, None)
        if other is not None:
            kept[cell.name] = other if _rank(other) > _rank(cell) else cell
        elif not causality.has_seen(b.context, dot_of(cell)):
            kept[cell.name] = cell
    kept |= {name: cell for name, cell in theirs.items() if not causality.has_seen(a.context, dot_of(cell))}
    context = causality.join(a.context, b.context)
    cells = tuple(kept[name] for name in sorted(kept))
    if cells == a.cells and context is a.context:
        return a
    return b if cells == b.cells and context == b.context else Row(cells, BEGINNING, context)


def purged(row: Row, cells: tuple[Cell, ...], horizon_us: int) -> Row | None:
    """Return ``row`` with ``cells`` of it alone, and without what it has seen and nothing can come back of.

    The same object if there is nothing to drop; None if nothing is left.
    """
    context = row.context
    if causality.newest_us(context) <= horizon_us:
        context = _with_cells(context, cells)
        if not context:
            return None
    return row if cells is row.cells and context is row.context else Row(cells, BEGINNING, context)


def later(row: Row, horizon_us: int, *, stays: Callable[[Cell], bool] = lambda _cell: False) -> Row | None:
    """Return what ``row`` says of the time after ``horizon_us``, and what it says was overwritten.

    Of an older cell it says nothing any more, not even that it was ever seen, unless the cell ``stays``: it contains
    others, which the row says were overwritten. None if nothing is left.
    """
    old = {cell.name: cell for cell in row.cells if cell.written_at.micros <= horizon_us and not stays(cell)}
    if not old:
        return row
    context = causality.without(row.context, map(dot_of, old.values()))
    if not context:
        return None
    return Row(tuple(cell for cell in row.cells if cell.name not in old), BEGINNING, context)


def flaw_of(row: Row) -> str:
    """Return what makes ``row`` no causal row, in words; empty if it is one."""
    flaw = causality.flaw_of(row.context)
    if flaw:
        return f"its context {flaw}"
    for cell in row.cells:
        if len(cell.name) < DOT_BYTES or not causality.has_seen(row.context, dot_of(cell)):
            return f"cell {cell.name[:64].hex()} has no dot of the context"
        if cell.written_at != dot_of(cell)[:2]:
            return f"cell {cell.name[:64].hex()} was not written at the time of its dot"
    return ""


def _with_cells(context: Context, cells: tuple[Cell, ...]) -> Context:
    """Return the spans that hold the dot of a cell; ``context`` itself if all do."""
    dots = [dot_of(cell) for cell in cells]
    needed = tuple(span for span in context if any(causality.has_seen((span,), dot) for dot in dots))
    return context if needed == context else needed


def _rank(cell: Cell) -> tuple[float, bytes]:
    return math.inf if cell.expires_at_s is None else cell.expires_at_s, cell.value or b""
