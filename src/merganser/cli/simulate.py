"""``merganser sim``: many seeds of the simulator, their sum, and how to replay what failed."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec
from rich.console import Console
from rich.progress import track

from merganser.model.errors import ConfigurationError
from merganser.sim.scenario import Outcome, Scenario, run_scenario

_OPTIONS = {"machines": "--machines", "operations": "--operations", "clock_jump_s": "--clock-jump"}


def simulate(seeds: str, scenario: Scenario, *, processes: int, is_traced: bool) -> bool:
    """Run every seed of ``seeds`` ("FIRST:END", or one) and print the sum last; tell whether all promises held.

    Raises:
        ConfigurationError: ``seeds`` is neither.
    """
    chosen = _seeds(seeds)
    console = Console(soft_wrap=True, highlight=False)
    began = time.perf_counter()
    total = Sum()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = pool.map(functools.partial(run_scenario, scenario=scenario), chosen, chunksize=4)
        for outcome in track(runs, "simulating", total=len(chosen), console=console, disable=not console.is_terminal):
            total.add(outcome)
            if is_traced:
                console.print(*outcome.timeline, sep="\n", markup=False)
            for violation in outcome.violations:
                console.print(f"seed {outcome.seed}: {violation}", markup=False)
            if outcome.violations and not is_traced:
                console.print(f"  replay: merganser sim --seeds {outcome.seed} --trace{_options(scenario)}")
    console.print(total.line(time.perf_counter() - began))
    return total.violations == 0


class Sum(msgspec.Struct):
    """What all runs came to."""

    seeds: int = 0
    acked: int = 0
    unknown: int = 0
    reads: int = 0
    crashes: int = 0
    lost: int = 0
    virtual_s: float = 0.0
    violations: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.seeds += 1
        self.acked += outcome.acked
        self.unknown += outcome.unknown
        self.reads += outcome.reads
        self.crashes += outcome.crashes
        self.lost += outcome.lost
        self.virtual_s += outcome.virtual_s
        self.violations += len(outcome.violations)

    def line(self, real_s: float) -> str:
        """Return the sum in one line."""
        return (
            f"{self.seeds:,} seeds: {self.acked:,} writes acknowledged, {self.unknown:,} of unknown outcome, "
            f"{self.reads:,} reads, {self.crashes:,} crashes, {self.lost:,} messages lost, "
            f"{self.virtual_s / 3600:.2f} simulated hours in {real_s:.0f} s, {self.violations:,} violations"
        )


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
        if getattr(scenario, name) != getattr(Scenario(), name)
    ]
    if scenario.losses != Scenario().losses:
        told.append(f" --loss {scenario.losses[-1]}")
    return "".join(told)
