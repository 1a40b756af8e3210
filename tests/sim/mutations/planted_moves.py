"""Deliberate bugs in how partitions change hands; see `planting`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from merganser.core import reshaping
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Need
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId
from merganser.model.messages import Read, ReadRange
from merganser.service import replica
from merganser.service.leader_based import LeaderBased
from merganser.service.leftovers import Leftovers
from merganser.service.moving import Moving
from merganser.service.rebalancer import Rebalancer
from sim.mutations.planting import MOVING, planted

FAULTS = "membership+crashes+partitions+pauses"


@planted("held", "acknowledged", "convergence", mechanism=MOVING, likely=2, nemesis="membership")
def flipped_before_those_who_come_hold_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rebalancer, "_undone", lambda *_: "")


@planted("strays", mechanism=MOVING, nemesis="membership")
def what_is_left_is_kept(patch: pytest.MonkeyPatch) -> None:
    async def clear(self: Leftovers) -> None:
        self._looked_at = self._topology.map.placed

    patch.setattr(Leftovers, "clear", clear)


@planted("moves", mechanism=MOVING, is_soak=True, nemesis=FAULTS, operations=40)
def a_lost_node_is_to_be_given_something(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reshaping, "_lost", lambda *_: set())


@planted("held", "acknowledged", mechanism=MOVING, likely=193, is_soak=True, nemesis="moves")
def newcomers_count_as_any_other(patch: pytest.MonkeyPatch) -> None:
    def needed(_self: Holders, need: Need, _later: Need | None = None) -> Need:
        return need

    patch.setattr(Holders, "needed", needed)


@planted("moves", mechanism=MOVING, is_soak=True, nemesis="membership", workload="items")
def leaders_that_leave_stay(patch: pytest.MonkeyPatch) -> None:
    async def see_to_led(*_: object) -> bool:
        return False

    patch.setattr(Moving, "_see_to_led", see_to_led)


@planted("promises", mechanism=MOVING, likely=2, nemesis="membership", workload="items")
def newcomers_answer_before_they_are_given_everything(patch: pytest.MonkeyPatch) -> None:
    def answers_for(self: replica.Replica, table: Table, partition: PartitionId) -> bool:
        return self._topology.ring.holds(self._topology.node, partition, table.rule)

    async def ask_nearest(
        self: LeaderBased, table: Table, serving: Sequence[NodeId], question: Read | ReadRange, *rest: Any
    ) -> Any:
        key = question.key if isinstance(question, Read) else question.start
        return await real(self, table, self._topology.holders(table, key).newcomers or serving, question, *rest)

    real = LeaderBased._ask_nearest
    patch.setattr(replica.Replica, "_answers_for", answers_for)
    patch.setattr(LeaderBased, "_ask_nearest", ask_nearest)


@planted("promises", mechanism=MOVING, likely=1, nemesis="membership")
def several_voters_change_in_one_step(patch: pytest.MonkeyPatch) -> None:
    real = reshaping.with_other_voters

    def at_once(current: ClusterMap) -> ClusterMap:
        wanted = current
        while (further := real(wanted)) is not wanted:
            wanted = further
        return current if wanted is current else msgspec.structs.replace(wanted, epoch=current.epoch + 1)

    patch.setattr(reshaping, "with_other_voters", at_once)
