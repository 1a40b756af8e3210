"""``merganser sim``: many seeds of the simulator, their sum, and how to replay what failed."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec
from rich.console import Console
from rich.progress import track

from merganser.model.errors import ConfigurationError
from merganser.sim import checkers
from merganser.sim.matrix import Matrix, Sum
from merganser.sim.nemeses import FAMILIES, NEMESES
from merganser.sim.scenario import Outcome, Scenario, run_scenario
from merganser.sim.workloads import WORKLOADS

EVERY = "every"
"""Instead of the name of a workload: one after another, seed by seed."""

_OPTIONS = {
    "workload": "--workload",
    "nemesis": "--nemesis",
    "nodes": "--nodes",
    "zones": "--zones",
    "partitions": "--partitions",
    "operations": "--operations",
    "hot_keys": "--hot-keys",
    "loss": "--loss",
    "clock_jump_s": "--clock-jump",
}


def simulate(
    seeds: str, scenario: Scenario, *, processes: int, is_traced: bool = False, is_matrix: bool = False
) -> bool:
    """Run every seed of ``seeds`` ("FIRST:END", or one) and print the sum last; tell whether all promises held.

    Args:
        scenario: its workload may be `EVERY`.
        is_matrix: run the seeds for each workload and each nemesis, and print the table of it.

    Raises:
        ConfigurationError: ``seeds`` is neither, or the scenario names what there is not.
    """
    runs = _matrix_of(_seeds(seeds), scenario) if is_matrix else _runs_of(_seeds(seeds), scenario)
    console = Console(soft_wrap=True, highlight=False)
    began = time.perf_counter()
    total, matrix = Sum(), Matrix()
    with _outcomes(runs, processes) as outcomes:
        for outcome in track(outcomes, "simulating", total=len(runs), console=console, disable=not console.is_terminal):
            total.add(outcome)
            matrix.add(outcome)
            _tell(console, outcome, is_traced=is_traced)
    if is_matrix:
        console.print(matrix.markdown(), markup=False)
    console.print(total.line(time.perf_counter() - began))
    return not total.violations


def list_all() -> None:
    """Print the workloads, the nemeses and the checkers."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("[bold]workloads[/bold]")
    for name, workload in WORKLOADS.items():
        _tell_name(console, name, (inspect.getdoc(inspect.getmodule(workload)) or "").splitlines()[0])
    console.print("[bold]nemeses[/bold]")
    _tell_name(console, "none", "Nothing goes wrong.")
    for name, faults in FAMILIES.items():
        _tell_name(console, name, (inspect.getdoc(inspect.getmodule(faults[0])) or "").splitlines()[0])
        for fault in faults:
            _tell_name(console, f"  {fault.__name__.replace('_', ' ')}", (fault.__doc__ or "").splitlines()[0])
    _tell_name(console, "all", "Faults of every family, at the same time.")
    console.print("[bold]checkers[/bold]")
    for name in checkers.names():
        _tell_name(console, name, checkers.PROMISES[name])


def _runs_of(seeds: range, scenario: Scenario) -> list[tuple[int, Scenario]]:
    if scenario.workload != EVERY:
        scenario.check()
        return [(seed, scenario) for seed in seeds]
    each = [_with(scenario, workload=workload) for workload in WORKLOADS]
    each[0].check()
    return [(seed, each[seed % len(each)]) for seed in seeds]


def _matrix_of(seeds: range, scenario: Scenario) -> list[tuple[int, Scenario]]:
    return [
        (seed, _with(scenario, workload=workload, nemesis=nemesis))
        for nemesis in NEMESES
        for workload in WORKLOADS
        for seed in seeds
    ]


def _with(scenario: Scenario, **changes: str) -> Scenario:
    return msgspec.structs.replace(scenario, **changes)


@contextlib.contextmanager
def _outcomes(runs: Sequence[tuple[int, Scenario]], processes: int) -> Iterator[Iterator[Outcome]]:
    """Run all, in this process if there is to be only one."""
    if processes == 1 or len(runs) == 1:
        yield (run_scenario(seed, scenario) for seed, scenario in runs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool.map(run_scenario, *zip(*runs, strict=True), chunksize=4)


def _tell(console: Console, outcome: Outcome, *, is_traced: bool) -> None:
    if is_traced:
        console.print(*outcome.timeline, sep="\n", markup=False)
    for violation in outcome.violations:
        console.print(f"seed {outcome.seed}: {violation}", markup=False)
    if outcome.violations and not is_traced:
        console.print(f"  replay: merganser sim --seeds {outcome.seed} --trace{_options(outcome.scenario)}")


def _tell_name(console: Console, name: str, summary: str) -> None:
    console.print(f"  {name:<20} {summary}", markup=False)


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        chosen = range(int(first), int(end) if end else int(first) + 1)
    except ValueError:
        chosen = range(0)
    if not chosen or chosen.start < 0:
        raise ConfigurationError(f"--seeds must be FIRST:END with FIRST below END, or one seed, not {text!r}")
    return chosen


def _options(scenario: Scenario) -> str:
    """Return what the command line must say to get this scenario again."""
    told = [
        f" {option} {getattr(scenario, name)}"
        for name, option in _OPTIONS.items()
        if name == "workload" or getattr(scenario, name) != getattr(Scenario(), name)
    ]
    return "".join(told)
