"""Deliberate bugs in how the policy of a table changes; see `planting`."""

from __future__ import annotations

import pytest

from merganser.core import ledgers
from merganser.core.policy_changes import Forks
from merganser.service.hinted_handoff import HintedHandoff
from merganser.service.leftovers import Leftovers
from merganser.service.promises import Promises
from merganser.service.rebalancer import Rebalancer
from sim.mutations.planting import POLICIES, planted

FAULTS = "policies+crashes+partitions+pauses"
ITEMS = ("promises", "linearizable", "item versions", "held", "counters", "acknowledged")


@planted(*ITEMS, mechanism=POLICIES, likely=2, nemesis=FAULTS, workload="items")
def groups_of_a_new_number_begin_without_promises(patch: pytest.MonkeyPatch) -> None:
    def fork(_self: Promises, _forks: Forks) -> None:
        return

    patch.setattr(Promises, "fork", fork)


@planted(
    "held", "acknowledged", "linearizable", "convergence", mechanism=POLICIES, likely=16, is_soak=True, nemesis=FAULTS
)
def another_policy_is_in_force_before_replicas_are_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rebalancer, "_undone", lambda *_: "")


@planted("residency", mechanism=POLICIES, likely=93, nemesis=FAULTS)
def hints_are_made_anew_where_they_may_not_be(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HintedHandoff, "_is_misplaced", lambda *_: False)


@planted("residency", "strays", mechanism=POLICIES, likely=1, nemesis="policies")
def rows_stay_where_they_may_not_be_any_more(patch: pytest.MonkeyPatch) -> None:
    async def clear(self: Leftovers) -> None:
        self._looked_at = self._topology.map.placed

    patch.setattr(Leftovers, "clear", clear)


@planted("serializable", "tokens", mechanism=POLICIES, likely=2, is_soak=True, nemesis="policies", workload="appends")
def tokens_are_looked_for_where_the_table_is_by_now(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledgers, "former_numbers", lambda *_: [])
