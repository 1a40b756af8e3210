"""Print which planted bugs the simulator finds, and after how many seeds, as a table for the docs.

    PYTHONPATH=tests .venv/bin/python -m sim.mutations [NAME ...]

The exit status is 1 if one survived.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec

from merganser.sim.scenario import Scenario
from sim.mutations.hunt import Found, found_by_name
from sim.mutations.planting import MECHANISMS, PLANTED, Planted


def main(names: Sequence[str]) -> int:
    """Hunt for the bugs of these names, or for all; returns the exit status."""
    bugs = sorted(
        (bug for bug in PLANTED if not names or bug.name in names), key=lambda bug: MECHANISMS.index(bug.mechanism)
    )
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(found_by_name, [bug.name for bug in bugs]))
    print("| mechanism | planted bug | scenario | told by | seeds |\n|---|---|---|---|---:|")  # noqa: T201
    for bug, result in zip(bugs, found, strict=True):
        print(_row(bug, result))  # noqa: T201
    return 0 if all(result.is_found for result in found) else 1


def _row(bug: Planted, found: Found) -> str:
    usual = msgspec.structs.asdict(Scenario())
    changed = [
        f"{name} {value}" for name, value in msgspec.structs.asdict(bug.scenario).items() if value != usual[name]
    ]
    scenario = ", ".join(changed).replace("_", " ") or "the usual one"
    seeds = f"{found.seeds}" if found.is_found else f"**not found in {found.seeds}**"
    return f"| {bug.mechanism} | {bug.name.replace('_', ' ')} | {scenario} | {', '.join(found.checkers)} | {seeds} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
