"""Whole clusters under faults: acknowledged writes stay, replicas converge, and planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from merganser.model.consistency import Consistency
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Done
from merganser.service.asking import Writing
from merganser.service.coordinator import Coordinator
from merganser.service.read_repair import ReadRepair
from merganser.service.replica import Replica
from merganser.sim.scenario import Outcome, Scenario, run_scenario
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine

SEEDS_IN_CI = 250
SEEDS_IN_SOAK = 20_000
HARD = Scenario(machines=5, partitions=8, losses=(0.5,), clock_jump_s=40.0, operations=50, hot_keys=1)
HUNTS_MAX = 300  # a planted bug that survives this many seeds was not found


def _failures(seeds: range, scenario: Scenario) -> list[str]:
    return [f"seed {seed}: {violation}" for seed in seeds for violation in run_scenario(seed, scenario).violations]


def _hunt(scenario: Scenario) -> Outcome | None:
    """Return the first outcome that violates something."""
    return next((o for o in (run_scenario(seed, scenario) for seed in range(HUNTS_MAX)) if o.violations), None)


def test_every_acknowledged_write_is_read_back_at_quorum_and_replicas_converge() -> None:
    outcomes = [run_scenario(seed) for seed in range(SEEDS_IN_CI)]
    assert [f"seed {o.seed}: {o.violations}" for o in outcomes if o.violations] == []
    # the hunt is worth nothing unless things really went wrong
    assert sum(o.crashes for o in outcomes) > SEEDS_IN_CI
    assert sum(o.unknown for o in outcomes) > 0
    assert sum(o.lost for o in outcomes) > 0
    assert sum(o.repairs for o in outcomes) > 0


def test_a_cluster_larger_than_its_replication_factor_keeps_its_promises() -> None:
    scenario = Scenario(machines=5, zones=3, partitions=8)
    assert _failures(range(1000, 1040), scenario) == []


@pytest.mark.parametrize(
    "scenario",
    [Scenario(losses=(0.4, 0.6)), Scenario(clock_jump_s=40.0), Scenario(machines=4, zones=2, partitions=4, hot_keys=1)],
    ids=["heavy loss", "wild clocks", "unequal zones"],
)
def test_harder_worlds_change_nothing(scenario: Scenario) -> None:
    assert _failures(range(2000, 2025), scenario) == []


def test_a_write_that_one_replica_took_and_the_others_refused_is_not_called_unwritten() -> None:
    assert run_scenario(0, Scenario(clock_jump_s=120.0)).violations == []  # failed once


def test_replicas_converge_though_clocks_and_quick_restarts_put_rows_a_minute_ahead() -> None:
    assert run_scenario(100_670, HARD).violations == []  # failed while repairs were judged before they could be taken


@pytest.mark.soak
@pytest.mark.parametrize(
    "scenario",
    [Scenario(), HARD],
    ids=["default", "hard"],
)
def test_thousands_of_seeds(scenario: Scenario) -> None:
    assert _failures(range(10_000, 10_000 + SEEDS_IN_SOAK), scenario) == []


def test_one_seed_gives_one_run_whatever_the_hash_seed() -> None:
    script = "from merganser.sim.scenario import run_scenario; print(run_scenario(7).trace)"
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
    assert traces == {run_scenario(7).trace + "\n"}


# The checker finds what it is there to find.


class _ForgetfulEngine(MemoryEngine):
    """Says that everything is durable at once, and it is not."""

    def is_durable(self, key: bytes) -> bool:
        return True

    async def durable(self) -> None:
        return


def test_acks_before_the_fsync_are_caught() -> None:
    assert _hunt(Scenario(engine_type=_ForgetfulEngine)) is not None


def test_writes_acknowledged_by_one_replica_are_caught() -> None:
    assert _hunt(Scenario(write_level=Consistency.ONE)) is not None


def test_reads_of_one_replica_are_caught() -> None:
    assert _hunt(Scenario(read_level=Consistency.ONE)) is not None


def test_a_replica_that_overwrites_instead_of_merging_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def overwrite(self: Replica, sender: NodeId, request: Apply) -> Done:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        self._engine.commit(Batch().put(request.key, request.row))
        await self._engine.durable()
        return Done()

    monkeypatch.setattr(Replica, "apply", overwrite)
    assert _hunt(Scenario()) is not None


def test_a_coordinator_that_never_repairs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave_alone(_self: Coordinator, *_of_the_read: object) -> None:
        return

    monkeypatch.setattr(Coordinator, "_bring_up", leave_alone)
    monkeypatch.setattr(ReadRepair, "look", lambda _self, _read, _row, **_replicas: None)
    outcome = _hunt(Scenario())
    assert outcome is not None
    assert any("converge" in violation for violation in outcome.violations)


def test_a_coordinator_that_calls_an_unknown_outcome_unwritten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writing, "is_certainly_unwritten", True)
    outcome = _hunt(Scenario())
    assert outcome is not None
    assert any("refused, yet written" in violation for violation in outcome.violations)
