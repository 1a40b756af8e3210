"""Deliberate bugs in what keeps a node and its data well; see `planting`."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from merganser.core import horizon, suspicion
from merganser.core.hash_tree import HashTree
from merganser.core.membership import Changed, Membership
from merganser.core.request_gate import Entry, RequestGate
from merganser.model.cluster import Table
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
from merganser.model.messages import Found, Read, Reply, Request
from merganser.service import (
    failure_detector,
    hash_trees,
    kept_trees,
    scrubber,
)
from merganser.service.admission import Requests, UnderWay
from merganser.service.asking import Writing, is_overload
from merganser.service.damage import Wound
from merganser.service.failure_detector import FailureDetector
from merganser.service.hash_trees import HashTrees
from merganser.service.healing import Healing
from merganser.service.kept_trees import KeptTrees
from merganser.service.replica import Replica
from merganser.service.shortfall import Shortfall
from merganser.sim.disk import SimulatedDisk
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from sim.mutations.planting import (
    DISKS,
    HASH_TREES,
    HEALING,
    MEMBERSHIP,
    OVERLOAD,
    WHOLENESS,
    planted,
)

# Hash trees.


@planted("hash trees", mechanism=HASH_TREES, nemesis="crashes")
def tree_keeps_the_old_version(patch: pytest.MonkeyPatch) -> None:
    real = HashTrees.put

    def put(self: HashTrees, table: TableId, partition: PartitionId, key: bytes, _before: object, after: bytes) -> None:
        real(self, table, partition, key, None, after)

    patch.setattr(HashTrees, "put", put)


@planted("hash trees", mechanism=HASH_TREES, likely=2, nemesis="crashes")
def twigs_stay_when_a_row_is_replaced(patch: pytest.MonkeyPatch) -> None:
    real = HashTree.replace

    def replace(self: HashTree, *of_the_row: Any) -> None:
        kept, self._twigs_to = self._twigs_to, 0
        try:
            real(self, *of_the_row)
        finally:
            self._twigs_to = kept

    patch.setattr(HashTree, "replace", replace)


@planted("hash trees", mechanism=HASH_TREES, likely=2, nemesis="crashes")
def image_stays_when_its_rows_change(patch: pytest.MonkeyPatch) -> None:
    real = Batch.delete
    patch.setattr(Batch, "delete", lambda self, key: self if b"tree|" in key else real(self, key))


@planted("hash trees", mechanism=HASH_TREES, likely=39, is_soak=True, nemesis="crashes", operations=50, seeds_max=300)
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


@planted("hash trees", mechanism=HASH_TREES, likely=2, nemesis="crashes")
def image_written_of_what_was_counted_so_far(patch: pytest.MonkeyPatch) -> None:
    for module in hash_trees, kept_trees:
        patch.setattr(module, "SLICE_ROWS", 1)
    real = KeptTrees.count_on

    def count_on(self: KeptTrees, place: tuple[TableId, PartitionId]) -> int:
        rows = real(self, place)
        self.of(place).counted_to = None
        return rows

    patch.setattr(KeptTrees, "count_on", count_on)


# Damage.


@planted(
    "acknowledged",
    "held",
    "monotonic",
    mechanism=HEALING,
    likely=52,
    is_soak=True,
    nemesis="rot+crashes+partitions",
    nodes=3,
    hot_keys=1,
    operations=80,
    repair_interval_s=1e9,
    seeds_max=300,
)
def heals_from_a_majority(patch: pytest.MonkeyPatch) -> None:
    async def one(self: Healing, table: Table, key: bytes, question: Request, _wound: Wound) -> dict[NodeId, Reply]:
        others = [node for node in self._topology.replicas(table, key) if node != self._topology.node]
        for node in reversed(others):
            with contextlib.suppress(MerganserError):
                return {node: await self._asker.ask(node, question, timeout_s=1.0)}
        raise UnavailableError("nobody answers")

    patch.setattr(Healing, "_ask_others", one)


@planted("held", "convergence", mechanism=HEALING, likely=55, workload="levels", nemesis="rot", nodes=3)
def scrub_that_skips(patch: pytest.MonkeyPatch) -> None:
    real = scrubber._Slice.add

    def add(self: scrubber._Slice, key: bytes, stored: bytes) -> None:
        real(self, key, stored)
        if key[-3] % 2:
            self.damaged.clear()

    patch.setattr(scrubber._Slice, "add", add)


@planted("held", "convergence", mechanism=HEALING, likely=32, workload="levels", nemesis="rot", nodes=3)
def scrub_that_trusts_the_tree(patch: pytest.MonkeyPatch) -> None:
    async def scrub(self: scrubber.Scrubber, table: Table, partition: PartitionId, **_: bool) -> scrubber.Scrubbed:
        return scrubber.Scrubbed(0, 0, 0, await self._recount(table, partition, set()))

    patch.setattr(scrubber.Scrubber, "scrub", scrub)


@planted(
    "acknowledged", "monotonic", "sessions", mechanism=HEALING, likely=8, workload="levels", nemesis="rot", nodes=3
)
def damaged_row_read_as_nothing(patch: pytest.MonkeyPatch) -> None:
    real = Replica.read

    async def read(self: Replica, sender: NodeId, request: Read) -> Found:
        try:
            return await real(self, sender, request)
        except CorruptionError:
            return Found(None)

    patch.setattr(Replica, "read", read)


# Losses.


@planted("acknowledged", "held", mechanism=WHOLENESS, likely=15, nemesis="losses+partitions", nodes=3, hot_keys=1)
def node_is_whole_after_one_peer_instead_of_all(patch: pytest.MonkeyPatch) -> None:
    real = horizon.Round.teachers
    patch.setattr(horizon.Round, "teachers", lambda self, lagging: real(self, lagging)[:1])


# Disks.


@planted("held", mechanism=DISKS, likely=1, is_soak=True, nemesis="disks+crashes", nodes=1, operations=20)
def failed_fsync_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    real = SimulatedDisk._sync

    async def sync(self: SimulatedDisk) -> None:
        with contextlib.suppress(OSError):
            await real(self)

    patch.setattr(SimulatedDisk, "_sync", sync)


@planted("held", mechanism=DISKS, likely=2, nemesis="disks")
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


# Membership.


@planted("membership", mechanism=MEMBERSHIP, likely=6, is_soak=True, nemesis="pauses+partitions")
def refutation_in_the_same_incarnation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_answer_claim", lambda _self, _claim: None)
    patch.setattr(FailureDetector, "answered", lambda _self, _node: None)  # or an answered request hides it


@planted("membership", mechanism=MEMBERSHIP, likely=6, is_soak=True, nemesis="pauses+partitions")
def greater_state_outranks_a_later_incarnation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(suspicion, "merge", lambda one, other: max(one, other, key=lambda claim: claim.state))
    patch.setattr(FailureDetector, "answered", lambda _self, _node: None)


@planted("membership", mechanism=MEMBERSHIP, likely=3, nemesis="crashes+pauses+partitions")
def change_of_belief_never_taken_back(patch: pytest.MonkeyPatch) -> None:
    real = FailureDetector._note

    def note(self: FailureDetector, effect: Changed) -> None:
        if effect.state is not State.ALIVE:
            real(self, effect)

    patch.setattr(failure_detector, "_PERFORM", {**failure_detector._PERFORM, Changed: note})


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


@planted("origin", mechanism=OVERLOAD, likely=19, workload="bursts", nemesis="none")
def write_refused_and_done_all_the_same(patch: pytest.MonkeyPatch) -> None:
    real = Shortfall.of_write

    async def refused(self: Shortfall, table: Table, writing: Writing, need: Need, *, map_epoch: int) -> Exception:
        error = await real(self, table, writing, need, map_epoch=map_epoch)
        is_too_much = any(map(is_overload, writing.errors.values()))
        return OverloadedError("too much to do; nothing was written") if is_too_much else error

    patch.setattr(Shortfall, "of_write", refused)
