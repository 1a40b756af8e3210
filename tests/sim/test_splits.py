"""The ring is cut finer while clients work, partitions move and machines fail: every promise is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from merganser.sim.scenario import Scenario, run_scenario

FAULTS = "splits+crashes+partitions+pauses"


def broken(scenario: Scenario, seeds: Iterable[int]) -> tuple[list[str], Counter[str]]:
    """Return what was broken, and what was done."""
    outcomes = [run_scenario(seed, scenario) for seed in seeds]
    faults = sum((Counter(outcome.faults) for outcome in outcomes), Counter[str]())
    return [f"seed {o.seed}: {violation}" for o in outcomes for violation in o.violations], faults


@pytest.mark.parametrize(("workload", "seeds"), [("items", (1, 2)), ("registers", (0, 7)), ("tags", (1,))])
def test_every_promise_is_kept_while_the_ring_is_cut_and_nodes_fail(workload: str, seeds: Sequence[int]) -> None:
    violations, faults = broken(Scenario(workload=workload, nemesis=FAULTS, operations=30), seeds)
    assert violations == []
    assert faults["splits"] > 0


@pytest.mark.soak
@pytest.mark.parametrize(
    "workload",
    ["items", "registers", "deletes", "bank", "item-scans", "scans", "indexes", "index-changes", "expiries", "tags"],
)
def test_every_promise_is_kept_in_many_runs(workload: str) -> None:
    violations, faults = broken(Scenario(workload=workload, nemesis=FAULTS), range(20))
    assert violations == []
    assert faults["splits"] > 10


@pytest.mark.soak
@pytest.mark.parametrize("nemesis", ["all+splits", "splits+losses+rot", "membership+splits+crashes+partitions"])
@pytest.mark.parametrize("workload", ["items", "registers", "deletes"])
def test_every_promise_is_kept_whatever_else_happens(workload: str, nemesis: str) -> None:
    assert broken(Scenario(workload=workload, nemesis=nemesis, operations=40), range(10))[0] == []
