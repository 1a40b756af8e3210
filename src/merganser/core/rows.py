"""How two copies of a row become one, and what a reader sees of it.

A row is a lattice: per cell the later write wins, row tombstones take the later time, and a cell written at
or before the row tombstone is gone. Replicas that merged the same writes, in any order and any
number of times, hold equal rows.

Order of two writes to one cell: by timestamp (microseconds, then writer), so that of two writers in one
microsecond the higher number wins every cell that both wrote. One node never mints a timestamp twice, so
equal timestamps mean equal cells unless a peer is at fault; `merge` must still be a lattice then, so at equal
timestamps a tombstone beats a value, the later expiry beats the earlier, never expiring is the latest
of all, and the greater bytes win.

A write that replaces the row buries everything older than itself: its row tombstone is the timestamp right
before its own (same microsecond, writer less one), and so spares its own cells and nothing older. Two
replacements in one microsecond do not interleave either: the tombstone of the higher writer reaches up to
and over the whole row of the lower one.

Expiry is a matter of reading only: `merge` knows no clock, so an expired cell stays, and wins over older
cells. A row that expires as a whole is one written whole, each cell with that expiry. (An expiry beside the cells,
to be set anew, would raise the dead: set once more after it has passed, it lets old cells be read again.)

`purged` is where tombstones and what has expired end, up to a horizon (`core.horizon` says when that is safe).
It knows no clock either: an expiry counts once the horizon has passed it, so equal rows stay equal.

Rows with a causal context are told in `core.causal_rows`; what is said here of merging is true of them, too.

Invariants: cells in ascending order of name, each name once, all later than the row tombstone.

Source: Shapiro 2011, "Conflict-free Replicated Data Types", §2.2 (state-based convergence), LWW-register;
DeCandia 2007 §4.4 (time-stamp based reconciliation).
"""

from __future__ import annotations

import math
from itertools import pairwise

from merganser.core import causal_rows, causality
from merganser.core.crdt import counters
from merganser.model.row import Cell, CellWrite, Mutation, Row
from merganser.model.timestamp import BEGINNING, Timestamp

_WRITER_MAX = 2**32 - 1


def merge(a: Row, b: Row) -> Row:
    """Return the least row that covers both; ``a`` itself if it covers ``b``."""
    if a.context or b.context:
        return causal_rows.merge(a, b)
    deleted_at = a.deleted_at if a.deleted_at >= b.deleted_at else b.deleted_at
    cells = _merged_cells(_surviving(a.cells, deleted_at), _surviving(b.cells, deleted_at))
    if cells is a.cells and deleted_at == a.deleted_at:
        return a
    return b if cells is b.cells and deleted_at == b.deleted_at else Row(cells, deleted_at)


def covers(a: Row, b: Row) -> bool:
    """Tell whether ``a`` holds everything that ``b`` says, so that merging ``b`` in would change nothing."""
    return merge(a, b) is a


def stamp(mutation: Mutation, timestamp: Timestamp) -> Row:
    """Return the row that ``mutation`` amounts to when written at ``timestamp``."""
    writes = mutation.cells
    assert len(writes) < 2 or all(one.name < other.name for one, other in pairwise(writes)), "names ascend"
    if mutation.expires_at_s is not None:
        return Row(_expiring(writes, timestamp, mutation.expires_at_s), _right_before(timestamp))
    cells = tuple([Cell(write.name, timestamp, write.value, write.expires_at_s) for write in writes])
    return Row(cells, _right_before(timestamp) if mutation.deletes_row else BEGINNING)


def live_value(row: Row, name: bytes, now_s: int) -> bytes | None:
    """Return the value that ``name`` reads as at ``now_s`` (seconds since 1970), None if it is absent."""
    for cell in row.cells:
        if cell.name == name:
            return cell.value if _is_live(cell, now_s) else None
    return None


def live_cells(row: Row, now_s: int) -> tuple[Cell, ...]:
    """Return the cells that can be read at ``now_s``, in ascending order of name."""
    return tuple(cell for cell in row.cells if _is_live(cell, now_s))


def is_tombstone(row: Row, now_s: int) -> bool:
    """Tell whether nothing of the row can be read at ``now_s``, be it deleted, expired or never written."""
    return not any(_is_live(cell, now_s) for cell in row.cells)


