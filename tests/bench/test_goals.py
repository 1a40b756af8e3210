"""Goals are looked up in what was measured, and what was not measured is no goal reached."""

from __future__ import annotations

import pytest

from merganser.bench.compare import Line, Spread
from merganser.bench.figures import Fact, Figures, Section
from merganser.bench.goals import GOALS, Goal, holds, markdown
from merganser.bench.runner import Latency, Result
from merganser.bench.workloads import WORKLOADS, mixed


def result(*, throughput: float = 1_000.0, cpu_us: float = 100.0) -> Result:
    latency = Latency(1, 1_000.0, 2_000.0, 3_000.0)
    return Result(
        operations=1,
        errors=0,
        first_error="",
        seconds=1.0,
        throughput=throughput,
        items_per_second=0.0,
        latency_us={},
        all_us=latency,
        generator_cpu_us_per_operation=10.0,
        server_cpu_us_per_operation=cpu_us,
        server_resident_bytes=None,
        written_bytes_per_byte=None,
    )


def line(subject: str, workload: str, *, connections: int = 16, of_first: float = 0.0, cpu_us: float = 100.0) -> Line:
    ratios = {name: Spread(of_first, of_first, of_first) for name in ("throughput", "cpu", "p50", "p99")}
    return Line(
        subject,
        workload,
        connections,
        1_000,
        0.0,
        result(cpu_us=cpu_us),
        of_first=ratios if of_first else {},
        of_floor={"cpu": Spread(2.0, 2.4, 9.0)} if subject == "merganser" else {},
    )


def goal(name: str) -> Goal:
    (found,) = [one for one in GOALS if one.name == name]
    return found


def test_nothing_measured_reaches_no_goal() -> None:
    assert [one.name for one in GOALS if one.measured(Figures()) is not None] == []
    assert markdown(Figures()).count("not measured") == len(GOALS)


def test_the_fastest_other_server_counts() -> None:
    lines = (
        line("merganser", "get"),
        line("dynalite", "get", of_first=0.25),
        line("moto", "get", of_first=0.1),
        line("moto", "get", of_first=0.9, connections=64),
    )
    figures = Figures({"one-node": Section("", "", lines)})
    fastest = goal("GetItem, one node, 16 connections: throughput over that of the fastest other")
    assert fastest.measured(figures) == pytest.approx(4.0)
    assert holds(fastest, 4.0)
    assert not holds(fastest, 2.9)
    best = goal("GetItem, one node, 16 connections: p99 over that of the best other")
    assert best.measured(figures) == pytest.approx(10.0)
    assert not holds(best, 10.0)
    assert goal("GetItem, one node, 16 connections: CPU over that of the echo").measured(figures) == 2.4
    assert (
        goal("PutItem, one node, 16 connections: throughput over that of the fastest other").measured(figures) is None
    )


def test_figures_of_three_nodes_are_told_by_kind_of_table() -> None:
    lines = (line("leader", "put", cpu_us=100.0), line("leader", "conditional-put", cpu_us=125.0))
    figures = Figures({"three-nodes": Section("", "", lines)})
    assert goal("three nodes, leader: put, CPU").measured(figures) == 100.0
    assert goal("three nodes, leaderless: put, CPU").measured(figures) is None
    assert goal("three nodes: CPU of a conditional put over a plain one").measured(figures) == 1.25


def test_facts_are_found_by_name_and_the_verdict_is_told() -> None:
    facts = (Fact("start with an empty directory", 0.4, "s"), Fact("resident memory of an idle node", 90.0, "MB"))
    told = markdown(Figures({"start": Section("", "", facts=facts)}))
    assert "| start to first answer | ≤ 0.5 s | 0.4 s | yes |" in told
    assert "| idle node | ≤ 80 MB | 90 MB | no |" in told


def test_goals_speak_of_workloads_that_there_are() -> None:
    names = {*WORKLOADS, mixed(0.05).name, mixed(0.5).name}
    lines = tuple(line("9 nodes", name, of_first=1.1) for name in names)
    figures = Figures({"scale": Section("", "", lines)})
    nine = [one for one in GOALS if one.name.startswith("nine nodes")]
    assert [one.measured(figures) for one in nine] == [1.1] * 3
