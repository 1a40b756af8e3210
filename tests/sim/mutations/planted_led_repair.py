"""Deliberate bugs in what keeps replicas of leader-based tables equal, well and whole; see `planting`."""

from __future__ import annotations

import pytest

from merganser.model.cluster import Table
from merganser.model.ids import NodeId
from merganser.service.first_touches import Term
from merganser.service.settlement import Settlement
from sim.mutations.planting import LED_REPAIR, planted


@planted("convergence", mechanism=LED_REPAIR, workload="counters", nemesis="crashes")
def leader_settles_nothing(patch: pytest.MonkeyPatch) -> None:
    async def settle(_self: Settlement, _term: Term, _table: Table, _key: bytes, _node: NodeId) -> None:
        return

    patch.setattr(Settlement, "settle", settle)
