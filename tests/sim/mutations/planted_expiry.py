"""Deliberate bugs in how items expire; see `planting`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from merganser.core import expiry
from merganser.model.cluster import Table
from merganser.model.register import EMPTY, Decided
from merganser.service import expiry_index
from merganser.service.expirer import Expirer
from merganser.service.expiry_index import Due, Expiring, ExpiryIndex, Place
from merganser.service.kept_trees import KeptTrees
from merganser.service.steps import Step
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import seal
from sim.mutations.planting import EXPIRY, planted


@planted("expiries", mechanism=EXPIRY, likely=2, workload="expiries", nemesis="none")
def items_expire_without_a_margin(patch: pytest.MonkeyPatch) -> None:
    def due_between(now_s: float) -> tuple[int, int]:
        return 0, int(now_s) + 1

    patch.setattr(expiry, "due_between", due_between)
    patch.setattr(expiry_index, "due_between", due_between)


@planted("expiries", mechanism=EXPIRY, likely=5, workload="expiries", nemesis="none")
def it_is_decided_when_an_entry_is_found_and_not_when_the_item_is_removed(patch: pytest.MonkeyPatch) -> None:
    real = Expirer._remove

    def step_of(_self: Expirer, _table: Table, _payload: bytes) -> Step:
        return lambda content: Decided(None if content.value is None else EMPTY)

    async def remove(self: Expirer, table: Table, due: Sequence[Due]) -> int:
        await asyncio.sleep(0.3)  # as it takes where a leader is looked for
        return await real(self, table, due)

    patch.setattr(Expirer, "_step_of", step_of)
    patch.setattr(Expirer, "_remove", remove)


@planted("times", "expiries", mechanism=EXPIRY, likely=1, workload="expiries", nemesis="none")
def items_from_before_the_table_expires_are_not_walked(patch: pytest.MonkeyPatch) -> None:
    def walk(self: ExpiryIndex, place: Place, expiring: Expiring, start: bytes | None) -> None:
        mark = expiry_index._mark(place)
        self._engine.commit(Batch().put(mark, seal(mark, expiring.identity)))

    patch.setattr(ExpiryIndex, "walk", walk)


@planted("times", "expiries", mechanism=EXPIRY, likely=1, workload="expiries", nemesis="none")
def entries_do_not_move_when_an_item_is_overwritten(patch: pytest.MonkeyPatch) -> None:
    real = ExpiryIndex.changes

    def changes(
        self: ExpiryIndex, expiring: Expiring, place: Place, key: bytes, before: bytes | None, after: bytes | None
    ) -> list[tuple[bytes, bytes | None]]:
        return real(self, expiring, place, key, before, after) if before is None or after is None else []

    patch.setattr(ExpiryIndex, "changes", changes)


@planted("times", "expiries", mechanism=EXPIRY, likely=1, workload="expiries", nemesis="none")
def trees_do_not_hear_that_a_table_begins_to_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeptTrees, "learn", KeptTrees.forget_dropped)


@planted("times", "expiries", mechanism=EXPIRY, likely=2, workload="expiries", nemesis="none")
def an_entry_is_dropped_before_its_item_is_removed(patch: pytest.MonkeyPatch) -> None:
    real = Expirer._remove

    async def remove(self: Expirer, table: Table, due: Sequence[Due]) -> int:
        for entry in due:
            place = (table.id, self._topology.ring.partition_of(keys.token_in(entry.key)))
            self._index._engine.commit(Batch().delete(expiry_index._entry(place, entry.at_s, entry.key)))
        return await real(self, table, due) if self._rng.random() < 0.5 else 0  # as if no leader had been found

    patch.setattr(Expirer, "_remove", remove)
