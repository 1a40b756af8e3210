"""Values of a key side by side: put, delete, and what a reader sees.

A put replaces what its client has seen, which it says with the context of an earlier read, and nothing else. So values
that were put by clients who did not know of one another are *siblings*: both are read, until somebody who has read
both puts what is to be made of them. A client that always puts with the newest context it was given leaves at most
one sibling, however many others write and however late it does.

A put is a row by itself (`put`): its value and the context that says what it replaces. Replicas merge it into what they
hold, in any order. The context that comes back from it is what the client had seen and its own put, not what replicas
hold beside it: a client that has not read its siblings must not bury them with its next put.

A delete is a put of no value: its dot says when the values it saw ended.

Source: DeCandia 2007 §4.4; Almeida 2014 §6 (``update`` and ``discard`` of dotted version vector sets).
"""

from __future__ import annotations

import msgspec

from merganser.core import causal_rows, causality, contents
from merganser.model.contents import Content, Tag
from merganser.model.row import Cell, Context, Dot, Row, Span
from merganser.model.timestamp import BEGINNING


class Sibling(msgspec.Struct, frozen=True):
    """One value of a key."""

    value: bytes
    dot: Dot
    """Who wrote it, and when."""
    expires_at_s: int | None = None
    content_type: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[Tag, ...] = ()
    client: str = ""


def put(
    span: Span,
    value: bytes | None,
    *,
    kind: bytes = contents.PLAIN,
    seen: Context = (),
    expires_at_s: int | None = None,
) -> Row:
    """Return the row that a put of ``value`` amounts to, to be merged into what is held.

    Args:
        span: minted for this put (`causality.Actors`).
        value: None: a delete.
        kind: of the cell that holds the value (`core.contents`).
        seen: by the client; it replaces that.
        expires_at_s: seconds since 1970 from which the value reads as absent.
    """
    cells = () if value is None else (causal_rows.cell_of(kind, causality.dot_of(span), value, expires_at_s),)
    return Row(cells, BEGINNING, causality.join(seen, (span,)))


def values(row: Row | None, now_s: int) -> list[Sibling]:
    """Return what is read of a key at ``now_s`` (seconds since 1970), the oldest first.

    Raises:
        CorruptionError: a value is of a kind that is not known here.
    """
    if row is None:
        return []
    found = [
        sibling_of(causal_rows.path_of(cell), cell, cell.value, causal_rows.dot_of(cell))
        for cell in row.cells
        if cell.value is not None and (cell.expires_at_s is None or cell.expires_at_s > now_s)
    ]
    return sorted(found, key=lambda sibling: sibling.dot)


def sibling_of(kind: bytes, cell: Cell, value: bytes, dot: Dot) -> Sibling:
    """Return what is read of a cell; raises as `contents.unpacked`."""
    told: Content = contents.unpacked(kind, value)
    return Sibling(told.value, dot, cell.expires_at_s, told.content_type, told.metadata, told.tags, told.client)


def seen_by_reader(row: Row | None) -> Context:
    """Return the context that goes with what is read of a key."""
    return () if row is None else row.context


def seen_by_writer(seen: Context, span: Span) -> Context:
    """Return the context that goes with the answer to a put of ``span`` by a client that had ``seen`` before."""
    return causality.join(seen, (span,))
