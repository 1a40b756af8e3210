"""Look for a planted bug, seed by seed, until a checker that is to find it speaks up."""

from __future__ import annotations

import msgspec
import pytest

from merganser.sim.scenario import run_scenario
from sim.mutations import (  # noqa: F401  # they plant
    planted,
    planted_clients,
    planted_crdts,
    planted_data_centers,
    planted_exchange,
    planted_expiry,
    planted_indexes,
    planted_leaders,
    planted_led_repair,
    planted_local_indexes,
    planted_moves,
    planted_nodes,
    planted_siblings,
    planted_splits,
    planted_tags,
)
from sim.mutations.planting import PLANTED, Planted


class Found(msgspec.Struct, frozen=True):
    """What came of a hunt."""

    seeds: int
    """Run until it was found, or in vain."""
    is_found: bool
    checkers: tuple[str, ...]
    """All that spoke up."""


def hunt(bug: Planted, patch: pytest.MonkeyPatch, *, likely_first: bool = False) -> Found:
    """Plant ``bug`` and run seeds from 0 on, before them the likely one if asked."""
    bug.plant(patch)
    told: set[str] = set()
    likely = (bug.likely,) if likely_first else ()
    for count, seed in enumerate((*likely, *range(bug.seeds_max)), start=1):
        told |= {violation.checker for violation in run_scenario(seed, bug.scenario).violations}
        if told & set(bug.checkers):
            return Found(count, True, tuple(sorted(told)))
    return Found(bug.seeds_max, False, tuple(sorted(told)))


def found_by_name(name: str) -> Found:
    """Hunt for one bug, in a process of its own or not."""
    (bug,) = (bug for bug in PLANTED if bug.name == name)
    with pytest.MonkeyPatch.context() as patch:
        return hunt(bug, patch)
