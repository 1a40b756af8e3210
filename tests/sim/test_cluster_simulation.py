"""Whole clusters under faults keep their promises, and one seed is one run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import get_args

import msgspec
import pytest

from merganser.model import messages
from merganser.model.errors import ConfigurationError
from merganser.model.messages import Exchanging
from merganser.model.versions import NEWEST
from merganser.sim.nemeses import FAMILIES, NEMESES
from merganser.sim.scenario import Outcome, Scenario, run_scenario
from merganser.sim.workloads import CONFLICTS, IN_DATA_CENTERS, ON_LEADERS, WIRES, WORKLOADS
from sim.failed_seeds import FAILED_SEEDS

SEEDS_OF_EACH_WORKLOAD = 4  # here: `make soak` runs thousands
SEEDS_OF_REPAIR = 2  # one of those on leaders, which cost three times as much: those who lead send pulses


def failures(outcomes: list[Outcome]) -> list[str]:
    return [f"seed {o.seed}, {o.scenario}: {violation}" for o in outcomes for violation in o.violations]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_promise_is_kept_while_everything_goes_wrong(workload: str) -> None:
    outcomes: list[Outcome] = []
    # the hunt is worth nothing unless clients got answers and things really went wrong
    while len(outcomes) < SEEDS_OF_EACH_WORKLOAD or not (
        any(o.unknown for o in outcomes) and any(o.lost for o in outcomes)
    ):
        assert len(outcomes) < 5 * SEEDS_OF_EACH_WORKLOAD, "nothing ever goes wrong"
        outcomes.append(run_scenario(len(outcomes), Scenario(workload=workload)))
    assert failures(outcomes) == []
    assert sum(o.acked for o in outcomes) > len(outcomes)


def every_third(number: int) -> list[str]:
    """Return a third of the workloads, another for the next number: each meets every third of what is numbered.

    Those that come by another wire do what others do, and their way to the nodes is one: they are hunted through above,
    and under each nemesis in `make soak`.
    """
    return [workload for workload in WORKLOADS if workload not in WIRES][number % 3 :: 3]


EVERYWHERE = [nemesis for nemesis in NEMESES if nemesis not in ("data-centers", "zones-of-tables")]
"""All that do something in a world of one data centre."""


@pytest.mark.parametrize("nemesis", EVERYWHERE)
def test_every_promise_is_kept_under_each_nemesis_by_itself(nemesis: str) -> None:
    under_a_third_of_them(nemesis, list(NEMESES).index(nemesis))


@pytest.mark.soak
@pytest.mark.parametrize("nemesis", EVERYWHERE)
@pytest.mark.parametrize("workload", WIRES)
def test_every_promise_is_kept_to_those_who_come_by_another_wire(nemesis: str, workload: str) -> None:
    scenario = Scenario(workload=workload, nemesis=nemesis)
    assert failures([run_scenario(seed, scenario) for seed in range(1000, 1020)]) == []


@pytest.mark.soak
@pytest.mark.parametrize("nemesis", EVERYWHERE)
@pytest.mark.parametrize("third", [1, 2])
def test_every_promise_is_kept_under_each_nemesis_by_the_others(nemesis: str, third: int) -> None:
    under_a_third_of_them(nemesis, list(NEMESES).index(nemesis) + third)


def under_a_third_of_them(nemesis: str, number: int) -> None:
    outcomes = [run_scenario(1000, Scenario(workload=workload, nemesis=nemesis)) for workload in every_third(number)]
    assert failures(outcomes) == []
    for on_leaders in False, True:  # what does not know the one kind of table spares it
        faults = [o.faults for o in outcomes if (o.scenario.workload in ON_LEADERS) == on_leaders]
        assert any(faults) == (nemesis != "none")


@pytest.mark.parametrize("workload", ["bank", "carts"])
def test_tables_stay_where_they_may_be_while_data_centers_are_cut_off(workload: str) -> None:
    scenario = Scenario(workload=workload, nemesis="data-centers+crashes", data_centers=2)
    outcomes = [run_scenario(1, scenario)]
    assert failures(outcomes) == []
    assert sum(sum(o.faults.values()) for o in outcomes) > 0


@pytest.mark.soak
@pytest.mark.parametrize("workload", WORKLOADS)
def test_tables_of_any_kind_stay_where_they_may_be_whatever_goes_wrong(workload: str) -> None:
    scenario = Scenario(workload=workload, nemesis="all+data-centers", data_centers=2)
    assert failures([run_scenario(seed, scenario) for seed in range(SEEDS_OF_EACH_WORKLOAD)]) == []


def test_every_fault_is_injected_sooner_or_later() -> None:
    injected = sum((Counter(run_scenario(seed).faults) for seed in range(30)), Counter[str]())
    assert len(injected) == sum(map(len, FAMILIES.values()))


OTHER_WORLDS = {
    "five nodes": Scenario(nodes=5, partitions=8),
    "heavy loss": Scenario(loss=0.6),
    "wild clocks": Scenario(clock_jump_s=40.0),
    "unequal zones": Scenario(nodes=4, zones=2, partitions=4, hot_keys=1),
    "one node": Scenario(nodes=1),
    "two nodes": Scenario(nodes=2),
}


@pytest.mark.parametrize("world", OTHER_WORLDS)
def test_other_worlds_change_nothing(world: str) -> None:
    in_another_world(world, every_third(list(OTHER_WORLDS).index(world)))


@pytest.mark.soak
@pytest.mark.parametrize("world", OTHER_WORLDS)
@pytest.mark.parametrize("third", [1, 2])
def test_other_worlds_change_nothing_for_the_others(world: str, third: int) -> None:
    in_another_world(world, every_third(list(OTHER_WORLDS).index(world) + third))


def in_another_world(world: str, workloads: list[str]) -> None:
    scenarios = [msgspec.structs.replace(OTHER_WORLDS[world], workload=workload) for workload in workloads]
    assert failures([run_scenario(2000, scenario) for scenario in scenarios]) == []


@pytest.mark.parametrize(
    ("nemesis", "third"),
    [
        ("none", 1),
        ("partitions+storms+crashes", 0),
        pytest.param("partitions+storms+crashes", 2, marks=pytest.mark.soak),
    ],
)
def test_a_cluster_is_upgraded_node_by_node_while_clients_work(nemesis: str, third: int) -> None:
    scenario = Scenario(nemesis=nemesis, nodes=3, older=3)
    beyond_older_nodes = CONFLICTS.keys() | IN_DATA_CENTERS
    workloads = [workload for workload in every_third(third) if workload not in beyond_older_nodes]
    outcomes = [run_scenario(4000, msgspec.structs.replace(scenario, workload=workload)) for workload in workloads]
    assert failures(outcomes) == []
    assert all(o.faults["upgrade"] == 3 for o in outcomes)


def test_what_an_older_node_cannot_be_asked_waits_until_it_is_upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in get_args(Exchanging):  # so that replicas compare themselves only with those that were upgraded
        monkeypatch.setitem(messages.SINCE, kind, NEWEST)
    scenario = Scenario(nemesis="partitions", nodes=3, older=2, repair_interval_s=2.0)
    outcomes = [run_scenario(seed, scenario) for seed in range(4000, 4003)]
    assert failures(outcomes) == []
    assert sum(o.met for o in outcomes) > 0


def test_replicas_become_equal_without_a_read_and_what_was_purged_stays_away() -> None:
    outcomes = [
        run_scenario(seed, Scenario(workload=workload, repair_interval_s=2.0))
        for workload in WORKLOADS
        for seed in range(3000, 3000 + (1 if workload in ON_LEADERS else SEEDS_OF_REPAIR))
    ]
    assert failures(outcomes) == []
    assert sum(o.met for o in outcomes) > 0, "no row is met, so the runs show nothing"
    assert sum(o.purged for o in outcomes) > len(outcomes), "hardly a row is purged, so the runs show nothing"


@pytest.mark.parametrize(("seed", "scenario", "why"), FAILED_SEEDS)
def test_what_failed_once_fails_no_more(seed: int, scenario: Scenario, why: str) -> None:
    assert run_scenario(seed, scenario).violations == [], why


def test_one_seed_gives_one_run_whatever_the_hash_seed() -> None:
    script = (
        "from merganser.sim.scenario import Scenario, run_scenario\n"
        "from merganser.sim.workloads import WORKLOADS\n"
        "print([run_scenario(7, Scenario(workload=name, operations=8)).trace for name in WORKLOADS])"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
    assert len(set(traces.pop().split(", "))) == len(WORKLOADS)


def test_a_seed_gives_the_same_run_in_one_of_many_processes() -> None:
    seeds, scenarios = [7, 8, 9, 7], [Scenario(), Scenario(workload="tables"), Scenario(nemesis="crashes"), Scenario()]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(run_scenario, seeds, scenarios))
    assert there == list(map(run_scenario, seeds, scenarios))
    assert len({outcome.trace for outcome in there}) == 3


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no workload is called 'nonsense': choose one of registers"):
        run_scenario(1, Scenario(workload="nonsense"))
    with pytest.raises(ConfigurationError, match="no nemesis is called 'nonsense': choose from none"):
        run_scenario(1, Scenario(nemesis="nonsense"))
    with pytest.raises(ConfigurationError, match="no pace is called 'nonsense': choose drawn, quick, slow"):
        run_scenario(1, Scenario(pace="nonsense"))
    with pytest.raises(ConfigurationError, match="workload carts begins on tables that no older node can have"):
        run_scenario(1, Scenario(workload="carts", older=1))
    for scenario in Scenario(workload="data-centers", older=1), Scenario(data_centers=2, older=1):
        with pytest.raises(ConfigurationError, match="no older node knows of data centres: leave out --older"):
            run_scenario(1, scenario)
    for scenario in Scenario(partitions=12), Scenario(partitions=2, nodes=3), Scenario(partitions=4):
        with pytest.raises(ConfigurationError, match="choose a power of two, no less than the nodes"):
            run_scenario(1, scenario)
