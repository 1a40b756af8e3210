"""The policies of tables change while clients work and machines fail: every promise is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from merganser.sim.scenario import Scenario, run_scenario

FAULTS = "policies+crashes+partitions+pauses"


def broken(scenario: Scenario, seeds: Iterable[int]) -> tuple[list[str], Counter[str]]:
    """Return what was broken, and what was done."""
    outcomes = [run_scenario(seed, scenario) for seed in seeds]
    faults = sum((Counter(outcome.faults) for outcome in outcomes), Counter[str]())
    return [f"seed {o.seed}: {violation}" for o in outcomes for violation in o.violations], faults


@pytest.mark.parametrize(("workload", "seeds"), [("items", (3,)), ("registers", (0,))])
def test_every_promise_is_kept_while_policies_change_and_nodes_fail(workload: str, seeds: Sequence[int]) -> None:
    violations, faults = broken(Scenario(workload=workload, nemesis=FAULTS), seeds)
    assert violations == []
    assert faults["policies"] > 0


@pytest.mark.soak
@pytest.mark.parametrize(
    "workload",
    [
        "items",
        "registers",
        "deletes",
        "bank",
        "item-scans",
        "scans",
        "indexes",
        "index-changes",
        "expiries",
        "counters",
        "crdts",
        "appends",
    ],
)
def test_every_promise_is_kept_in_many_runs(workload: str) -> None:
    violations, faults = broken(Scenario(workload=workload, nemesis=FAULTS), range(20))
    assert violations == []
    assert faults["policies"] > 10


@pytest.mark.soak
@pytest.mark.parametrize("nemesis", ["all+policies", "policies+splits+moves+crashes", "policies+membership+crashes"])
@pytest.mark.parametrize("workload", ["items", "registers"])
def test_every_promise_is_kept_whatever_else_happens(workload: str, nemesis: str) -> None:
    assert broken(Scenario(workload=workload, nemesis=nemesis, operations=40), range(10))[0] == []


@pytest.mark.soak
@pytest.mark.parametrize("workload", ["items", "registers"])
def test_tables_leave_whole_data_centers_and_come_to_others(workload: str) -> None:
    scenario = Scenario(workload=workload, nemesis=FAULTS, data_centers=2)
    assert broken(scenario, range(10))[0] == []


@pytest.mark.soak
def test_sessions_are_kept_while_tables_change_their_zones() -> None:
    scenario = Scenario(workload="data-centers", nemesis="zones-of-tables+data-centers+crashes")
    assert broken(scenario, range(10))[0] == []
