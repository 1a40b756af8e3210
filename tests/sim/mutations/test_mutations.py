"""The simulator is an instrument, and this tests it: every planted bug is found."""

from __future__ import annotations

import pytest

from sim.mutations.hunt import hunt
from sim.mutations.planting import MECHANISMS, PLANTED, Planted
from sim.mutations.table import PAGE, page


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, id=bug.name, marks=[pytest.mark.soak] * bug.is_soak) for bug in PLANTED]
)
def test_a_planted_bug_is_found(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hunt(bug, monkeypatch, likely_first=True)
    assert found.is_found, f"{bug.name} survived {found.seeds} seeds; others that spoke up: {found.checkers}"


def test_each_mechanism_is_broken_by_a_planted_bug() -> None:
    assert {bug.mechanism for bug in PLANTED} == set(MECHANISMS)


def test_the_table_in_the_docs_is_what_its_command_writes() -> None:
    assert PAGE.read_text() == page(), "run PYTHONPATH=tests .venv/bin/python -m sim.mutations.table"
