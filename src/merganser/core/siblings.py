"""Values of a key side by side: put, delete, and what a reader sees.

A put replaces what its client has seen, which it says with the context of an earlier read, and nothing else. So values
that were put by clients who did not know of one another are *siblings*: both are read, until somebody who has read
both puts what is to be made of them. A client that always puts with the newest context it was given leaves at most
one sibling, however many others write and however late it does.

The functions here run on a replica of the key, over all that it holds, in one turn: it mints the dot.
The context that comes back from a put is what the client had seen and its own put, not what the replica held beside
it: a client that has not read its siblings must not bury them with its next put.

A delete is a put of no value: its dot says when the values it saw ended.

Source: DeCandia 2007 §4.4; Almeida 2014 §6 (``update`` and ``discard`` of dotted version vector sets).
"""

from __future__ import annotations

import msgspec

from merganser.core import causal_rows, causality
from merganser.model.row import Cell, Context, Dot, Row
from merganser.model.timestamp import BEGINNING

_NOTHING = Row(())


class Sibling(msgspec.Struct, frozen=True):
    """One value of a key."""

    value: bytes
    dot: Dot
    """Who wrote it, and when."""
    expires_at_s: int | None = None


def put(held: Row | None, dot: Dot, value: bytes | None, *, seen: Context = (), expires_at_s: int | None = None) -> Row:
    """Return ``held`` after a put of ``value`` by a client that has ``seen`` what it replaces.

    Args:
        held: all that the replica has of the key; None: nothing.
        dot: of this put, from `causality.mint` with the same arguments.
        value: None: a delete.
        seen: of the client.
        expires_at_s: seconds since 1970 from which the value reads as absent.
    """
    before = held or _NOTHING
    stays = tuple(cell for cell in before.cells if not causality.has_seen(seen, causal_rows.dot_of(cell)))
    cells = stays if value is None else _sorted((*stays, causal_rows.cell_of(b"", dot, value, expires_at_s)))
    return Row(cells, BEGINNING, causality.join(causality.with_dot(before.context, dot), seen))


def values(row: Row | None, now_s: int) -> list[Sibling]:
    """Return what is read of a key at ``now_s`` (seconds since 1970), the oldest first."""
    if row is None:
        return []
    found = [
        Sibling(cell.value, causal_rows.dot_of(cell), cell.expires_at_s)
        for cell in row.cells
        if cell.value is not None and (cell.expires_at_s is None or cell.expires_at_s > now_s)
    ]
    return sorted(found, key=lambda sibling: sibling.dot)


def seen_by_reader(row: Row | None) -> Context:
    """Return the context that goes with what is read of a key."""
    return () if row is None else row.context


def seen_by_writer(seen: Context, dot: Dot) -> Context:
    """Return the context that goes with the answer to a put by a client that had ``seen`` before."""
    return causality.join(seen, causality.only(dot))


def _sorted(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: cell.name))
