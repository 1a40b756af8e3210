"""Deliberate bugs in local indexes; see `planting`."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.service import local_indexes
from merganser.service.local_indexes import LocalIndexes
from merganser.storage.registers import decode_register
from sim.mutations.planting import LOCAL_INDEXES, planted


@planted("local indexes", mechanism=LOCAL_INDEXES, workload="index-queries", nemesis="crashes")
def entry_left_where_the_item_was(patch: pytest.MonkeyPatch) -> None:
    real = LocalIndexes.changes

    def changes(self: LocalIndexes, *of: Any, **named: Any) -> list[tuple[bytes, bytes | None]]:
        return [(key, value) for key, value in real(self, *of, **named) if value is not None]

    patch.setattr(LocalIndexes, "changes", changes)


@planted(
    "linearizable",
    "local indexes",
    mechanism=LOCAL_INDEXES,
    likely=7,
    workload="index-queries",
    nemesis="partitions",
)
def intent_stands_for_what_the_item_is_alone(patch: pytest.MonkeyPatch) -> None:
    def places_of(keys_of: local_indexes.LocalKeys, key: bytes, stored: bytes | None) -> dict[Any, None]:
        value = decode_register(key, stored).value
        return {} if value is None else dict.fromkeys(keys_of(value))

    patch.setattr(local_indexes, "_places_of", places_of)


@planted("queries", mechanism=LOCAL_INDEXES, workload="index-queries", nemesis="partitions")
def locked_item_told_wherever_it_stands(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalIndexes, "stands", lambda _self, _table, _entry, value: value is not None)


@planted("local indexes", mechanism=LOCAL_INDEXES, likely=1, workload="index-queries", nemesis="rot", hot_keys=6)
def entries_of_a_damaged_register_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalIndexes, "_held", lambda _self, _key: {})
