"""Print which planted bugs the simulator finds, by which checkers and after how many seeds.

    PYTHONPATH=tests .venv/bin/python -m sim.mutations [NAME ...]

With `--renew` it prints for each the seed that finds it at the least cost, and notes that in its source as the likely
one: what changes the order of events makes other seeds likely. Bugs that are dear to find are left to the soak, where
others show that their mechanism is looked at. The exit status is 1 if one survived. The table of the docs is written by
`sim.mutations.table`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sim.mutations.hunt import Found, Renewed, found_by_name, renewed, write_renewed
from sim.mutations.planting import MECHANISMS, PLANTED, Planted
from sim.mutations.table import world_of

DEAR_S = 1.2
"""Of CPU: what takes longer to find is left to the soak, if another of its mechanism is found sooner."""


def main(names: Sequence[str]) -> int:
    """Hunt for the bugs of these names, or for all; returns the exit status."""
    if names and names[0] == "--renew":
        return _renew(_chosen(names[1:]))
    bugs = _chosen(names)
    found = _each(found_by_name, bugs)
    print("| mechanism | planted bug | scenario | told by | seeds |\n|---|---|---|---|---:|")  # noqa: T201
    for bug, result in zip(bugs, found, strict=True):
        print(_row(bug, result))  # noqa: T201
    return 0 if all(result.is_found for result in found) else 1


def _renew(bugs: Sequence[Planted]) -> int:
    found: list[Renewed] = sorted(_each(renewed, bugs), key=lambda one: (one.seed is None, one.cpu_s))
    mechanisms = {bug.name: bug.mechanism for bug in bugs}
    cheapest = {mechanisms[one.name]: one.name for one in reversed(found)}.values()
    for one in found:
        seed = "found by none" if one.seed is None else f"seed {one.seed}, {one.cpu_s:.1f} s of CPU"
        print(f"{one.name}: {seed} ({one.found} of {one.tried} seeds tried)")  # noqa: T201
    write_renewed(
        {one.name: (one.seed, one.cpu_s > DEAR_S and one.name not in cheapest) for one in found if one.seed is not None}
    )
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(Path(__file__).parent)], check=True)
    return 0 if all(one.seed is not None for one in found) else 1


def _chosen(names: Sequence[str]) -> list[Planted]:
    """Return the bugs of these names, or all, by mechanism."""
    return sorted(
        (bug for bug in PLANTED if not names or bug.name in names), key=lambda bug: MECHANISMS.index(bug.mechanism)
    )


def _each(of: Callable[[str], Any], bugs: Sequence[Planted]) -> list[Any]:
    """Return what comes of each bug, in processes of their own."""
    with get_context("spawn").Pool(
        os.cpu_count(), maxtasksperchild=8
    ) as pool:  # what is planted makes objects that stay
        return list(pool.imap(of, [bug.name for bug in bugs]))


def _row(bug: Planted, found: Found) -> str:
    seeds = f"{found.seeds}" if found.is_found else f"**not found in {found.seeds}**"
    named = f"{bug.mechanism} | {bug.name.replace('_', ' ')} | {world_of(bug.scenario)}"
    return f"| {named} | {', '.join(found.checkers)} | {seeds} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
