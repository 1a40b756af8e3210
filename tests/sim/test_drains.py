"""Nodes are drained, and serve as ever again, while clients work and machines fail: every promise is kept."""

from __future__ import annotations

from collections import Counter

import pytest

from merganser.sim.scenario import Scenario, run_scenario
from merganser.sim.world import World
from service.led import leading, started_led
from service.plays import member, play, until

NAMES = [b"%d" % number for number in range(100)]


def faults_of(workload: str, seeds: range) -> Counter[str]:
    """Run seeds, which keep every promise; return what went wrong meanwhile."""
    scenario = Scenario(workload=workload, nemesis="drains+crashes+partitions", nodes=3, operations=25)
    outcomes = [run_scenario(seed, scenario) for seed in seeds]
    assert [f"seed {o.seed}: {violation}" for o in outcomes for violation in o.violations] == []
    return sum((Counter(outcome.faults) for outcome in outcomes), Counter[str]())


def test_every_promise_is_kept_while_nodes_are_drained_and_fail() -> None:
    assert faults_of("counters", range(2))["drain"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("workload", ["items", "counters", "bank"])
def test_every_promise_is_kept_in_many_runs_while_nodes_are_drained_and_fail(workload: str) -> None:
    faults = faults_of(workload, range(40))
    assert faults["drain"] > 10
    assert faults["restart of one that was drained"] > 10


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_drained_node_leads_nothing_that_others_can_lead_until_it_is_drained_no_more(cut_off: bool) -> None:
    async def script(world: World) -> None:
        table = await started_led(world)
        drained, other, third = world.machines
        leadership = member(drained).leader_tables.leadership
        if cut_off:  # the two others do not hear one another: neither is heard by most without the drained one
            world.network.cut(other.address, third.address)
            world.network.cut(third.address, other.address)
        leadership.is_draining = True
        await until(lambda: not leadership.leading())
        await until(lambda: all(leading(world, table, name) not in (None, drained) for name in NAMES))
        leadership.is_draining = False
        world.network.heal()
        await until(lambda: len(leadership.leading()) >= 5)  # of 16 groups of three

    play(script)
