"""Values that merge themselves against the model of `crdt_walk`, and with planted bugs."""

from __future__ import annotations

from typing import Any

import pytest

from core.crdt_walk import Walk
from merganser.core import causal_rows, causality
from merganser.core.crdt import counters, types
from merganser.core.crdt.counters import Tally
from merganser.model import crdt
from merganser.model.crdt import OperationId, Shown
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING

SEEDS = 16


def test_replicas_read_what_sets_of_events_read() -> None:
    walks = [Walk(seed) for seed in range(SEEDS)]
    for seed, walk in enumerate(walks):
        assert walk.run() is None, f"seed {seed}"
    assert sum(walk.made_again for walk in walks) > 20, "or this would prove little"
    assert sum(walk.folds for walk in walks) > 3
    assert sum(walk.resets for walk in walks) > 50


# Planted bugs


class CountsAgain(Walk):
    """An update whose outcome is unknown is made anew, as if it were the next one."""

    def was_made(self, held: Row | None, update: OperationId) -> bool:
        return False


class ChainsAddUp(Walk):
    """As if each cell of a chain said what one update has counted."""

    def merge(self, held: Row, incoming: Row) -> Row:
        return _with_cells(super().merge(held, incoming), _doubled)


class ResetTakesTheCells(Walk):
    """What a chain had counted before comes back with its next cell."""

    def delta(self, held: Row | None, *asked: Any, **said: Any) -> Row | None:
        made = super().delta(held, *asked, **said)
        if made is None or held is None:
            return made
        floors = [cell for cell in made.cells if _is_floor(cell)]
        if not floors:
            return made
        context = made.context
        for cell in held.cells:
            if _is_chain(cell):
                context = causality.join(context, causality.only(causal_rows.dot_of(cell)))
        return Row(tuple(cell for cell in made.cells if cell not in floors), BEGINNING, context)


class ContextsOfClientsAreIgnored(Walk):
    def delta(self, held: Row | None, *asked: Any, **said: Any) -> Row | None:
        return super().delta(held, *asked, **{**said, "seen": None})


class MergeForgetsTheOtherContext(Walk):
    """What was removed comes back."""

    def merge(self, held: Row, incoming: Row) -> Row:
        merged = super().merge(held, incoming)
        context = held.context
        for cell in merged.cells:
            context = causality.join(context, causality.only(causal_rows.dot_of(cell)))
        return Row(merged.cells, BEGINNING, context)


class FoldsChainsThatGoOn(Walk):
    def purged(self, row: Row, horizon_us: int) -> Row | None:
        return super().purged(_with_cells(row, lambda cells: counters.folded(cells, self.now_us + 100)), horizon_us)


class FoldForgetsTheFloors(Walk):
    def purged(self, row: Row, horizon_us: int) -> Row | None:
        purged = super().purged(row, horizon_us)
        if purged is None or len(purged.cells) == len(row.cells):
            return purged
        return _with_cells(purged, lambda cells: tuple(cell for cell in cells if not _is_floor(cell)))


class PurgeForgetsWhatWasMade(Walk):
    def purged(self, row: Row, horizon_us: int) -> Row | None:
        purged = super().purged(row, horizon_us)
        return purged and _with_cells(purged, lambda cells: tuple(cell for cell in cells if cell.name[0] != 0xCF))


class LastRaiseCounts(Walk):
    """A maximum says what was said last, not what was most."""

    def values(self, row: Row | None) -> list[Shown]:
        return super().values(row and _with_cells(row, lambda cells: _newest_of(cells, crdt.MAXIMUM)))


class ElementTakesWhatOthersHaveRaised(Walk):
    """What is added to a sketch stands for all of it."""

    def delta(self, held: Row | None, *asked: Any, **said: Any) -> Row | None:
        made = super().delta(held, *asked, **said)
        if made is None or held is None or not any(_is_in(cell, crdt.DISTINCT) for cell in made.cells):
            return made
        context = made.context
        for cell in held.cells:
            if _is_in(cell, crdt.DISTINCT):
                context = causality.join(context, causality.only(causal_rows.dot_of(cell)))
        return Row(made.cells, BEGINNING, context)


def _newest_of(cells: tuple[Cell, ...], kind: str) -> tuple[Cell, ...]:
    newest: dict[bytes, Cell] = {}
    for cell in sorted(cells, key=causal_rows.dot_of):
        newest[causal_rows.path_of(cell)] = cell
    return tuple(cell for cell in cells if not _is_in(cell, kind) or newest[causal_rows.path_of(cell)] is cell)


def _is_in(cell: Cell, kind: str) -> bool:
    """Tell whether a cell belongs to the value of that type which the walk has in a field of the key."""
    names = {crdt.DISTINCT: (b"n",), crdt.MAXIMUM: (b"m", crdt.MAXIMUM.encode())}
    return cell.name.startswith(types.path_to(names[kind]) + bytes((types.TAGS[kind],)))


def _with_cells(row: Row, change: object) -> Row:
    assert callable(change)
    return Row(change(row.cells), BEGINNING, row.context)


def _doubled(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    by_chain: dict[bytes, int] = {}
    for cell in cells:
        by_chain[causal_rows.path_of(cell)] = by_chain.get(causal_rows.path_of(cell), 0) + 1
    return tuple(
        Cell(cell.name, cell.written_at, counters.encode(Tally(9, 9, 0)))
        if _is_chain(cell) and by_chain[causal_rows.path_of(cell)] > 1
        else cell
        for cell in cells
    )


def _is_floor(cell: Cell) -> bool:
    counter = counters.counter_of(cell)
    return counter is not None and causal_rows.path_of(cell) == counters.path_of_floors(counter)


def _is_chain(cell: Cell) -> bool:
    return counters.counter_of(cell) is not None and not _is_floor(cell)


BUGS = {
    CountsAgain: 0,
    ChainsAddUp: 5,
    ResetTakesTheCells: 0,
    ContextsOfClientsAreIgnored: 9,
    MergeForgetsTheOtherContext: 3,
    FoldsChainsThatGoOn: 1,
    FoldForgetsTheFloors: 20,
    PurgeForgetsWhatWasMade: 0,
    LastRaiseCounts: 16,
    ElementTakesWhatOthersHaveRaised: 6,
}
"""And a seed that finds each, as far as nothing has changed: it is tried first."""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_planted_bugs_are_found(bug: type[Walk]) -> None:
    for seed in (BUGS[bug], *range(150)):
        if bug(seed).run():
            return
    pytest.fail("survived")
