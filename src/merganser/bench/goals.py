"""What Merganser is to reach on two cores, beside what was measured last.

Ratios are medians of rounds; absolute figures are those of whatever machine the section was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from merganser.bench.compare import Line
from merganser.bench.figures import Figures, number
from merganser.bench.workloads import mixed

MERGANSER = "merganser"
PEERS = ("dynalite", "moto", "ministack")


class Goal(NamedTuple):
    """A figure, and where it is to be."""

    name: str
    bound: float
    is_least: bool
    """The bound is the least that is wanted, or else the most."""
    unit: str
    measured: Callable[[Figures], float | None]
    """None: not measured yet."""


def holds(goal: Goal, value: float) -> bool:
    """Tell whether ``value`` reaches the goal."""
    return value >= goal.bound if goal.is_least else value <= goal.bound


def markdown(figures: Figures) -> str:
    """Return a table of all goals."""
    rows = ["### Goals", "", "| | wanted | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        value = goal.measured(figures)
        wanted = f"{'≥' if goal.is_least else '≤'} {number(goal.bound)} {goal.unit}"
        verdict = "" if value is None else "yes" if holds(goal, value) else "no"
        told = "not measured" if value is None else f"{number(value)} {goal.unit}"
        rows.append(f"| {goal.name} | {wanted} | {told} | {verdict} |")
    return "\n".join(rows)


def _line(figures: Figures, section: str, subject: str, workload: str, connections: int | None = None) -> Line | None:
    found = figures.sections.get(section)
    for line in found.lines if found is not None else ():
        if (line.subject, line.workload) == (subject, workload) and connections in (None, line.connections):
            return line
    return None


def _of_first(
    figures: Figures, section: str, subject: str, workload: str, name: str, connections: int | None = None
) -> float | None:
    line = _line(figures, section, subject, workload, connections)
    return line.of_first[name].median if line is not None and name in line.of_first else None


def _beside(figures: Figures, workload: str, name: str, connections: int | None, peers: tuple[str, ...]) -> list[float]:
    """Return the figures of other servers over those of one node."""
    found = [_of_first(figures, "one-node", peer, workload, name, connections) for peer in peers]
    return [ratio for ratio in found if ratio is not None]


def _times(workload: str, *peers: str, connections: int | None = None) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        ratios = _beside(figures, workload, "throughput", connections, peers)
        return 1 / max(ratios) if ratios else None

    return measured


def _p99(workload: str, connections: int) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        ratios = _beside(figures, workload, "p99", connections, PEERS)
        return 1 / min(ratios) if ratios else None

    return measured


def _echoes(connections: int) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        line = _line(figures, "one-node", MERGANSER, "get", connections)
        return line.of_floor["cpu"].median if line is not None and "cpu" in line.of_floor else None

    return measured


def _throughput(subject: str, workload: str) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        line = _line(figures, "three-nodes", subject, workload)
        return line.result.throughput if line is not None else None

    return measured


def _cpu_us(subject: str, workload: str) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        line = _line(figures, "three-nodes", subject, workload)
        return line.result.server_cpu_us_per_operation if line is not None else None

    return measured


def _conditional(figures: Figures) -> float | None:
    conditional, plain = _cpu_us("leader", "conditional-put")(figures), _cpu_us("leader", "put")(figures)
    return conditional / plain if conditional and plain else None


def _nine(workload: str) -> Callable[[Figures], float | None]:
    return lambda figures: _of_first(figures, "scale", "9 nodes", workload, "cpu")


def _fact(section: str, name: str) -> Callable[[Figures], float | None]:
    def measured(figures: Figures) -> float | None:
        found = figures.sections.get(section)
        return next((fact.value for fact in found.facts if fact.name == name), None) if found is not None else None

    return measured


def _goals() -> Iterator[Goal]:
    for workload, operation in (("get", "GetItem"), ("put", "PutItem")):
        for connections in (16, 64):
            what = f"{operation}, one node, {connections} connections"
            fastest = _times(workload, *PEERS, connections=connections)
            yield Goal(f"{what}: throughput over that of the fastest other", 3.0, True, "times", fastest)
            yield Goal(f"{what}: p99 over that of the best other", 1.0, False, "times", _p99(workload, connections))
    for connections in (16, 64):
        yield Goal(
            f"GetItem, one node, {connections} connections: CPU over that of the echo",
            2.5,
            False,
            "times",
            _echoes(connections),
        )
    yield Goal(
        "Query of 100 items, one node: throughput over dynalite's", 3.0, True, "times", _times("page", "dynalite")
    )
    yield Goal("Query of 100 items, one node: throughput over moto's", 10.0, True, "times", _times("page", "moto"))
    for kind in ("leader", "leaderless"):
        few, half = mixed(0.05).name, mixed(0.5).name
        yield Goal(f"three nodes, {kind}: {few}", 12_000, True, "ops/s", _throughput(kind, few))
        yield Goal(f"three nodes, {kind}: {half}", 9_000, True, "ops/s", _throughput(kind, half))
        yield Goal(f"three nodes, {kind}: put, CPU", 120, False, "µs", _cpu_us(kind, "put"))
        yield Goal(f"three nodes, {kind}: eventually consistent get, CPU", 40, False, "µs", _cpu_us(kind, "get"))
        yield Goal(f"three nodes, {kind}: consistent get, CPU", 70, False, "µs", _cpu_us(kind, "consistent-get"))
    yield Goal("three nodes: CPU of a conditional put over a plain one", 1.3, False, "times", _conditional)
    for workload in ("get", "put", mixed(0.5).name):
        yield Goal(f"nine nodes, {workload}: CPU over that on three", 1.15, False, "times", _nine(workload))
    yield Goal("Scan from one client, 4 segments", 100_000, True, "items/s", _fact("million", "scanned"))
    yield Goal("on disk after compaction", 1.5, False, "bytes per byte", _fact("million", "on disk after compaction"))
    yield Goal("start to first answer", 0.5, False, "s", _fact("start", "start with an empty directory"))
    yield Goal("idle node", 80, False, "MB", _fact("start", "resident memory of an idle node"))
    yield Goal("anti-entropy, all equal", 2.0, False, "s", _fact("anti-entropy", "compare, all equal"))
    upkeep = _fact("anti-entropy", "hash-tree upkeep of a write")
    yield Goal("hash-tree upkeep of a write", 1.0, False, "µs", upkeep)
    on_wire = _fact("anti-entropy", "compare, all equal: on the wire")
    yield Goal("anti-entropy, all equal: on the wire", 1_000_000, False, "bytes", on_wire)


GOALS: tuple[Goal, ...] = tuple(_goals())
