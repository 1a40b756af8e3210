"""Look for a planted bug, seed by seed, until a checker that is to find it speaks up."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from merganser.sim.scenario import run_scenario
from sim.mutations import (  # noqa: F401  # they plant
    planted,
    planted_clients,
    planted_conditions,
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
    planted_policies,
    planted_siblings,
    planted_splits,
    planted_tags,
)
from sim.mutations.planting import PLANTED, Planted

CHEAP_S = 0.8
"""Of CPU: no cheaper seed is looked for."""
LOOK_S = 4.0


class Found(msgspec.Struct, frozen=True):
    """What came of a hunt."""

    seeds: int
    """Run until it was found, or in vain."""
    is_found: bool
    checkers: tuple[str, ...]
    """All that spoke up."""


class Renewed(msgspec.Struct, frozen=True):
    """Which seed finds a bug soonest."""

    name: str
    seed: int | None
    """None: no seed found it."""
    cpu_s: float
    """Of the run with that seed."""
    tried: int
    found: int


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
    with pytest.MonkeyPatch.context() as patch:
        return hunt(_named(name), patch)


def renewed(name: str) -> Renewed:
    """Return the cheapest of the seeds that find a bug, of those that `LOOK_S` of CPU are enough for, and one more."""
    bug = _named(name)
    best: tuple[float, int] | None = None
    tried = found = 0
    began = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        for seed in dict.fromkeys((bug.likely, *range(bug.seeds_max))):
            start = time.process_time()
            told = {violation.checker for violation in run_scenario(seed, bug.scenario).violations}
            spent = time.process_time() - start
            tried += 1
            if told & set(bug.checkers):
                found += 1
                best = min(best, (spent, seed)) if best else (spent, seed)
            if best and (best[0] < CHEAP_S or time.process_time() - began > LOOK_S):
                break
    return Renewed(name, best[1] if best else None, best[0] if best else 0.0, tried, found)


def write_renewed(notes: Mapping[str, tuple[int, bool]]) -> None:
    """Note in the source of each bug which seed is likely to find it, and whether the soak alone is to hunt for it."""
    blocks = {name: _source(name) for name in notes}  # all before any is written, as lines move then
    for name, (path, block) in blocks.items():
        seed, is_soak = notes[name]
        decorator, definition, body = block.partition("\ndef ")
        without = re.sub(r",\s*(likely=\d+|is_soak=True)", "", decorator)
        said = f", likely={seed}" * bool(seed) + ", is_soak=True" * is_soak
        decorator = re.sub(r"mechanism=\w+", rf"\g<0>{said}", without)
        text = path.read_text()
        assert text.count(block) == 1, f"{name} in {path}"
        path.write_text(text.replace(block, decorator + definition + body))


def _source(name: str) -> tuple[Path, str]:
    plant = _named(name).plant
    return Path(inspect.getsourcefile(plant) or ""), "".join(inspect.getsourcelines(plant)[0])


def _named(name: str) -> Planted:
    (bug,) = (bug for bug in PLANTED if bug.name == name)
    return bug
