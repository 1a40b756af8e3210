"""Write the table of planted bugs in docs/internals/simulation.md: what is broken, in which world, and who has to tell.

    PYTHONPATH=tests .venv/bin/python -m sim.mutations.table

Nothing is run for it: which seeds find a bug changes with every change of the order of events.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from merganser.sim.scenario import Scenario
from sim.mutations import hunt  # noqa: F401  # has all bugs planted
from sim.mutations.planting import MECHANISMS, PLANTED

PAGE = Path(__file__).parents[3] / "docs" / "internals" / "simulation.md"
HEAD = "| mechanism | planted bug | scenario | one of these must tell |\n|---|---|---|---|\n"


def page() -> str:
    """Return the page with the table as the bugs are now."""
    before, after = PAGE.read_text().split(HEAD)
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    rows = [
        f"| {bug.mechanism} | {bug.name.replace('_', ' ')} | {world_of(bug.scenario)} | {', '.join(bug.checkers)} |\n"
        for bug in sorted(PLANTED, key=lambda bug: MECHANISMS.index(bug.mechanism))
    ]
    return "".join([before, HEAD, *rows, *rest])


def world_of(scenario: Scenario) -> str:
    """Return in which members a scenario differs from the usual one."""
    usual = msgspec.structs.asdict(Scenario())
    changed = [f"{name} {value}" for name, value in msgspec.structs.asdict(scenario).items() if value != usual[name]]
    return ", ".join(changed).replace("_", " ") or "the usual one"


if __name__ == "__main__":
    PAGE.write_text(page())
