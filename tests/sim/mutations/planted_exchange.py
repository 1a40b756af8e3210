"""Deliberate bugs in anti-entropy; see `planting`. One in the rounds is in tests/service/test_purger_faults.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from merganser.core.exchange import Exchange, LookAtNodes
from merganser.model.ids import NodeId
from merganser.model.messages import Meet, Met
from merganser.service.compared_rows import ComparedRows, Meeting
from merganser.service.comparing import Comparing
from merganser.service.exchange_answers import ExchangeAnswers
from merganser.service.hash_trees import Change
from merganser.storage.engine import Batch, Engine
from sim.mutations.planting import ANTI_ENTROPY, planted


@planted(
    "convergence",
    mechanism=ANTI_ENTROPY,
    likely=3,
    is_soak=True,
    nodes=3,
    partitions=4,
    operations=15,
    repair_interval_s=2.0,
)
def differing_leaf_skipped(patch: pytest.MonkeyPatch) -> None:
    real = Exchange.looked

    def looked(self: Exchange, mine: Sequence[int], theirs: Sequence[int]) -> None:
        if isinstance(self.step, LookAtNodes) and self.step.level == 2:
            mine = [theirs[at] if leaf % 2 else mine[at] for at, leaf in enumerate(self.step.positions)]
        real(self, mine, theirs)

    patch.setattr(Exchange, "looked", looked)


@planted(
    "convergence",
    mechanism=ANTI_ENTROPY,
    likely=8,
    is_soak=True,
    nodes=3,
    partitions=4,
    operations=15,
    repair_interval_s=2.0,
)
def differing_twig_skipped(patch: pytest.MonkeyPatch) -> None:
    real = Exchange.looked_at_twigs

    def looked_at_twigs(self: Exchange, mine: Sequence[int], theirs: Sequence[int]) -> None:
        real(
            self,
            [others if twig % 2 else own for twig, (own, others) in enumerate(zip(mine, theirs, strict=True))],
            theirs,
        )

    patch.setattr(Exchange, "looked_at_twigs", looked_at_twigs)


@planted(
    "convergence",
    mechanism=ANTI_ENTROPY,
    is_soak=True,
    nodes=3,
    partitions=4,
    operations=15,
    repair_interval_s=2.0,
)
def responder_of_an_exchange_does_not_apply(patch: pytest.MonkeyPatch) -> None:
    async def meet(self: ExchangeAnswers, _sender: NodeId, request: Meet) -> Met:
        horizon_us = self._rows._horizons.horizon_us(request.table, request.partition)
        return Met(len(request.rows), 0, (), (), horizon_us)

    patch.setattr(ExchangeAnswers, "meet", meet)


@planted("convergence", mechanism=ANTI_ENTROPY, likely=38, is_soak=True, repair_interval_s=2.0)
def initiator_of_an_exchange_does_not_take(patch: pytest.MonkeyPatch) -> None:
    async def take(_self: Comparing, _others: object, _other_us: int) -> None:
        return

    patch.setattr(Comparing, "_take", take)


@planted(
    "hash trees", "convergence", mechanism=ANTI_ENTROPY, likely=2, nemesis="partitions+crashes", repair_interval_s=2.0
)
def exchange_that_leaves_the_trees_as_they_were(patch: pytest.MonkeyPatch) -> None:
    def meet(self: ComparedRows, *of_the_meeting: Any, **how: Any) -> Meeting:
        trees = self._trees
        self._trees = _BesideTheTrees(self._engine)  # type: ignore[assignment]
        try:
            return real(self, *of_the_meeting, **how)
        finally:
            self._trees = trees

    real = ComparedRows.meet
    patch.setattr(ComparedRows, "meet", meet)


class _BesideTheTrees:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, changes: Iterable[Change]) -> None:
        batch = Batch()
        batch.operations += [(key, after) for _, key, _, after in changes]
        self._engine.commit(batch)
