"""Siblings: against the model of `sibling_walk`, with planted bugs, and sentences for what clients are told."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sibling_walk import KEY, Replica, Walk
from merganser.core import causal_rows, causality, rows, siblings
from merganser.model.row import Context, Dot, Row, Span
from merganser.model.timestamp import BEGINNING

SEEDS = 40


@pytest.mark.parametrize("has_purges", [False, True], ids=["disks are put back", "purges run"])
def test_replicas_read_what_sets_of_events_read(has_purges: bool) -> None:
    for seed in range(SEEDS):
        walk = Walk(seed, has_purges=has_purges)
        assert walk.run() is None, f"seed {seed}"


def test_walks_purge_and_lose_and_conflict() -> None:
    """Or the test above would prove little."""
    walks = [Walk(seed, has_purges=True) for seed in range(SEEDS)]
    for walk in walks:
        walk.run()
    assert sum(walk.rounds for walk in walks) > 60
    assert sum(walk.purged_whole for walk in walks) > 5
    assert any(len(siblings.values(replica.row, 0)) > 2 for walk in walks for replica in walk.replicas)


# Planted bugs


class MintsFromWhatIsOnTheDisk(Walk):
    """The disk may have been put back, and the last dot forgotten."""

    def mint(self, replica: Replica) -> Span:
        mine = [span for span in _context(replica.row) if span.number == replica.number]
        if not mine:
            return replica.actors.mint(KEY, self.now_us)
        last = max(mine, key=lambda span: span.high)
        return Span(replica.number, last.epoch, last.high + 1, self.now_us)


class ClaimsAllBeforeItsDot(Walk):
    """As a version vector does, whatever the node has forgotten."""

    def mint(self, replica: Replica) -> Span:
        return Span(replica.number, 0, 0, self.now_us)


class PutIgnoresTheContext(Walk):
    def put(self, replica: Replica, span: Span, value: bytes | None, seen: Context) -> Row:
        return siblings.put(span, value)


class PutReplacesAllThatTheReplicaHolds(Walk):
    def put(self, replica: Replica, span: Span, value: bytes | None, seen: Context) -> Row:
        return siblings.put(span, value, seen=causality.join(seen, _context(replica.row)))


class DeleteMintsNoDot(Walk):
    def put(self, replica: Replica, span: Span, value: bytes | None, seen: Context) -> Row:
        row = siblings.put(span, value, seen=seen)
        return row if value is not None or not seen else Row((), BEGINNING, seen)


class WriterIsToldAllThatTheReplicaHolds(Walk):
    def seen_by_writer(self, replica: Replica, seen: Context, span: Span) -> Context:
        return _context(replica.row)


class WriterIsToldOfNothingButItsPut(Walk):
    def seen_by_writer(self, replica: Replica, seen: Context, span: Span) -> Context:
        return (span,)


class ReaderIsToldOfLiveValuesOnly(Walk):
    def seen_by_reader(self, row: Row | None) -> Context:
        found: Context = ()
        for sibling in siblings.values(row, 0):
            found = causality.join(found, causality.only(sibling.dot))
        return found


class ContextAsAVersionVector(Walk):
    """A dot says that all before it were seen."""

    def seen_by_writer(self, replica: Replica, seen: Context, span: Span) -> Context:
        return causality.join(seen, (span._replace(low=span.epoch),))


class MergeKeepsWhatEitherHolds(Walk):
    def merge(self, held: Row, incoming: Row) -> Row:
        cells = {cell.name: cell for cell in (*held.cells, *incoming.cells)}
        context = causality.join(held.context, incoming.context)
        return Row(tuple(cells[name] for name in sorted(cells)), BEGINNING, context)


class MergeKeepsTheLaterValue(Walk):
    def merge(self, held: Row, incoming: Row) -> Row:
        merged = rows.merge(held, incoming)
        latest = max(merged.cells, key=lambda cell: cell.written_at, default=None)
        return Row(() if latest is None else (latest,), BEGINNING, merged.context)


class MergeForgetsTheOtherContext(Walk):
    def merge(self, held: Row, incoming: Row) -> Row:
        merged = rows.merge(held, incoming)
        mine = causality.join(held.context, _dots(merged))
        return Row(merged.cells, BEGINNING, mine)


class PurgesSpansWhileTheRowIsYoung(Walk):
    def purged(self, row: Row, horizon_us: int) -> Row | None:
        context = tuple(span for span in row.context if span.high > horizon_us)
        context = causality.join(context, _dots(row))
        return Row(row.cells, BEGINNING, context) if context else None


class PurgesBeforeTheHorizon(Walk):
    def purged(self, row: Row, horizon_us: int) -> Row | None:
        return rows.purged(row, self.now_us)


class TakesOldCopiesBehindTheHorizon(Walk):
    def taken(self, replica: Replica, incoming: Row, vouched_us: int) -> Row | None:
        return incoming


class LaterPartKeepsItsContext(Walk):
    """An old cell that is not taken is not one that was overwritten."""

    def taken(self, replica: Replica, incoming: Row, vouched_us: int) -> Row | None:
        part = super().taken(replica, incoming, vouched_us)
        return (
            part if part is None or vouched_us >= replica.horizon_us else Row(part.cells, BEGINNING, incoming.context)
        )


ON_OLD_DISKS = (
    MintsFromWhatIsOnTheDisk,
    ClaimsAllBeforeItsDot,
    PutIgnoresTheContext,
    PutReplacesAllThatTheReplicaHolds,
    WriterIsToldAllThatTheReplicaHolds,
    WriterIsToldOfNothingButItsPut,
    ReaderIsToldOfLiveValuesOnly,
    ContextAsAVersionVector,
    MergeKeepsWhatEitherHolds,
    MergeKeepsTheLaterValue,
    MergeForgetsTheOtherContext,
    DeleteMintsNoDot,
)
WITH_PURGES = (
    PurgesSpansWhileTheRowIsYoung,
    PurgesBeforeTheHorizon,
    TakesOldCopiesBehindTheHorizon,
    LaterPartKeepsItsContext,
)


@pytest.mark.parametrize(
    ("bug", "has_purges"),
    [*((bug, False) for bug in ON_OLD_DISKS), *((bug, True) for bug in WITH_PURGES)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_bug_is_found(bug: Callable[..., Walk], has_purges: bool) -> None:
    assert any(bug(seed, has_purges=has_purges).run() for seed in range(SEEDS))


def _context(row: Row | None) -> Context:
    return () if row is None else row.context


def _dots(row: Row) -> Context:
    found: Context = ()
    for cell in row.cells:
        found = causality.join(found, causality.only(causal_rows.dot_of(cell)))
    return found


# What clients see


def test_two_blind_puts_are_siblings_and_a_put_that_saw_both_replaces_them() -> None:
    row = rows.merge(put(5, b"a"), put(6, b"b"))
    assert _values(row) == [b"a", b"b"]
    row = rows.merge(row, put(7, b"ab", seen=siblings.seen_by_reader(row)))
    assert _values(row) == [b"ab"]


def test_a_client_that_keeps_its_context_leaves_one_sibling_however_stale_it_is() -> None:
    """The explosion that version vectors of servers suffer from: clients take turns, each with its own last context."""
    dice = random.Random(7)
    actors = [causality.Actors(1), causality.Actors(2)]
    row = Row(())
    seen: list[Context] = [(), (), ()]
    for micros in range(1, 200):
        client = dice.randrange(3)
        span = dice.choice(actors).mint(KEY, micros)
        row = rows.merge(row, siblings.put(span, b"%d" % micros, seen=seen[client]))
        seen[client] = siblings.seen_by_writer(seen[client], span)
        assert len(row.cells) <= 3
        assert len(row.context) <= 2
    assert len(row.cells) == 3


def test_a_delete_takes_only_what_its_client_saw() -> None:
    row = put(5, b"a")
    seen = siblings.seen_by_reader(row)
    row = rows.merge(row, put(6, b"b"))
    row = rows.merge(row, put(7, None, seen=seen))
    assert _values(row) == [b"b"]


def test_a_deleted_key_is_gone_once_the_horizon_has_passed_and_no_earlier() -> None:
    row = put(5, b"a")
    row = rows.merge(row, put(9, None, seen=siblings.seen_by_reader(row)))
    assert rows.is_tombstone(row, 0)
    assert rows.purged(row, 8) is row
    assert rows.purged(row, 9) is None


def test_actors_of_earlier_lives_leave_with_the_horizon() -> None:
    row = Row(())
    for life in range(1, 50):
        span = causality.Actors(1).mint(KEY, 10 * life)
        row = rows.merge(row, siblings.put(span, b"%d" % life, seen=row.context))
    assert len(causality.actors(row.context)) == 49
    left = rows.purged(row, 490)
    assert left is not None
    assert left.cells == row.cells
    assert len(causality.actors(left.context)) == 1


def test_a_value_that_has_expired_is_not_read_and_still_counts_as_seen() -> None:
    row = siblings.put(Span(1, 5, 5, 5), b"a", expires_at_s=100)
    assert _values(row) == []
    assert [sibling.value for sibling in siblings.values(row, 99)] == [b"a"]
    assert causality.has_seen(siblings.seen_by_reader(row), Dot(5, 1, 5))


# The laws, on rows that need not have come about


dots = st.builds(lambda low, more, number: Dot(low + more, number, low), *[st.integers(0, 2)] * 2, st.integers(1, 2))
spans = st.builds(
    lambda number, epoch, low, more: Span(number, epoch, epoch + low, epoch + low + more),
    st.integers(1, 2),
    *[st.integers(0, 2)] * 3,
)


def valid_row(seen: list[Dot], live: list[Dot], values: list[bytes]) -> Row:
    context: Context = ()
    for dot in (*seen, *live):
        context = causality.join(context, causality.only(dot))
    cells = {dot: causal_rows.cell_of(b"", dot, value) for dot, value in zip(live, values, strict=False)}
    return Row(tuple(sorted(cells.values(), key=lambda cell: cell.name)), BEGINNING, context)


some_rows = st.builds(
    valid_row,
    st.lists(dots, min_size=1, max_size=4),
    st.lists(dots, max_size=3, unique=True),
    st.lists(st.binary(max_size=1), min_size=3, max_size=3),
)


@given(a=some_rows, b=some_rows)
def test_merge_is_commutative_and_covers_both(a: Row, b: Row) -> None:
    merged = rows.merge(a, b)
    assert merged == rows.merge(b, a)
    assert rows.covers(merged, a)
    assert rows.covers(merged, b)
    assert causal_rows.flaw_of(merged) == ""


@given(a=some_rows, b=some_rows, c=some_rows)
def test_merge_is_associative(a: Row, b: Row, c: Row) -> None:
    assert rows.merge(rows.merge(a, b), c) == rows.merge(a, rows.merge(b, c))


@given(a=some_rows)
def test_merge_with_itself_is_itself(a: Row) -> None:
    assert rows.merge(a, a) is a


def put(micros: int, value: bytes | None, *, seen: Context = ()) -> Row:
    return siblings.put(Span(1, micros, micros, micros), value, seen=seen)


def _values(row: Row | None) -> list[bytes]:
    return [sibling.value for sibling in siblings.values(row, 1_000)]
