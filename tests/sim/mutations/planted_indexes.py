"""Deliberate bugs in global indexes; see `planting`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from merganser.model.cluster import Table
from merganser.model.register import Content
from merganser.service import indexer
from merganser.service.backfill import Backfiller
from merganser.service.indexer import Indexer
from merganser.service.outboxes import Outboxes
from sim.mutations.planting import INDEXES, planted

WRONG = ("indexes", "index looks")


@planted(
    *WRONG, mechanism=INDEXES, likely=9, is_soak=True, workload="indexes", nemesis="partitions+crashes", hot_keys=1
)
def outbox_forgotten_by_the_next_write(patch: pytest.MonkeyPatch) -> None:
    real = Outboxes.of_write

    def of_write(self: Outboxes, table: Table, key: bytes, before: Content, after: Content) -> Content:
        return real(self, table, key, Content(before.value, before.intent), after)

    patch.setattr(Outboxes, "of_write", of_write)


@planted(*WRONG, mechanism=INDEXES, is_soak=True, workload="indexes", nemesis="partitions+crashes")
def outbox_cleared_before_it_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    async def errors_of(asked: Collection[Any]) -> list[None]:
        return [None for _ in asked]

    patch.setattr(indexer, "_errors_of", errors_of)


@planted("outboxes", *WRONG, mechanism=INDEXES, likely=1, is_soak=True, workload="indexes", nemesis="crashes")
def outboxes_of_an_earlier_leader_left_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Indexer, "_elected", lambda _self, _led: None)


@planted(*WRONG, mechanism=INDEXES, likely=2, is_soak=True, workload="indexes", nemesis="crashes+partitions")
def outbox_lost_when_a_register_is_adopted(patch: pytest.MonkeyPatch) -> None:
    def of_adopted(_self: Outboxes, _table: Table, _key: bytes, adopted: Content, _met: object) -> Content:
        return Content(adopted.value, adopted.intent)

    patch.setattr(Outboxes, "of_adopted", of_adopted)


@planted(*WRONG, mechanism=INDEXES, likely=1, workload="indexes", nemesis="none")
def nothing_left_behind_by_a_transaction(patch: pytest.MonkeyPatch) -> None:
    real = Outboxes.of_write

    def of_write(self: Outboxes, table: Table, key: bytes, before: Content, after: Content) -> Content:
        return after if before.intent is not None else real(self, table, key, before, after)

    patch.setattr(Outboxes, "of_write", of_write)


@planted(*WRONG, mechanism=INDEXES, likely=1, workload="index-changes", nemesis="none")
def index_called_active_before_it_is_filled(patch: pytest.MonkeyPatch) -> None:
    async def fill(_self: Backfiller, _table: object, _index: object) -> None:
        return

    patch.setattr(Backfiller, "_fill", fill)
