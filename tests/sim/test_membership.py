"""Nodes join, leave, are lost and replaced while clients work and machines fail: every promise is kept."""

from __future__ import annotations

from collections import Counter

import pytest

from merganser.sim.scenario import Scenario, run_scenario

FAULTS = "membership+crashes+partitions+pauses"


@pytest.mark.parametrize("workload", ["items", "registers"])
def test_every_promise_is_kept_while_nodes_come_and_go_and_fail(workload: str) -> None:
    outcomes = [run_scenario(seed, Scenario(workload=workload, nemesis=FAULTS, operations=40)) for seed in range(4)]
    assert [f"seed {o.seed}: {violation}" for o in outcomes for violation in o.violations] == []


def test_nodes_join_leave_are_lost_and_replaced() -> None:
    faults = Counter[str]()
    for seed in range(30):
        outcome = run_scenario(seed, Scenario(workload="items", nemesis="membership"))
        assert outcome.violations == [], f"seed {seed}"
        faults += Counter(outcome.faults)
        if faults.keys() >= {"joins", "leaves", "loss of a node", "replacement of a node"}:
            return
    raise AssertionError(f"not every change of nodes was made: {faults}")


def test_a_node_that_is_lost_is_never_waited_for() -> None:
    outcome = run_scenario(0, Scenario(workload="registers", nemesis=FAULTS, operations=40))
    assert outcome.violations == []
