"""The simulator is an instrument, and this tests it: every planted bug is found."""

from __future__ import annotations

import pytest

from merganser.sim.scenario import run_scenario
from sim.mutations import planted_exchange  # noqa: F401  # plants more
from sim.mutations.planted import PLANTED, Planted


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    told: set[str] = set()
    for seed in range(bug.seeds_max):
        told |= {violation.checker for violation in run_scenario(seed, bug.scenario).violations}
        if told & set(bug.checkers):
            return
    pytest.fail(f"{bug.name} survived {bug.seeds_max} seeds; others that spoke up: {sorted(told)}")
