"""``merganser sim``: many seeds of the simulator, their sum, and how to replay what failed."""

from __future__ import annotations

import contextlib
import gc
import inspect
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import msgspec
from rich.console import Console
from rich.progress import track

from merganser.model.errors import ConfigurationError
from merganser.sim import checkers
from merganser.sim.matrix import Matrix, Sum
from merganser.sim.nemeses import NEMESES, Fault
from merganser.sim.scenario import Outcome, Scenario, run_scenario
from merganser.sim.workloads import NAMED, WORKLOADS

EVERY = "every"
"""Instead of the name of a workload: one after another, seed by seed."""

AHEAD = 16
"""Runs handed out at a time for each process: they differ in length, and outcomes are told in order."""

YOUNG_OBJECTS_MAX = 20_000
"""What is made between two looks for cycles. Python's 700 took 17 % more CPU (16.9 and 18.8 s against 15.1 and 14.1 s
for ``--workload items --seeds 0:30``); a run then has 25 MB more."""

OLDER_LOOKS = (5, 2)
"""After how many looks at the young, and at those, the older are looked through. With Python's 10 and 10, what
simulated clusters left behind came to 3 GB in a process of tests that ran hundreds."""

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
    "repair_interval_s": "--repair-interval",
    "pace": "--pace",
    "data_centers": "--data-centers",
    "older": "--older",
}


def simulate(
    seeds: str, scenario: Scenario, *, processes: int, is_traced: bool = False, is_matrix: bool = False
) -> bool:
    """Run every seed of ``seeds`` ("FIRST:END", or one) and print the sum last; tell whether all promises held.

    Ctrl-C ends it early: the sum is that of the runs until then.

    Args:
        scenario: its workload may be `EVERY`.
        is_matrix: run the seeds for each workload and each nemesis, those that are named or all, and print the table.

    Raises:
        ConfigurationError: ``seeds`` is neither, or the scenario names what there is not.
    """
    chosen = _seeds(seeds)
    scenarios = _scenarios(scenario, is_matrix=is_matrix)
    count = len(chosen) * (len(scenarios) if is_matrix else 1)
    console = Console(soft_wrap=True, highlight=False)
    began = time.perf_counter()
    total, matrix = Sum(), Matrix()
    with _outcomes(_runs(chosen, scenarios, is_matrix=is_matrix), 1 if count == 1 else processes) as outcomes:
        try:
            for outcome in track(outcomes, "simulating", total=count, console=console, disable=not console.is_terminal):
                total.add(outcome)
                matrix.add(outcome)
                _tell(console, outcome, is_traced=is_traced)
        except KeyboardInterrupt:
            console.print(f"stopped after {total.seeds:,} of {count:,}")
    if is_matrix:
        console.print(matrix.markdown(), markup=False)
    console.print(total.line(time.perf_counter() - began))
    if versions := total.versions_line():
        console.print(versions)
    return not total.violations


def list_all() -> None:
    """Print the workloads, the nemeses and the checkers."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("[bold]workloads[/bold]")
    for name, workload in NAMED.items():
        _tell_name(console, name, (inspect.getdoc(inspect.getmodule(workload)) or "").splitlines()[0])
    console.print("[bold]nemeses[/bold]")
    _tell_name(console, "none", "Nothing goes wrong.")
    for name, families in NEMESES.items():
        if name == "all":
            _tell_name(console, name, "Faults of every family so far, at the same time.")
        elif families:
            _tell_family(console, name, families[0])
    console.print("[bold]checkers[/bold]")
    for name in checkers.names():
        _tell_name(console, name, checkers.PROMISES[name])


def _tell_family(console: Console, name: str, faults: Sequence[Fault]) -> None:
    _tell_name(console, name, (inspect.getdoc(inspect.getmodule(faults[0])) or "").splitlines()[0])
    for fault in faults:
        _tell_name(console, f"  {fault.__name__.replace('_', ' ')}", (fault.__doc__ or "").splitlines()[0])


def _scenarios(scenario: Scenario, *, is_matrix: bool) -> list[Scenario]:
    """Return what the seeds run, each checked: one after another, or in a matrix each seed all of them."""
    workloads = list(WORKLOADS) if scenario.workload == EVERY else [scenario.workload]
    nemeses = list(NEMESES) if is_matrix and scenario.nemesis == Scenario().nemesis else [scenario.nemesis]
    chosen = [_with(scenario, workload=workload, nemesis=nemesis) for nemesis in nemeses for workload in workloads]
    for one in chosen:
        one.check()
    return chosen


def _runs(seeds: range, scenarios: Sequence[Scenario], *, is_matrix: bool) -> Iterator[tuple[int, Scenario]]:
    if is_matrix:
        return ((seed, scenario) for scenario in scenarios for seed in seeds)
    return ((seed, scenarios[seed % len(scenarios)]) for seed in seeds)


def _with(scenario: Scenario, **changes: str) -> Scenario:
    return msgspec.structs.replace(scenario, **changes)


@contextlib.contextmanager
def _outcomes(runs: Iterable[tuple[int, Scenario]], processes: int) -> Iterator[Iterator[Outcome]]:
    """Run all, in this process if there is to be only one."""
    if processes == 1:
        _look_for_cycles_less_often()
        yield (run_scenario(seed, scenario) for seed, scenario in runs)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_prepare_process)
    try:
        yield _in_order(pool, runs, under_way_max=AHEAD * processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, runs: Iterable[tuple[int, Scenario]], *, under_way_max: int
) -> Iterator[Outcome]:
    """Yield the outcomes in the order of ``runs``, which may be millions: few are handed out ahead."""
    under_way: deque[Future[Outcome]] = deque()
    for seed, scenario in runs:
        under_way.append(pool.submit(run_scenario, seed, scenario))
        if len(under_way) >= under_way_max:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's
    _look_for_cycles_less_often()


def _look_for_cycles_less_often() -> None:
    gc.set_threshold(YOUNG_OBJECTS_MAX, *OLDER_LOOKS)


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
    first, colon, end = text.partition(":")
    try:
        chosen = range(int(first), int(end) if colon else int(first) + 1)
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
