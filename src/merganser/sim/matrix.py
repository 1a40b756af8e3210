"""What many runs came to, and the table of it: fault by workload by checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from merganser.sim import checkers
from merganser.sim.scenario import Outcome


class Sum(msgspec.Struct):
    """What runs came to together."""

    seeds: int = 0
    operations: int = 0
    acked: int = 0
    unknown: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    messages: int = 0
    lost: int = 0
    virtual_s: float = 0.0
    violations: Counter[str] = msgspec.field(default_factory=Counter)
    """By checker."""

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.seeds += 1
        self.operations += outcome.operations
        self.acked += outcome.acked
        self.unknown += outcome.unknown
        self.faults.update(outcome.faults)
        self.messages += outcome.messages
        self.lost += outcome.lost
        self.virtual_s += outcome.virtual_s
        self.violations.update(violation.checker for violation in outcome.violations)

    def line(self, real_s: float) -> str:
        """Return the sum in one line."""
        hours = self.virtual_s / 3600
        return (
            f"{self.seeds:,} seeds: {self.operations:,} operations, {self.acked:,} writes acknowledged, "
            f"{self.unknown:,} of unknown outcome, {self.faults.total():,} faults injected, "
            f"{self.lost:,} of {self.messages:,} messages lost, {hours:.2f} simulated hours in {real_s:.0f} s "
            f"({hours * 3600 / max(real_s, 0.001):,.0f} per hour), {self.violations.total():,} violations"
        )


class Matrix:
    """The sums of each nemesis and workload."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._cells: dict[tuple[str, str], Sum] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        scenario = outcome.scenario
        self._cells.setdefault((scenario.nemesis, scenario.workload), Sum()).add(outcome)

    def markdown(self) -> str:
        """Return the table, a row for each nemesis and workload, then what each fault came to."""
        names = checkers.names()
        head = ["nemesis", "workload", "seeds", "operations", "faults", "hours", *names, "violations"]
        table = [_row(head), _row(["---", "---", *["---:"] * (len(head) - 2)])]
        for (nemesis, workload), cell in self._cells.items():
            table.append(_row([nemesis, workload, *_figures(cell, names)]))
        total = _total(list(self._cells.values()))
        table.append(_row(["**all**", "", *_figures(total, names)]))
        faults = [f"{name} {count:,}" for name, count in sorted(total.faults.items())]
        return "\n".join([*table, "", f"Faults injected: {', '.join(faults) or 'none'}."])


def _figures(cell: Sum, names: Sequence[str]) -> list[str]:
    told = [f"{cell.seeds:,}", f"{cell.operations:,}", f"{cell.faults.total():,}", f"{cell.virtual_s / 3600:.1f}"]
    return told + [str(cell.violations[name]) for name in names] + [str(cell.violations.total())]


def _total(cells: list[Sum]) -> Sum:
    total = Sum()
    for cell in cells:
        for field in ("seeds", "operations", "acked", "unknown", "messages", "lost", "virtual_s"):
            setattr(total, field, getattr(total, field) + getattr(cell, field))
        total.faults.update(cell.faults)
        total.violations.update(cell.violations)
    return total


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
