"""Deliberate bugs in values that merge themselves; see `planting`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from merganser.core import causal_rows, causality
from merganser.core.crdt import counters, updates
from merganser.core.crdt.counters import Floors, State, Tally
from merganser.model.crdt import Session
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING
from merganser.service import crdt_values
from sim.mutations.planting import CRDTS, planted


@planted("crdts", mechanism=CRDTS, likely=13, workload="crdts")
def update_is_made_whenever_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    """Its id is not looked at: a retry counts again."""
    real = updates.was_made

    def was_made(held: Row | None, update: Any) -> bool:
        real(held, update)
        return False

    patch.setattr(updates, "was_made", was_made)


@planted("crdts", mechanism=CRDTS, workload="crdts", nemesis="none")
def counter_says_what_the_last_session_has_counted(patch: pytest.MonkeyPatch) -> None:
    real = State.total

    def total(state: State) -> Tally:
        return max(state.chains.values(), default=Tally()) if len(state.chains) > 1 else real(state)

    patch.setattr(State, "total", total)


@planted("crdts", mechanism=CRDTS, workload="crdts", nemesis="none")
def reset_sees_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "seen", lambda state: Floors(state.floors.base, state.floors.chains))


@planted("crdts", mechanism=CRDTS, likely=4, workload="crdts", nemesis="none", operations=60)
def fold_leaves_out_what_it_folds(patch: pytest.MonkeyPatch) -> None:
    real = counters.folded

    def folded(cells: tuple[Cell, ...], horizon_us: int) -> tuple[Cell, ...]:
        kept = real(cells, horizon_us)
        return kept if kept is cells else tuple(cell for cell in kept if cell in cells)

    patch.setattr(counters, "folded", folded)


@planted("crdts", mechanism=CRDTS, likely=4, workload="crdts", nemesis="none")
def fold_takes_chains_that_go_on(patch: pytest.MonkeyPatch) -> None:
    real = counters.folded
    patch.setattr(counters, "folded", lambda cells, horizon_us: real(cells, horizon_us + 600_000_000))


@planted("crdts", mechanism=CRDTS, workload="crdts", nemesis="none")
def chain_begins_anew_with_each_update(patch: pytest.MonkeyPatch) -> None:
    """A later cell of a chain does not contain the earlier ones."""

    def tally_of(_state: State, _session: Session) -> Tally:
        return Tally()

    patch.setattr(State, "tally_of", tally_of)


@planted("crdts", mechanism=CRDTS, likely=15, workload="crdts")
def node_goes_on_with_a_chain_whose_end_it_does_not_know(patch: pytest.MonkeyPatch) -> None:
    """It writes another tally of as many updates as the one whose outcome is unknown."""
    sessions: dict[tuple[int, bytes], Any] = {}
    real = crdt_values.CrdtValues._counted

    async def counted(values: Any, asked: Any) -> bool:
        kept = sessions.get((id(values), asked.key))
        if kept is not None and asked.key not in values._chains:
            values._chains[asked.key] = kept
        if asked.key in values._chains:
            sessions[id(values), asked.key] = values._chains[asked.key]
        return await real(values, asked)

    patch.setattr(crdt_values.CrdtValues, "_counted", counted)


@planted("crdts", mechanism=CRDTS, likely=2, workload="crdts", nemesis="none", hot_keys=1)
def remove_takes_what_its_client_has_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(updates._Delta, "_known", lambda _delta, cells: list(cells))


@planted("crdts", mechanism=CRDTS, workload="crdt-carts", nemesis="none")
def remove_says_nothing_of_what_it_removes(patch: pytest.MonkeyPatch) -> None:
    real = updates._Delta._drop

    def drop(delta: Any, cells: Iterable[Cell]) -> None:
        real(delta, cells)
        delta._replaced.clear()

    patch.setattr(updates._Delta, "_drop", drop)


@planted("crdts", mechanism=CRDTS, workload="crdt-carts", nemesis="none")
def add_claims_all_before_it(patch: pytest.MonkeyPatch) -> None:
    """As an entry of a version vector does: what others added at the same time through the same node is gone."""
    real = updates._Delta.row

    def row(delta: Any) -> Row | None:
        made = real(delta)
        if made is None:
            return None
        context = made.context
        for span in made.context:
            context = causality.join(context, (span._replace(low=span.epoch),))
        return Row(made.cells, BEGINNING, context)

    patch.setattr(updates._Delta, "row", row)


@planted("crdts", "convergence", mechanism=CRDTS, likely=26, is_soak=True, workload="crdt-carts", nemesis="partitions")
def merge_forgets_what_the_other_has_removed(patch: pytest.MonkeyPatch) -> None:
    real = causal_rows.merge

    def merge(a: Row, b: Row) -> Row:
        merged = real(a, b)
        context = a.context
        for cell in merged.cells:
            context = causality.join(context, causality.only(causal_rows.dot_of(cell)))
        return a if (merged.cells, context) == (a.cells, a.context) else Row(merged.cells, BEGINNING, context)

    patch.setattr(causal_rows, "merge", merge)
