"""``merganser sim``: a sum, an exit status, and a replay of what failed."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial

import msgspec
import pytest

from merganser.cli.simulate import EVERY, list_all, simulate
from merganser.model.errors import ConfigurationError
from merganser.sim import checkers
from merganser.sim.checkers import Violation
from merganser.sim.matrix import Matrix
from merganser.sim.nemeses import NEMESES
from merganser.sim.scenario import Scenario, run_scenario
from merganser.sim.workloads import WORKLOADS
from sim.mutations.planted import coordinator_never_repairs


def test_runs_that_keep_their_promises_end_with_their_sum_and_status_0() -> None:
    command = [sys.executable, "-m", "merganser.cli", "sim", "--seeds", "3:7", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("4 seeds: ")
    assert last.endswith(" 0 violations")


def test_a_broken_promise_is_told_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator_never_repairs(monkeypatch)
    scenario = Scenario(workload=EVERY, nodes=4, clock_jump_s=7.5, repair_interval_s=1e9)
    told: list[str] = []
    for seed in range(27, 120):  # the first shows it, unless the order of events has changed
        if not simulate(f"{seed}:{seed + 1}", scenario, processes=1):
            told = capsys.readouterr().out.splitlines()
            if any(": convergence: " in line for line in told):
                break
    violation = next(line for line in told if ": convergence: " in line)
    seed = int(violation.split(":")[0].removeprefix("seed "))
    workload = list(WORKLOADS)[seed % len(WORKLOADS)]
    options = f"--workload {workload} --nodes 4 --clock-jump 7.5 --repair-interval 1000000000.0"
    assert f"  replay: merganser sim --seeds {seed} --trace {options}" in told
    assert not told[-1].endswith(" 0 violations")


def test_a_trace_tells_faults_requests_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("3", Scenario(), processes=1, is_traced=True)
    told = capsys.readouterr().out
    assert "-> nothing" in told
    assert " s by node " in told
    assert "fault: " in told
    assert "all is healed" in told


def test_a_matrix_has_a_row_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("5", Scenario(workload=EVERY, nemesis="none", operations=3), processes=1, is_matrix=True)
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| ") for line in told) == len(WORKLOADS) + 3  # head, rule, sum
    assert told[0] == "| workload | none | runs | operations | faults | hours |"


def test_a_matrix_has_a_column_for_each_nemesis(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("5", Scenario(workload="tables"), processes=1, is_matrix=True)
    told = capsys.readouterr().out.splitlines()
    assert told[0].split(" | ")[1:-4] == list(NEMESES)
    assert told[2].startswith(f"| tables | {'0 | ' * len(NEMESES)}{len(NEMESES)} | ")


def test_a_matrix_of_one_workload_and_one_nemesis_has_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("5:7", Scenario(workload="tables", nemesis="crashes"), processes=1, is_matrix=True)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("| workload | crashes | runs | ")
    assert told[2].startswith("| tables | 0 | 2 | ")
    assert told[3].startswith("| **all** | 0 | 2 | ")
    assert "Violations: none." in told


def test_a_matrix_tells_what_was_violated_where_it_was() -> None:
    matrix, scenario = Matrix(), Scenario(workload="tables", nemesis="crashes")
    well = run_scenario(5, scenario)
    broken = msgspec.structs.replace(well, violations=[Violation("maps", "two maps"), Violation("held", "nothing")])
    for outcome in (well, broken, msgspec.structs.replace(well, scenario=Scenario(workload="items", nemesis="none"))):
        matrix.add(outcome)
    told = matrix.markdown().splitlines()
    assert told[0].startswith("| workload | crashes | none | runs | ")
    assert told[2].startswith("| tables | 2 |  | 2 | ")
    assert told[3].startswith("| items |  | 0 | 1 | ")
    assert told[4].startswith("| **all** | 2 | 0 | 3 | ")
    assert "Violations: held 1, maps 1." in told


def test_ctrl_c_ends_a_long_hunt_with_the_sum_so_far() -> None:
    command = [sys.executable, "-m", "merganser.cli", "sim", "--seeds", "0:1000000", "--processes", "2", "--trace"]
    command += ["--nemesis", "none", "--operations", "3"]  # runs that were handed out are finished first
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where these tests run in the background
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeded
    ) as hunt:
        assert hunt.stdout is not None
        assert " s " in hunt.stdout.readline()  # the first run is over
        hunt.send_signal(signal.SIGINT)
        told, complaints = hunt.communicate(timeout=60)
    assert hunt.returncode == 0, complaints
    assert "stopped after " in told.splitlines()[-2]
    assert told.splitlines()[-1].endswith(" 0 violations")
    assert complaints == ""


def test_the_list_names_workloads_nemeses_and_checkers(capsys: pytest.CaptureFixture[str]) -> None:
    list_all()
    told = capsys.readouterr().out
    for name in [*WORKLOADS, *NEMESES, *checkers.names()]:
        assert f"\n  {name} " in told


@pytest.mark.parametrize("seeds", ["", "a", "5:5", "9:3", "-3:4", "1:2:3"])
def test_seeds_that_are_none_are_refused(seeds: str) -> None:
    with pytest.raises(ConfigurationError, match="FIRST:END"):
        simulate(seeds, Scenario(), processes=1)


@pytest.mark.parametrize("scenario", [Scenario(workload="x"), Scenario(workload=EVERY, nemesis="x")])
def test_names_that_there_are_not_are_refused(scenario: Scenario) -> None:
    with pytest.raises(ConfigurationError, match="is called 'x'"):
        simulate("1", scenario, processes=1)
