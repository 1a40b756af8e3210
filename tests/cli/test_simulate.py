"""``merganser sim``: a sum, an exit status, and a replay of what failed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from merganser.cli.simulate import simulate
from merganser.model.consistency import Consistency
from merganser.model.errors import ConfigurationError
from merganser.sim.scenario import Scenario


def test_runs_that_keep_their_promises_end_with_their_sum_and_status_0() -> None:
    command = [sys.executable, "-m", "merganser.cli", "sim", "--seeds", "3:7", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("4 seeds: ")
    assert last.endswith(" 0 violations")


def test_a_broken_promise_is_told_with_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = Scenario(machines=4, read_level=Consistency.ONE)
    assert not simulate("0:20", scenario, processes=2, is_traced=False)
    told = capsys.readouterr().out.splitlines()
    violation = next(line for line in told if ": lost: " in line)
    seed = violation.split(":")[0].removeprefix("seed ")
    assert f"  replay: merganser sim --seeds {seed} --trace --machines 4" in told
    assert not told[-1].endswith(" 0 violations")


def test_a_trace_tells_faults_requests_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("3", Scenario(), processes=1, is_traced=True)
    told = capsys.readouterr().out
    assert "-> nothing" in told
    assert " s by node " in told
    assert "the network is well" in told


@pytest.mark.parametrize("seeds", ["", "a", "5:5", "9:3", "-3:4", "1:2:3"])
def test_seeds_that_are_none_are_refused(seeds: str) -> None:
    with pytest.raises(ConfigurationError, match="FIRST:END"):
        simulate(seeds, Scenario(), processes=1, is_traced=False)
