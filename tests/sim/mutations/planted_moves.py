"""Deliberate bugs in how partitions change hands; see `planting`."""

from __future__ import annotations

import pytest

from merganser.core import reshaping
from merganser.model.consistency import Need
from merganser.model.holders import Holders
from merganser.service.leftovers import Leftovers
from merganser.service.moving import Moving
from merganser.service.rebalancer import Rebalancer
from sim.mutations.planting import MOVING, planted

FAULTS = "membership+crashes+partitions+pauses"


@planted("held", "acknowledged", "convergence", mechanism=MOVING, likely=6, nemesis="membership")
def flipped_before_those_who_come_hold_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rebalancer, "_undone", lambda *_: "")


@planted("strays", mechanism=MOVING, nemesis="membership")
def what_is_left_is_kept(patch: pytest.MonkeyPatch) -> None:
    async def clear(self: Leftovers) -> None:
        self._looked_at = self._topology.map.placed

    patch.setattr(Leftovers, "clear", clear)


@planted("moves", mechanism=MOVING, nemesis=FAULTS, operations=40)
def a_lost_node_is_to_be_given_something(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reshaping, "_lost", lambda *_: set())


@planted("held", "acknowledged", mechanism=MOVING, likely=1, nemesis="moves")
def newcomers_count_as_any_other(patch: pytest.MonkeyPatch) -> None:
    def needed(_self: Holders, need: Need) -> Need:
        return need

    patch.setattr(Holders, "needed", needed)


@planted("moves", mechanism=MOVING, nemesis="membership", workload="items")
def leaders_that_leave_stay(patch: pytest.MonkeyPatch) -> None:
    async def see_to_led(*_: object) -> bool:
        return False

    patch.setattr(Moving, "_see_to_led", see_to_led)
