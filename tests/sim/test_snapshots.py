"""Snapshots of whole simulated clusters hold what was acknowledged, and come back in clusters of another size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from merganser.core.transaction import Fate
from merganser.model.ids import NodeId
from merganser.service import copies, transaction_steps
from merganser.service.read_repair import Reconciled
from merganser.service.standstill import Standstill
from merganser.storage.values import decode_row
from sim.snapshot_hunt import Hunt, Restore, hunt

SEEDS = range(3)
TRIES = 40


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_holds_what_was_acknowledged_before_it_and_is_restored_so(seed: int) -> None:
    run = Hunt(seed)
    assert run.run() == []
    assert run.snapshots
    assert Restore(seed, run.snapshots[-1]).run() == []


def test_snapshots_that_are_taken_while_partitions_move_hold_what_was_acknowledged() -> None:
    run = Hunt(3, moves=True)
    assert run.run() == []
    assert any(one.map.pending or one.map.settling for one in run.snapshots)


@pytest.mark.soak
def test_a_hundred_clusters_give_snapshots_while_partitions_move() -> None:
    moving = torn = 0
    for seed in range(2000, 2100):
        run = Hunt(seed, moves=True)
        assert run.run() == [], f"seed {seed}"
        moving += sum(bool(one.map.pending or one.map.settling) for one in run.snapshots)
        torn += run.torn
    assert moving > 100
    assert torn > 0


@pytest.mark.soak
def test_two_hundred_clusters_give_snapshots_that_hold_what_was_acknowledged() -> None:
    taken = complete = 0
    for seed in range(1000, 1200):
        run = Hunt(seed)
        assert run.run() == [], f"seed {seed}"
        taken += len(run.snapshots)
        complete += sum(one.is_complete for one in run.snapshots)
        if run.snapshots:
            assert Restore(seed, run.snapshots[-1]).run() == [], f"seed {seed}"
    assert taken > complete > 200


def nothing_stands_still(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Standstill, "is_on", False)


def transactions_applied_meanwhile(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction_steps, "_when_nothing_stands_still", lambda step, _check: step)


def intents_taken_for_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copies.Copies, "_fate", lambda *_: Fate.VOID)


def one_replica_believed(patch: pytest.MonkeyPatch) -> None:
    def first(key: bytes, answers: Mapping[NodeId, bytes | None], _horizon_of: Callable[[NodeId], int]) -> Reconciled:
        stored = next(iter(answers.values()), None)
        return Reconciled(None if stored is None else decode_row(key, stored), ())

    patch.setattr(copies, "reconcile", first)


def latest_version_not_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copies, "max", lambda registers, key: min(registers, key=key), raising=False)


PLANTED: list[tuple[Callable[[pytest.MonkeyPatch], None], int]] = [
    (nothing_stands_still, 7),
    (transactions_applied_meanwhile, 7),
    (intents_taken_for_nothing, 13),
    (one_replica_believed, 3),
    (latest_version_not_taken, 0),
]
"""Deliberate bugs, and the seed from which each was found; those that need more luck: `service/test_copies.py`."""


@pytest.mark.parametrize(("plant", "seed"), PLANTED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_planted_bugs_are_found(plant: Callable[[pytest.MonkeyPatch], None], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert hunt(range(seed, seed + TRIES)), f"{plant.__name__} was not found"
