"""Deliberate bugs in tables that keep siblings; see `planting`."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.core import causal_rows, causality, rows, siblings
from merganser.core.siblings import Sibling
from merganser.model.messages import Merged
from merganser.model.row import Context, Row, Span
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.service import key_values
from merganser.service.replica import Replica
from merganser.service.sent_once import SentOnce
from merganser.storage.values import decode_row
from sim.mutations.planting import SIBLINGS, planted


@planted("siblings", mechanism=SIBLINGS, workload="siblings", nemesis="none")
def put_replaces_nothing(patch: pytest.MonkeyPatch) -> None:
    real = siblings.put
    patch.setattr(siblings, "put", lambda *args, **options: real(*args, **{**options, "seen": ()}))


@planted("siblings", mechanism=SIBLINGS, workload="carts", nemesis="none")
def dot_claims_all_before_it(patch: pytest.MonkeyPatch) -> None:
    """As an entry of a version vector does: what others put at the same time through the same node is gone."""
    real = causality.Actors.mint

    def mint(actors: causality.Actors, key: bytes, micros: int) -> Span:
        span = real(actors, key, micros)
        return span._replace(low=span.epoch)

    patch.setattr(causality.Actors, "mint", mint)


@planted("siblings", mechanism=SIBLINGS, likely=3, workload="carts", nemesis="none")
def writer_is_told_of_all_that_its_node_has_minted(patch: pytest.MonkeyPatch) -> None:
    def seen_by_writer(seen: Context, span: Span) -> Context:
        return causality.join(seen, (span._replace(low=span.epoch),))

    patch.setattr(siblings, "seen_by_writer", seen_by_writer)


@planted("siblings", mechanism=SIBLINGS, workload="siblings", nemesis="none")
def writer_forgets_what_it_had_seen(patch: pytest.MonkeyPatch) -> None:
    """Its next put leaves its own last value beside it, once that was replaced by a put of unknown outcome."""
    patch.setattr(siblings, "seen_by_writer", lambda _seen, _span: ())


@planted("siblings", mechanism=SIBLINGS, workload="carts", nemesis="none")
def reader_is_shown_the_newest_value_alone(patch: pytest.MonkeyPatch) -> None:
    real = siblings.values

    def values(row: Row | None, now_s: int) -> list[Sibling]:
        return real(row, now_s)[-1:]

    patch.setattr(siblings, "values", values)


@planted("siblings", mechanism=SIBLINGS, workload="carts", nemesis="none")
def merge_keeps_the_newest_value_alone(patch: pytest.MonkeyPatch) -> None:
    _merges(patch, lambda merged, _a, _b: max(merged.cells, key=lambda cell: cell.written_at, default=None))


@planted("siblings", mechanism=SIBLINGS, workload="siblings", nemesis="none")
def merge_keeps_what_either_holds(patch: pytest.MonkeyPatch) -> None:
    def merge(a: Row, b: Row) -> Row:
        cells = {cell.name: cell for cell in (*a.cells, *b.cells)}
        context = causality.join(a.context, b.context)
        merged = Row(tuple(cells[name] for name in sorted(cells)), BEGINNING, context)
        return a if merged == a else merged

    patch.setattr(causal_rows, "merge", merge)


@planted("siblings", "convergence", mechanism=SIBLINGS, likely=7, workload="siblings", nemesis="partitions")
def merge_forgets_what_the_other_has_seen(patch: pytest.MonkeyPatch) -> None:
    """What was replaced on one replica comes back from another."""
    real = causal_rows.merge

    def merge(a: Row, b: Row) -> Row:
        merged = real(a, b)
        context = a.context
        for cell in merged.cells:
            context = causality.join(context, causality.only(causal_rows.dot_of(cell)))
        return a if (merged.cells, context) == (a.cells, a.context) else Row(merged.cells, BEGINNING, context)

    patch.setattr(causal_rows, "merge", merge)


@planted("siblings", mechanism=SIBLINGS, likely=20, workload="siblings", seeds_max=60, hot_keys=1)
def put_goes_out_again_under_a_later_dot(patch: pytest.MonkeyPatch) -> None:
    """As a plain write does that a replica holds something newer than."""
    merge, stamped, row = Replica._merge, SentOnce.stamped, key_values._Putting.row

    def outranked(replica: Replica, *args: Any) -> Merged:
        held = decode_row(args[2], args[3])
        merge(replica, *args)
        return Merged(rows.newest(held)) if rows.newest(held) >= rows.newest(args[4]) else Merged()

    def stamped_again(once: SentOnce, timestamp: Timestamp) -> Row:
        once.has_begun = False
        return stamped(once, timestamp)

    def row_again(putting: Any, timestamp: Timestamp) -> Row:
        made: Row = row(putting, timestamp)
        putting._span = None
        return made

    patch.setattr(Replica, "_merge", outranked)
    patch.setattr(SentOnce, "stamped", stamped_again)
    patch.setattr(key_values._Putting, "row", row_again)


def _merges(patch: pytest.MonkeyPatch, keep: Any) -> None:
    """Have `causal_rows.merge` keep one cell of what it should keep."""
    real = causal_rows.merge

    def merge(a: Row, b: Row) -> Row:
        merged = real(a, b)
        kept = keep(merged, a, b)
        cells = () if kept is None else (kept,)
        return a if (cells, merged.context) == (a.cells, a.context) else Row(cells, BEGINNING, merged.context)

    patch.setattr(causal_rows, "merge", merge)
