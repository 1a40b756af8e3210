"""Deliberate bugs in what keeps replicas of leader-based tables equal, well and whole; see `planting`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from merganser.model.cluster import Table
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leadership import Group
from merganser.service.first_touches import Term
from merganser.service.restoring import Rejoining
from merganser.service.settlement import Settlement
from merganser.service.settling import Settling
from sim.mutations.planting import LED_REPAIR, planted

REGISTERS = ("linearizable", "counters", "item versions")


@planted("convergence", mechanism=LED_REPAIR, likely=2, is_soak=True, workload="counters", nemesis="crashes")
def leader_settles_nothing(patch: pytest.MonkeyPatch) -> None:
    async def settle(_self: Settlement, _term: Term, _table: Table, _key: bytes, _node: NodeId) -> None:
        return

    patch.setattr(Settlement, "settle", settle)


@planted(
    *REGISTERS,
    mechanism=LED_REPAIR,
    likely=12,
    workload="counters",
    nemesis="losses+partitions+crashes",
    nodes=3,
    hot_keys=1,
)
def lost_replica_votes_as_if_it_were_whole(patch: pytest.MonkeyPatch) -> None:
    def is_whole(_self: Rejoining, _group: Group) -> bool:
        return True

    patch.setattr(Rejoining, "is_whole", is_whole)


@planted(
    *REGISTERS,
    mechanism=LED_REPAIR,
    likely=11,
    workload="counters",
    nemesis="rot+partitions+crashes",
    nodes=3,
    hot_keys=1,
)
def damaged_register_is_removed(patch: pytest.MonkeyPatch) -> None:
    async def make_right(self: Settling, table: Table, partition: PartitionId, wanted: Sequence[bytes]) -> int:
        damaged = [(key, self._own(key)[0]) for key in wanted if not self._own(key)[1]]
        self._trees.replace(table.id, partition, [(table.id, key, stored, None) for key, stored in damaged])
        return len(damaged)

    patch.setattr(Settling, "make_right", make_right)
