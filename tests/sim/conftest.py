"""Simulated machines compare their replicas row by row, straight on their disks, as long as no exchange does it."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.sim.world import World
from service.full_exchange import compare_in_full


@pytest.fixture(autouse=True)
def whole_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    real = World.__init__

    def init(self: World, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        compare_in_full(self)

    monkeypatch.setattr(World, "__init__", init)
