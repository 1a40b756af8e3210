"""Deliberate bugs, one a mechanism, and the scenario in which the simulator must find each.

A bug is planted by replacing a function of ours for one test. To add one: write a function that takes a
`pytest.MonkeyPatch`, and name in `@planted` the scenario and the checkers of which one must speak up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from merganser.core import cluster_map, rows
from merganser.core.clock import HybridClock
from merganser.core.register import AcceptorState
from merganser.model.cluster import ClusterMap, Table
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Accepted, Apply, Ballot, Merged, Promise, Rows
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service import catalog, coordinator, member, range_merge
from merganser.service.asking import Reading, Writing
from merganser.service.coordinator import Coordinator, RangePage
from merganser.service.read_repair import ReadRepair
from merganser.service.replica import Replica
from merganser.sim.scenario import Scenario
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import decode_row

Plant = Callable[[pytest.MonkeyPatch], None]


class Planted(msgspec.Struct, frozen=True):
    """A bug, and how it is to be found."""

    name: str
    plant: Plant
    scenario: Scenario
    checkers: tuple[str, ...]
    """Any of them will do."""
    seeds_max: int
    """A bug that survives so many was not found."""


PLANTED: list[Planted] = []


def planted(*checkers: str, seeds_max: int = 150, **scenario: Any) -> Callable[[Plant], Plant]:
    """Note a bug that one of ``checkers`` must find under ``scenario``."""

    def note(plant: Plant) -> Plant:
        PLANTED.append(Planted(plant.__name__, plant, Scenario(**scenario), checkers, seeds_max))
        return plant

    return note


# Durability.


@planted("held", "acknowledged", nemesis="crashes")
def acks_before_the_fsync(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_engine: MemoryEngine) -> None:
        return

    patch.setattr(MemoryEngine, "durable", at_once)
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


@planted("held", "acknowledged", nemesis="crashes")
def fsync_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    real = MemoryEngine.power_cut
    patch.setattr(MemoryEngine, "_forget_synced", lambda _engine: None)
    patch.setattr(MemoryEngine, "power_cut", lambda engine, keep: real(engine, min(keep, 1)))


@planted("held", "acknowledged", nemesis="crashes")
def repeated_write_acked_before_the_first_is_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


# Quorums.


@planted("held", "acknowledged")
def write_answered_one_ack_short(patch: pytest.MonkeyPatch) -> None:
    class Short(Writing):
        def __init__(self, replicas: Sequence[NodeId], *, required: int) -> None:
            super().__init__(replicas, required=max(1, required - 1))

    patch.setattr(coordinator, "Writing", Short)


@planted("acknowledged")
def read_answered_one_reply_short(patch: pytest.MonkeyPatch) -> None:
    class Short(Reading):
        def __init__(self, replicas: Sequence[NodeId], *, required: int, **other: Any) -> None:
            super().__init__(replicas, required=max(1, required - 1), **other)

    patch.setattr(coordinator, "Reading", Short)


@planted("origin")
def unknown_outcome_called_unwritten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "is_certainly_unwritten", True)


# Versions.


@planted("acknowledged", "held")
def replica_keeps_what_comes_last(patch: pytest.MonkeyPatch) -> None:
    async def overwrite(self: Replica, sender: NodeId, request: Apply) -> Merged:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        self._engine.commit(Batch().put(request.key, request.row))
        await self._engine.durable()
        return Merged()

    patch.setattr(Replica, "apply", overwrite)


@planted("acknowledged")
def read_returns_the_oldest(patch: pytest.MonkeyPatch) -> None:
    real = Coordinator._reconcile

    def oldest(self: Coordinator, table: Any, key: bytes, answers: Mapping[NodeId, bytes | None]) -> Row | None:
        real(self, table, key, dict(answers))
        held = [decode_row(key, stored) for stored in answers.values() if stored is not None]
        return min(held, key=rows.newest) if len(held) == len(answers) else None

    patch.setattr(Coordinator, "_reconcile", oldest)


@planted("visible", nemesis="clocks", nodes=5, hot_keys=1)  # a replica learns the time from what it stores
def outranked_write_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "_compare", lambda _self, _ack: None)


@planted("timestamps", nemesis="all", clock_jump_s=40.0)
def timestamp_ceiling_forgotten_at_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(member, "load_ceiling", lambda _engine: 0)


@planted("timestamps", nemesis="clocks")
def clock_that_follows_the_wall_backwards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HybridClock, "mint", lambda self, wall_us: Timestamp(wall_us, self._writer))


@planted("resurrection", workload="deletes")
def replica_drops_a_tombstone_at_once(patch: pytest.MonkeyPatch) -> None:
    real = Batch.put

    def put(self: Batch, key: bytes, value: bytes) -> Batch:
        is_row = keys.table_in(key) != TableId(0)
        return self.delete(key) if is_row and not decode_row(key, value).cells else real(self, key, value)

    patch.setattr(Batch, "put", put)


@planted("acknowledged", "resurrection", workload="deletes")
def expired_cell_loses_to_an_older_one(patch: pytest.MonkeyPatch) -> None:
    real = rows._is_later

    def is_later(cell: Cell, other: Cell) -> bool:
        is_mortal = cell.expires_at_s is not None
        return real(cell, other) if is_mortal == (other.expires_at_s is not None) else not is_mortal

    patch.setattr(rows, "_is_later", is_later)


@planted("resurrection", workload="deletes")
def expiry_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rows, "_is_live", lambda cell, _now_s: cell.value is not None)


# Repair.


@planted("convergence")
def coordinator_never_repairs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReadRepair, "repair", lambda _self, _replica, _newest: None)


# Ranges.


@planted("scans", "readable", workload="scans")
def page_loses_a_row_at_its_end(patch: pytest.MonkeyPatch) -> None:
    real = range_merge.merge_pages

    def lossy(pages: Mapping[NodeId, Rows], *, reverse: bool) -> range_merge.MergedPage:
        page = real(pages, reverse=reverse)
        return page if page.resume is None or reverse else msgspec.structs.replace(page, answers=page.answers[:-1])

    patch.setattr("merganser.service.coordinator.merge_pages", lossy)


@planted("scans", "readable", workload="scans")
def page_reaches_as_far_as_the_longest(patch: pytest.MonkeyPatch) -> None:
    def reach(pages: Mapping[NodeId, Rows], *, reverse: bool) -> bytes | None:
        stops = [page.rows[-1][0] for page in pages.values() if not page.is_last]
        return None if not stops else min(stops) if reverse else max(stops)

    patch.setattr(range_merge, "_reach", reach)


@planted("scans", "readable", workload="scans", nodes=5)
def page_resumes_a_partition_too_far(patch: pytest.MonkeyPatch) -> None:
    real = Coordinator.read_range

    async def further(self: Coordinator, table: Table, start: bytes, end: bytes, **other: Any) -> RangePage:
        page = await real(self, table, start, end, **other)
        if page.resume is None or other.get("reverse") or len(page.resume) != keys.TOKEN_END:
            return page
        partition = self._topology.ring.partition_of(keys.token_in(page.resume))
        _, high = self._topology.partition_range(table, partition, partition)
        return page if high >= end else RangePage(page.rows, high)

    patch.setattr(Coordinator, "read_range", further)


# Tables.


@planted("strays", workload="tables")
def dropped_table_keeps_its_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batch, "delete_range", lambda self, _start, _end: self)


@planted("maps", "tables", "errors", workload="tables")
def voter_forgets_its_promises(patch: pytest.MonkeyPatch) -> None:
    def prepare(self: AcceptorState, ballot: Ballot) -> tuple[AcceptorState, Promise]:
        return self, Promise(ballot, self.accepted, self.value)

    def accept(self: AcceptorState, ballot: Ballot, value: ClusterMap) -> tuple[AcceptorState, Accepted]:
        return AcceptorState(ballot, ballot, value), Accepted(ballot)

    patch.setattr(AcceptorState, "prepare", prepare)
    patch.setattr(AcceptorState, "accept", accept)


@planted("maps", "tables", workload="tables", seeds_max=300)
def proposer_ignores_what_was_accepted(patch: pytest.MonkeyPatch) -> None:
    real = catalog.Catalog._prepare

    async def prepare(self: catalog.Catalog, ballot: Ballot, deadline: float) -> ClusterMap | None:
        found = await real(self, ballot, deadline)
        return None if found is None else self.current

    patch.setattr(catalog.Catalog, "_prepare", prepare)


@planted("tables", workload="tables")
def drop_that_never_happens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cluster_map, "without_table", lambda current, **_which: current)
