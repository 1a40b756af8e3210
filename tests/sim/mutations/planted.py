"""Deliberate bugs on the way of reads and writes; see `planting`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from merganser.core import cluster_map, rows
from merganser.core.clock import HybridClock
from merganser.core.hint_policy import Fate, StandIns
from merganser.core.register import AcceptorState
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Need
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Accepted, Apply, Ballot, Found, Hint, Merged, Promise, Read, Rows
from merganser.model.row import Cell
from merganser.model.timestamp import Timestamp
from merganser.service import (
    catalog,
    coordinator,
    hinted_handoff,
    member,
    range_merge,
)
from merganser.service.asking import Writing
from merganser.service.coordinator import Coordinator
from merganser.service.hint_store import HintStore
from merganser.service.hinted_handoff import HintedHandoff
from merganser.service.needs import Needs
from merganser.service.range_merge import RangePage
from merganser.service.read_repair import ReadRepair, Reconciled
from merganser.service.replica import Replica
from merganser.service.table_ends import TableEnds
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import decode_row
from sim.mutations.planting import (
    CLOCKS,
    DURABILITY,
    HANDOFF,
    QUORUMS,
    RANGES,
    READ_REPAIR,
    TABLES,
    TOMBSTONES,
    VERSIONS,
    VERSIONS_OF_NODES,
    planted,
)

# Durability.


@planted("held", "acknowledged", mechanism=DURABILITY, nemesis="crashes")
def acks_before_the_fsync(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_engine: MemoryEngine) -> None:
        return

    patch.setattr(MemoryEngine, "durable", at_once)
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


@planted("held", "acknowledged", mechanism=DURABILITY, likely=2, nemesis="crashes")
def fsync_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    real = MemoryEngine.power_cut
    patch.setattr(MemoryEngine, "_forget_synced", lambda _engine: None)
    patch.setattr(MemoryEngine, "power_cut", lambda engine, keep: real(engine, min(keep, 1)))


@planted("held", "acknowledged", mechanism=DURABILITY, likely=1, nemesis="crashes")
def repeated_write_acked_before_the_first_is_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


# Quorums.


@planted("held", "acknowledged", mechanism=QUORUMS, likely=16)
def write_answered_one_ack_short(patch: pytest.MonkeyPatch) -> None:
    _ask_one_less(patch, "to_write")


@planted("acknowledged", mechanism=QUORUMS, likely=6)
def read_answered_one_reply_short(patch: pytest.MonkeyPatch) -> None:
    _ask_one_less(patch, "to_read")


@planted("held", "acknowledged", mechanism=HANDOFF, likely=19, nemesis="partitions", nodes=5)
def hint_counted_as_an_ack_of_a_primary(patch: pytest.MonkeyPatch) -> None:
    real = Needs.to_write

    def sloppy(self: Needs, *of_the_write: Any) -> Need:
        return Need(real(self, *of_the_write).nodes, 0)

    patch.setattr(Needs, "to_write", sloppy)


def _ask_one_less(patch: pytest.MonkeyPatch, method: str) -> None:
    real = getattr(Needs, method)

    def short(self: Needs, *of_the_request: Any) -> Need:
        need: Need = real(self, *of_the_request)
        return Need(max(1, need.nodes - 1), max(0, need.primaries - 1))

    patch.setattr(Needs, method, short)


@planted("origin", mechanism=QUORUMS, likely=1)
def unknown_outcome_called_unwritten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "is_certainly_unwritten", True)


# Versions.


@planted("acknowledged", "held", mechanism=VERSIONS, likely=2)
def replica_keeps_what_comes_last(patch: pytest.MonkeyPatch) -> None:
    async def overwrite(self: Replica, sender: NodeId, request: Apply) -> Merged:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        self._engine.commit(Batch().put(request.key, request.row))
        await self._engine.durable()
        return Merged()

    patch.setattr(Replica, "apply", overwrite)
    patch.setattr(Replica, "begin_apply", lambda _self, _sender, _request: None)


@planted("acknowledged", mechanism=VERSIONS, likely=2)
def read_returns_the_oldest(patch: pytest.MonkeyPatch) -> None:
    def oldest(key: bytes, answers: Mapping[NodeId, bytes | None], _horizon_of: object) -> Reconciled:
        held = [decode_row(key, stored) for stored in answers.values() if stored is not None]
        return Reconciled(min(held, key=rows.newest) if len(held) == len(answers) else None, ())

    patch.setattr(coordinator, "reconcile", oldest)


# a replica learns the time from what it stores
@planted("visible", mechanism=CLOCKS, nemesis="clocks", nodes=5, hot_keys=1)
def outranked_write_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "_compare", lambda _self, _ack: None)


@planted("timestamps", mechanism=CLOCKS, likely=13, is_soak=True, nemesis="all", clock_jump_s=40.0)
def timestamp_ceiling_forgotten_at_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(member, "load_ceiling", lambda _engine: 0)


@planted("timestamps", mechanism=CLOCKS, likely=3, nemesis="clocks")
def clock_that_follows_the_wall_backwards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HybridClock, "mint", lambda self, wall_us: Timestamp(wall_us, self._writer))


@planted("resurrection", mechanism=TOMBSTONES, workload="deletes")
def replica_drops_a_tombstone_at_once(patch: pytest.MonkeyPatch) -> None:
    real = Batch.put

    def put(self: Batch, key: bytes, value: bytes) -> Batch:
        is_row = keys.table_in(key) != TableId(0)
        return self.delete(key) if is_row and not decode_row(key, value).cells else real(self, key, value)

    patch.setattr(Batch, "put", put)


@planted("acknowledged", "resurrection", mechanism=TOMBSTONES, workload="deletes")
def expired_cell_loses_to_an_older_one(patch: pytest.MonkeyPatch) -> None:
    real = rows._is_later

    def is_later(cell: Cell, other: Cell) -> bool:
        is_mortal = cell.expires_at_s is not None
        return real(cell, other) if is_mortal == (other.expires_at_s is not None) else not is_mortal

    patch.setattr(rows, "_is_later", is_later)


@planted("resurrection", mechanism=TOMBSTONES, workload="deletes")
def expiry_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rows, "_is_live", lambda cell, _now_s: cell.value is not None)


# Repair.


@planted("convergence", mechanism=READ_REPAIR, likely=2)
def coordinator_never_repairs(patch: pytest.MonkeyPatch) -> None:
    async def leave_alone(_self: Coordinator, *_of_the_read: object) -> None:
        return

    patch.setattr(Coordinator, "_bring_up", leave_alone)
    patch.setattr(ReadRepair, "look", lambda _self, _read, _row, **_replicas: None)


@planted("monotonic", mechanism=READ_REPAIR, likely=7, workload="sessions", nemesis="disks", nodes=3, hot_keys=1)
def read_answered_before_its_repair(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_self: ReadRepair, _newest: Apply, **_how: Any) -> int:
        return 3

    patch.setattr(ReadRepair, "settle", at_once)


@planted(
    "monotonic", mechanism=READ_REPAIR, likely=11, workload="sessions", nemesis="crashes+disks", nodes=1, hot_keys=1
)
def read_reveals_what_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    async def read(self: Replica, sender: NodeId, request: Read) -> Found:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        return Found(self._engine.get(request.key))

    patch.setattr(Replica, "read", read)
    patch.setattr(Replica, "read_at_once", lambda _self, _sender, _request: None)


# Hints.


@planted("hints", mechanism=HANDOFF, likely=1)
def hints_never_handed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HintedHandoff, "_is_time_for", lambda _self, _target: False)


@planted("held", mechanism=HANDOFF, likely=6, workload="handoff", nemesis="partitions", nodes=5)
def hint_dropped_before_its_ack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hinted_handoff, "fate", lambda _error, **_epoch: Fate.DELIVERED)


@planted(
    "held",
    mechanism=HANDOFF,
    likely=17,
    workload="handoff",
    nemesis="crashes+disks",
    nodes=5,
    operations=50,
    repair_interval_s=1e9,
)
def hint_acked_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    async def keep(self: HintStore, sender: NodeId, request: Hint) -> Merged:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        row = decode_row(request.key, request.row)
        asyncio.get_running_loop().call_later(10.0, self._merge, request.target, request.key, request.row, row)
        return Merged()

    patch.setattr(HintStore, "keep", keep)


@planted("held", mechanism=HANDOFF, likely=2, workload="handoff", nodes=5, hot_keys=1)
def hint_overwritten_by_the_next(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("merganser.service.hint_store.rows.merge", lambda _held, incoming: incoming)


@planted("available", mechanism=HANDOFF, likely=32, workload="handoff", nemesis="crashes", nodes=5)
def primaries_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StandIns, "next_for", lambda *_: None)


# Ranges.


@planted("scans", "readable", mechanism=RANGES, workload="scans")
def page_loses_a_row_at_its_end(patch: pytest.MonkeyPatch) -> None:
    real = range_merge.merge_pages

    def lossy(pages: Mapping[NodeId, Rows], *, reverse: bool) -> range_merge.MergedPage:
        page = real(pages, reverse=reverse)
        return page if page.resume is None or reverse else msgspec.structs.replace(page, answers=page.answers[:-1])

    patch.setattr("merganser.service.coordinator.merge_pages", lossy)


@planted("scans", "readable", mechanism=RANGES, likely=39, is_soak=True, workload="scans")
def page_reaches_as_far_as_the_longest(patch: pytest.MonkeyPatch) -> None:
    def reach(pages: Mapping[NodeId, Rows], *, reverse: bool) -> bytes | None:
        stops = [page.rows[-1][0] for page in pages.values() if not page.is_last]
        return None if not stops else min(stops) if reverse else max(stops)

    patch.setattr(range_merge, "_reach", reach)


@planted("scans", "readable", mechanism=RANGES, workload="scans", nodes=5)
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


@planted("strays", mechanism=TABLES, workload="tables")
def dropped_table_keeps_its_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batch, "delete_range", lambda self, _start, _end: self)


@planted("maps", "tables", "errors", mechanism=TABLES, workload="tables")
def voter_forgets_its_promises(patch: pytest.MonkeyPatch) -> None:
    def prepare(self: AcceptorState, ballot: Ballot) -> tuple[AcceptorState, Promise]:
        return self, Promise(ballot, self.accepted, self.value)

    def accept(self: AcceptorState, ballot: Ballot, value: ClusterMap) -> tuple[AcceptorState, Accepted]:
        return AcceptorState(ballot, ballot, value), Accepted(ballot)

    patch.setattr(AcceptorState, "prepare", prepare)
    patch.setattr(AcceptorState, "accept", accept)


@planted("maps", "tables", mechanism=TABLES, likely=5, workload="tables", seeds_max=300)
def proposer_ignores_what_was_accepted(patch: pytest.MonkeyPatch) -> None:
    real = catalog.Catalog._prepare

    async def prepare(self: catalog.Catalog, *of: Any, **named: Any) -> ClusterMap | None:
        found = await real(self, *of, **named)
        return None if found is None else self.current

    patch.setattr(catalog.Catalog, "_prepare", prepare)


@planted("tables", mechanism=TABLES, likely=3, workload="tables")
def table_that_is_to_go_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TableEnds, "_overdue", lambda self: [])


@planted("tables", mechanism=TABLES, likely=2, is_soak=True, workload="tables")
def drop_that_never_happens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cluster_map, "without_table", lambda current, **_which: current)


@planted("versions", mechanism=VERSIONS_OF_NODES, likely=1, nemesis="none", nodes=3, older=2)
def version_raised_before_all_members_speak_it(patch: pytest.MonkeyPatch) -> None:
    real = cluster_map.with_presence

    def hasty(current: ClusterMap, node: NodeId, addresses: dict[str, str], *, speaks: int) -> ClusterMap:
        told = real(current, node, addresses, speaks=speaks)
        return told if told is current else msgspec.structs.replace(told, version=max(told.version, speaks))

    patch.setattr(cluster_map, "with_presence", hasty)


@planted("versions", mechanism=VERSIONS_OF_NODES, likely=1, nemesis="none", nodes=3, older=2)
def version_never_raised(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cluster_map, "_spoken_by_all", lambda _nodes: 2)
