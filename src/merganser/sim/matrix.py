"""What many runs came to, and the table of it: workload by fault."""

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
    versions: Counter[int] = msgspec.field(default_factory=Counter)
    """Reads of key-value tables, by how many values they returned."""
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
        self.versions.update(outcome.versions)
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

    def versions_line(self) -> str:
        """Return how many values the reads of key-value tables returned, in shares; empty if there were none."""
        reads = self.versions.total() - self.versions[0]
        if not reads:
            return ""
        shares = [f"{number}: {count / reads:.3%}" for number, count in sorted(self.versions.items()) if number]
        return f"values per read that found any, of {reads:,}: {', '.join(shares)}"


class Matrix:
    """The sums of each workload under each nemesis."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._cells: dict[tuple[str, str], Sum] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        scenario = outcome.scenario
        self._cells.setdefault((scenario.workload, scenario.nemesis), Sum()).add(outcome)

    def markdown(self) -> str:
        """Return the table, then which checkers told of violations, then how often each fault was injected.

        A row is a workload, a column a nemesis; where they meet is the number of violations that all checkers told.
        """
        workloads = list(dict.fromkeys(workload for workload, _ in self._cells))
        nemeses = list(dict.fromkeys(nemesis for _, nemesis in self._cells))
        head = ["workload", *nemeses, "runs", "operations", "faults", "hours"]
        table = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
        for workload in workloads:
            cells = [self._cells.get((workload, nemesis)) for nemesis in nemeses]
            table.append(_row([workload, *map(_violations, cells), *_figures(_total(cells))]))
        by_nemesis = [_total([self._cells.get((workload, nemesis)) for workload in workloads]) for nemesis in nemeses]
        total = _total(list(self._cells.values()))
        table.append(_row(["**all**", *map(_violations, by_nemesis), *_figures(total)]))
        told = [f"{name} {total.violations[name]}" for name in checkers.names() if total.violations[name]]
        faults = [f"{name} {count:,}" for name, count in sorted(total.faults.items())]
        return "\n".join(
            [
                *table,
                "",
                f"Violations: {', '.join(told) or 'none'}.",
                "",
                f"Faults injected: {', '.join(faults) or 'none'}.",
            ]
        )


def _violations(cell: Sum | None) -> str:
    return "" if cell is None else f"{cell.violations.total():,}"


def _figures(cell: Sum) -> list[str]:
    return [f"{cell.seeds:,}", f"{cell.operations:,}", f"{cell.faults.total():,}", f"{cell.virtual_s / 3600:.1f}"]


def _total(cells: Sequence[Sum | None]) -> Sum:
    total = Sum()
    for cell in cells:
        if cell is None:
            continue
        for field in ("seeds", "operations", "acked", "unknown", "messages", "lost", "virtual_s"):
            setattr(total, field, getattr(total, field) + getattr(cell, field))
        total.faults.update(cell.faults)
        total.versions.update(cell.versions)
        total.violations.update(cell.violations)
    return total


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
