"""Deliberate bugs, one a mechanism, and the scenario in which the simulator must find each.

A bug is planted by replacing a function of ours for one test. To add one: write a function that takes a
`pytest.MonkeyPatch`, and name in `@planted` the scenario and the checkers of which one must speak up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from merganser.core import cluster_map, horizon, rows, suspicion
from merganser.core.admission import Entry, RequestGate
from merganser.core.clock import HybridClock
from merganser.core.hint_policy import Fate, StandIns
from merganser.core.membership import Changed, Membership
from merganser.core.register import AcceptorState
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Need
from merganser.model.errors import (
    CorruptionError,
    MerganserError,
    OverloadedError,
    StorageFailedError,
    UnavailableError,
)
from merganser.model.gossip import State
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import Accepted, Apply, Ballot, Found, Hint, Merged, Promise, Read, Reply, Request, Rows
from merganser.model.row import Cell
from merganser.model.timestamp import Timestamp
from merganser.service import (
    catalog,
    coordinator,
    failure_detector,
    hash_trees,
    hinted_handoff,
    member,
    range_merge,
    scrubber,
)
from merganser.service.admission import Requests, UnderWay
from merganser.service.asking import Writing, is_overload
from merganser.service.coordinator import Coordinator, RangePage
from merganser.service.failure_detector import FailureDetector
from merganser.service.hash_trees import HashTrees
from merganser.service.healing import Healing
from merganser.service.hint_store import HintStore
from merganser.service.hinted_handoff import HintedHandoff
from merganser.service.read_repair import ReadRepair, Reconciled
from merganser.service.replica import Replica
from merganser.service.shortfall import Shortfall
from merganser.sim.disk import SimulatedDisk
from merganser.sim.scenario import Scenario
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import decode_row

Plant = Callable[[pytest.MonkeyPatch], None]


class Planted(msgspec.Struct, frozen=True):
    """A bug, and how it is to be found."""

    name: str
    mechanism: str
    """What it breaks, as `MECHANISMS` names it."""
    plant: Plant
    scenario: Scenario
    checkers: tuple[str, ...]
    """Any of them will do."""
    seeds_max: int
    """A bug that survives so many was not found."""


PLANTED: list[Planted] = []

DURABILITY, QUORUMS, VERSIONS, TOMBSTONES = "durability", "quorums", "versions", "tombstones and expiry"
CLOCKS, READ_REPAIR, HANDOFF, RANGES = "clocks", "read repair", "sloppy quorum and hinted handoff", "ranges"
TABLES, DISKS, OVERLOAD, MEMBERSHIP = "tables", "disks", "overload", "membership"
HASH_TREES, ANTI_ENTROPY, WHOLENESS, HEALING = "hash trees", "anti-entropy", "wholeness", "healing"
MECHANISMS = (
    *(DURABILITY, QUORUMS, VERSIONS, TOMBSTONES, CLOCKS, READ_REPAIR, HANDOFF, RANGES, TABLES),
    *(HASH_TREES, ANTI_ENTROPY, HEALING, WHOLENESS, DISKS, MEMBERSHIP, OVERLOAD),
)


def planted(*checkers: str, mechanism: str, seeds_max: int = 150, **scenario: Any) -> Callable[[Plant], Plant]:
    """Note a bug of ``mechanism`` that one of ``checkers`` must find under ``scenario``."""

    def note(plant: Plant) -> Plant:
        PLANTED.append(Planted(plant.__name__, mechanism, plant, Scenario(**scenario), checkers, seeds_max))
        return plant

    return note


# Durability.


@planted("held", "acknowledged", mechanism=DURABILITY, nemesis="crashes")
def acks_before_the_fsync(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_engine: MemoryEngine) -> None:
        return

    patch.setattr(MemoryEngine, "durable", at_once)
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


@planted("held", "acknowledged", mechanism=DURABILITY, nemesis="crashes")
def fsync_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    real = MemoryEngine.power_cut
    patch.setattr(MemoryEngine, "_forget_synced", lambda _engine: None)
    patch.setattr(MemoryEngine, "power_cut", lambda engine, keep: real(engine, min(keep, 1)))


@planted("held", "acknowledged", mechanism=DURABILITY, nemesis="crashes")
def repeated_write_acked_before_the_first_is_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryEngine, "is_durable", lambda _engine, _key: True)


# Quorums.


@planted("held", "acknowledged", mechanism=QUORUMS)
def write_answered_one_ack_short(patch: pytest.MonkeyPatch) -> None:
    _ask_one_less(patch, "_needed_to_write")


@planted("acknowledged", mechanism=QUORUMS)
def read_answered_one_reply_short(patch: pytest.MonkeyPatch) -> None:
    _ask_one_less(patch, "_needed_to_read")


@planted("held", "acknowledged", mechanism=HANDOFF, nemesis="partitions", nodes=5)
def hint_counted_as_an_ack_of_a_primary(patch: pytest.MonkeyPatch) -> None:
    real = Coordinator._needed_to_write

    def sloppy(self: Coordinator, *of_the_write: Any) -> Need:
        return Need(real(self, *of_the_write).nodes, 0)

    patch.setattr(Coordinator, "_needed_to_write", sloppy)


def _ask_one_less(patch: pytest.MonkeyPatch, method: str) -> None:
    real = getattr(Coordinator, method)

    def short(self: Coordinator, *of_the_request: Any) -> Need:
        need: Need = real(self, *of_the_request)
        return Need(max(1, need.nodes - 1), max(0, need.primaries - 1))

    patch.setattr(Coordinator, method, short)


@planted("origin", mechanism=QUORUMS)
def unknown_outcome_called_unwritten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "is_certainly_unwritten", True)


# Versions.


@planted("acknowledged", "held", mechanism=VERSIONS)
def replica_keeps_what_comes_last(patch: pytest.MonkeyPatch) -> None:
    async def overwrite(self: Replica, sender: NodeId, request: Apply) -> Merged:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        self._engine.commit(Batch().put(request.key, request.row))
        await self._engine.durable()
        return Merged()

    patch.setattr(Replica, "apply", overwrite)


@planted("acknowledged", mechanism=VERSIONS)
def read_returns_the_oldest(patch: pytest.MonkeyPatch) -> None:
    def oldest(key: bytes, answers: Mapping[NodeId, bytes | None], _horizon_of: object) -> Reconciled:
        held = [decode_row(key, stored) for stored in answers.values() if stored is not None]
        return Reconciled(min(held, key=rows.newest) if len(held) == len(answers) else None, ())

    patch.setattr(coordinator, "reconcile", oldest)


# a replica learns the time from what it stores
@planted("visible", mechanism=CLOCKS, nemesis="clocks", nodes=5, hot_keys=1)
def outranked_write_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "_compare", lambda _self, _ack: None)


@planted("timestamps", mechanism=CLOCKS, nemesis="all", clock_jump_s=40.0)
def timestamp_ceiling_forgotten_at_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(member, "load_ceiling", lambda _engine: 0)


@planted("timestamps", mechanism=CLOCKS, nemesis="clocks")
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


@planted("convergence", mechanism=READ_REPAIR)
def coordinator_never_repairs(patch: pytest.MonkeyPatch) -> None:
    async def leave_alone(_self: Coordinator, *_of_the_read: object) -> None:
        return

    patch.setattr(Coordinator, "_bring_up", leave_alone)
    patch.setattr(ReadRepair, "look", lambda _self, _read, _row, **_replicas: None)


@planted("monotonic", mechanism=READ_REPAIR, workload="sessions", nemesis="disks", nodes=3, hot_keys=1)
def read_answered_before_its_repair(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_self: ReadRepair, _newest: Apply, **_how: Any) -> int:
        return 3

    patch.setattr(ReadRepair, "settle", at_once)


@planted("monotonic", mechanism=READ_REPAIR, workload="sessions", nemesis="crashes+disks", nodes=1, hot_keys=1)
def read_reveals_what_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    async def read(self: Replica, sender: NodeId, request: Read) -> Found:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        return Found(self._engine.get(request.key))

    patch.setattr(Replica, "read", read)


# Damage.


@planted(
    "acknowledged",
    "held",
    "monotonic",
    mechanism=HEALING,
    nemesis="rot+crashes+partitions",
    nodes=3,
    hot_keys=1,
    operations=80,
)
def heals_from_a_majority(patch: pytest.MonkeyPatch) -> None:
    async def one(self: Healing, table: Table, key: bytes, question: Request) -> dict[NodeId, Reply]:
        others = [node for node in self._topology.replicas(table, key) if node != self._topology.node]
        for node in reversed(others):
            with contextlib.suppress(MerganserError):
                return {node: await self._asker.ask(node, question, timeout_s=1.0)}
        raise UnavailableError("nobody answers")

    patch.setattr(Healing, "_ask_others", one)


@planted("held", "convergence", mechanism=HEALING, workload="levels", nemesis="rot", nodes=3)
def scrub_that_skips(patch: pytest.MonkeyPatch) -> None:
    real = scrubber._Slice.add

    def add(self: scrubber._Slice, key: bytes, stored: bytes) -> None:
        real(self, key, stored)
        if key[-3] % 2:
            self.damaged.clear()

    patch.setattr(scrubber._Slice, "add", add)


@planted("held", "convergence", mechanism=HEALING, workload="levels", nemesis="rot", nodes=3)
def scrub_that_trusts_the_tree(patch: pytest.MonkeyPatch) -> None:
    async def scrub(self: scrubber.Scrubber, table: Table, partition: PartitionId, **_: bool) -> scrubber.Scrubbed:
        return scrubber.Scrubbed(0, 0, 0, await self._recount(table, partition, set()))

    patch.setattr(scrubber.Scrubber, "scrub", scrub)


@planted("acknowledged", "monotonic", "sessions", mechanism=HEALING, workload="levels", nemesis="rot", nodes=3)
def damaged_row_read_as_nothing(patch: pytest.MonkeyPatch) -> None:
    real = Replica.read

    async def read(self: Replica, sender: NodeId, request: Read) -> Found:
        try:
            return await real(self, sender, request)
        except CorruptionError:
            return Found(None)

    patch.setattr(Replica, "read", read)


# Hints.


@planted("hints", mechanism=HANDOFF)
def hints_never_handed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HintedHandoff, "_is_time_for", lambda _self, _target: False)


@planted("held", mechanism=HANDOFF, workload="handoff", nemesis="partitions", nodes=5)
def hint_dropped_before_its_ack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hinted_handoff, "fate", lambda _error, **_epoch: Fate.DELIVERED)


@planted("held", mechanism=HANDOFF, workload="handoff", nemesis="crashes+disks", nodes=5, operations=50)
def hint_acked_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    async def keep(self: HintStore, sender: NodeId, request: Hint) -> Merged:
        await self._admit(sender, request.map_epoch, request.table, request.key)
        return self._merge(request.target, request.key, request.row, decode_row(request.key, request.row))

    patch.setattr(HintStore, "keep", keep)


@planted("held", mechanism=HANDOFF, workload="handoff", nodes=5, hot_keys=1)
def hint_overwritten_by_the_next(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("merganser.service.hint_store.rows.merge", lambda _held, incoming: incoming)


# Hash trees.


@planted("hash trees", mechanism=HASH_TREES)
def tree_keeps_the_old_version(patch: pytest.MonkeyPatch) -> None:
    real = HashTrees.put

    def put(self: HashTrees, table: TableId, partition: PartitionId, key: bytes, _before: object, after: bytes) -> None:
        real(self, table, partition, key, None, after)

    patch.setattr(HashTrees, "put", put)


@planted("hash trees", mechanism=HASH_TREES, nemesis="crashes")
def image_stays_when_its_rows_change(patch: pytest.MonkeyPatch) -> None:
    real = Batch.delete
    patch.setattr(Batch, "delete", lambda self, key: self if b"tree|" in key else real(self, key))


@planted("hash trees", mechanism=HASH_TREES, nemesis="crashes", operations=50, seeds_max=300)
def image_deleted_in_a_batch_of_its_own(patch: pytest.MonkeyPatch) -> None:
    real = MemoryEngine.commit

    def commit(self: MemoryEngine, batch: Batch) -> None:
        rest, late = Batch(), Batch()
        for operation in batch.operations:
            is_mark = operation[1] is None and b"tree|" in operation[0]
            (late if is_mark else rest).operations.append(operation)
        for part in (rest, late):
            if part.operations:
                real(self, part)

    patch.setattr(MemoryEngine, "commit", commit)


@planted("hash trees", mechanism=HASH_TREES, nemesis="crashes")
def image_written_of_what_was_counted_so_far(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hash_trees, "SLICE_ROWS", 1)
    real = HashTrees._count_on

    def count_on(self: HashTrees, place: tuple[TableId, PartitionId]) -> int:
        rows = real(self, place)
        self._of(place).counted_to = None
        return rows

    patch.setattr(HashTrees, "_count_on", count_on)


@planted("available", mechanism=HANDOFF, workload="handoff", nemesis="crashes", nodes=5)
def primaries_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StandIns, "next_for", lambda *_: None)


# Disks.


@planted("held", mechanism=DISKS, nemesis="disks+crashes")
def failed_fsync_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    real = SimulatedDisk._sync

    async def sync(self: SimulatedDisk) -> None:
        with contextlib.suppress(OSError):
            await real(self)

    patch.setattr(SimulatedDisk, "_sync", sync)


@planted("held", mechanism=DISKS, nemesis="disks")
def write_acked_by_an_engine_that_has_failed(patch: pytest.MonkeyPatch) -> None:
    commit, durable = MemoryEngine.commit, MemoryEngine.durable

    def lax_commit(self: MemoryEngine, batch: Batch) -> None:
        with contextlib.suppress(StorageFailedError):
            commit(self, batch)

    async def lax_durable(self: MemoryEngine) -> None:
        with contextlib.suppress(StorageFailedError):
            await durable(self)

    patch.setattr(MemoryEngine, "commit", lax_commit)
    patch.setattr(MemoryEngine, "durable", lax_durable)


# Overload.


@planted("bounds", mechanism=OVERLOAD, workload="bursts", nemesis="none")
def gate_that_lets_everyone_in(patch: pytest.MonkeyPatch) -> None:
    def enter(self: RequestGate) -> Entry:
        self._serve()
        return Entry.SERVED

    patch.setattr(RequestGate, "enter", enter)


@planted("bounds", mechanism=OVERLOAD, workload="bursts", nemesis="none")
def operations_without_a_bound(patch: pytest.MonkeyPatch) -> None:
    def enter(self: UnderWay) -> UnderWay:
        self.count += 1
        self.most = max(self.most, self.count)
        return self

    patch.setattr(UnderWay, "__enter__", enter)


@planted("bounds", mechanism=OVERLOAD, workload="bursts", nemesis="storms")
def place_of_a_failed_request_never_given_back(patch: pytest.MonkeyPatch) -> None:
    real = Requests.__aexit__

    async def leave(self: Requests, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        if kind is None:
            await real(self, kind, error, traceback)

    patch.setattr(Requests, "__aexit__", leave)


@planted("origin", mechanism=OVERLOAD, workload="bursts", nemesis="none")
def write_refused_and_done_all_the_same(patch: pytest.MonkeyPatch) -> None:
    real = Shortfall.of_write

    async def refused(self: Shortfall, table: Table, writing: Writing, need: Need, *, map_epoch: int) -> Exception:
        error = await real(self, table, writing, need, map_epoch=map_epoch)
        is_too_much = any(map(is_overload, writing.errors.values()))
        return OverloadedError("too much to do; nothing was written") if is_too_much else error

    patch.setattr(Shortfall, "of_write", refused)


# Ranges.


@planted("scans", "readable", mechanism=RANGES, workload="scans")
def page_loses_a_row_at_its_end(patch: pytest.MonkeyPatch) -> None:
    real = range_merge.merge_pages

    def lossy(pages: Mapping[NodeId, Rows], *, reverse: bool) -> range_merge.MergedPage:
        page = real(pages, reverse=reverse)
        return page if page.resume is None or reverse else msgspec.structs.replace(page, answers=page.answers[:-1])

    patch.setattr("merganser.service.coordinator.merge_pages", lossy)


@planted("scans", "readable", mechanism=RANGES, workload="scans")
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


# Membership.


@planted("membership", mechanism=MEMBERSHIP, nemesis="pauses+partitions")
def refutation_in_the_same_incarnation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_answer_claim", lambda _self, _claim: None)
    patch.setattr(FailureDetector, "answered", lambda _self, _node: None)  # or an answered request hides it


@planted("membership", mechanism=MEMBERSHIP, nemesis="pauses+partitions")
def greater_state_outranks_a_later_incarnation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(suspicion, "merge", lambda one, other: max(one, other, key=lambda claim: claim.state))
    patch.setattr(FailureDetector, "answered", lambda _self, _node: None)


@planted("membership", mechanism=MEMBERSHIP, nemesis="crashes+pauses+partitions")
def change_of_belief_never_taken_back(patch: pytest.MonkeyPatch) -> None:
    real = FailureDetector._note

    def note(self: FailureDetector, effect: Changed) -> None:
        if effect.state is not State.ALIVE:
            real(self, effect)

    patch.setattr(failure_detector, "_PERFORM", {**failure_detector._PERFORM, Changed: note})


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


@planted("maps", "tables", mechanism=TABLES, workload="tables", seeds_max=300)
def proposer_ignores_what_was_accepted(patch: pytest.MonkeyPatch) -> None:
    real = catalog.Catalog._prepare

    async def prepare(self: catalog.Catalog, ballot: Ballot, deadline: float) -> ClusterMap | None:
        found = await real(self, ballot, deadline)
        return None if found is None else self.current

    patch.setattr(catalog.Catalog, "_prepare", prepare)


@planted("tables", mechanism=TABLES, workload="tables")
def drop_that_never_happens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cluster_map, "without_table", lambda current, **_which: current)


# Losses.


@planted("acknowledged", "held", mechanism=WHOLENESS, nemesis="losses+partitions", nodes=3, hot_keys=1)
def node_is_whole_after_one_peer_instead_of_all(patch: pytest.MonkeyPatch) -> None:
    real = horizon.Round.teachers
    patch.setattr(horizon.Round, "teachers", lambda self, lagging: real(self, lagging)[:1])