def newest(row: Row) -> Timestamp:
    """Return the latest timestamp in the row; BEGINNING if it was never written."""
    cells = row.cells
    if row.context:
        return max(Timestamp(span.high, span.number) for span in row.context)
    if len(cells) == 1:  # nearly every row
        return cells[0].written_at
    return max((cell.written_at for cell in cells), default=row.deleted_at)


def oldest_us(row: Row) -> int:
    """Return the time of the earliest event that the row tells of, in microseconds; 2**63 - 1 if it tells of none."""
    if row.context:
        return causality.oldest_us(row.context)
    stamps = [cell.written_at for cell in row.cells]
    if row.deleted_at != BEGINNING:
        stamps.append(row.deleted_at)
    return min(stamps).micros if stamps else 2**63 - 1


def purged(row: Row, horizon_us: int) -> Row | None:
    """Return ``row`` without what is deleted or has expired up to ``horizon_us``; None if nothing is left.

    The same object if there is nothing to drop. Nothing changes of what can be read from the horizon on.
    """
    cells = row.cells
    if any(is_over(cell, horizon_us) for cell in cells):
        cells = tuple(cell for cell in cells if not is_over(cell, horizon_us))
    if row.context:
        return causal_rows.purged(row, counters.folded(cells, horizon_us), horizon_us)
    deleted_at = BEGINNING if row.deleted_at.micros <= horizon_us else row.deleted_at
    if not cells and deleted_at == BEGINNING:
        return None
    return row if cells is row.cells and deleted_at == row.deleted_at else Row(cells, deleted_at)


def is_over(cell: Cell, horizon_us: int) -> bool:
    """Tell whether the cell was written, and then deleted or expired, by the horizon."""
    if cell.written_at.micros > horizon_us:
        return False
    return cell.value is None or (cell.expires_at_s is not None and cell.expires_at_s * 1_000_000 <= horizon_us)


def _expiring(writes: tuple[CellWrite, ...], timestamp: Timestamp, row_expires_at_s: int) -> tuple[Cell, ...]:
    """Return the cells of a row that expires as a whole; one that expires earlier still does."""
    return tuple(
        Cell(
            write.name,
            timestamp,
            write.value,
            row_expires_at_s if write.expires_at_s is None else min(write.expires_at_s, row_expires_at_s),
        )
        for write in writes
    )


def _merged_cells(ours: tuple[Cell, ...], theirs: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return the later cell of each name: ``ours`` or ``theirs`` itself where that says it all."""
    if not theirs or not ours:
        return ours or theirs
    if len(ours) == 1 == len(theirs) and ours[0].name == theirs[0].name:  # a whole item in one cell: no need to sort
        return theirs if _is_later(theirs[0], ours[0]) else ours
    by_name = {cell.name: cell for cell in ours}
    taken = 0
    for cell in theirs:
        other = by_name.get(cell.name)
        if other is None or _is_later(cell, other):
            by_name[cell.name] = cell
            taken += 1
    if not taken:
        return ours
    if taken == len(theirs) == len(by_name):
        return theirs
    return tuple(by_name[name] for name in sorted(by_name))


def _surviving(cells: tuple[Cell, ...], deleted_at: Timestamp) -> tuple[Cell, ...]:
    """Return the cells later than the row tombstone: ``cells`` itself if all are."""
    for cell in cells:
        if cell.written_at <= deleted_at:
            return tuple(cell for cell in cells if cell.written_at > deleted_at)
    return cells


def _is_later(cell: Cell, other: Cell) -> bool:
    """Tell whether ``cell`` wins over ``other``; false when they are equal."""
    if cell.written_at != other.written_at:
        return cell.written_at > other.written_at
    return _rank(cell) > _rank(other)


def _rank(cell: Cell) -> tuple[bool, float, bytes]:
    """Order cells of one timestamp: distinct cells have distinct ranks."""
    expires_at_s = math.inf if cell.expires_at_s is None else cell.expires_at_s
    return cell.value is None, expires_at_s, cell.value or b""


def _is_live(cell: Cell, now_s: int) -> bool:
    return cell.value is not None and (cell.expires_at_s is None or cell.expires_at_s > now_s)


def _right_before(timestamp: Timestamp) -> Timestamp:
    """Return the latest timestamp that is earlier."""
    if timestamp.writer > 0:
        return Timestamp(timestamp.micros, timestamp.writer - 1)
    return Timestamp(timestamp.micros - 1, _WRITER_MAX)
