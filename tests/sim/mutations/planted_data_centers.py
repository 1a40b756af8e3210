"""Deliberate bugs in where tables may be, and in what counts where; see `planting`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from merganser.core import levels
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Consistency, Need
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId
from merganser.model.policy import Policy
from merganser.service import ledger
from merganser.service.topology import Topology
from sim.mutations.planting import DATA_CENTERS, planted

FAULTS = "data-centers+crashes+partitions"


@planted("residency", mechanism=DATA_CENTERS, workload="data-centers", nemesis=FAULTS)
def any_coordinator_keeps_hints(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Topology, "may_keep", lambda *_: True)


@planted("residency", mechanism=DATA_CENTERS, likely=1, workload="data-centers", nemesis=FAULTS)
def any_node_is_a_fallback_and_takes_the_hint(patch: pytest.MonkeyPatch) -> None:
    def fallbacks(self: Ring, partition: PartitionId, rule: int) -> tuple[NodeId, ...]:
        members = self.preference_list(partition, rule)
        return tuple(node for node in self._walk(Policy(1)).whole(partition) if node not in members)

    patch.setattr(Ring, "fallbacks", fallbacks)
    patch.setattr(Topology, "may_keep", lambda *_: True)


@planted("residency", mechanism=DATA_CENTERS, likely=1, workload="data-centers", nemesis="none")
def the_walk_goes_everywhere(patch: pytest.MonkeyPatch) -> None:
    real = Ring._policy

    def policy(self: Ring, rule: int, *, is_next: bool = False) -> Policy:
        return Policy(real(self, rule, is_next=is_next).n)

    patch.setattr(Ring, "_policy", policy)


@planted("residency", mechanism=DATA_CENTERS, likely=8, workload="items", data_centers=2, nemesis="none")
def zones_are_forgotten_where_data_centers_are_counted(patch: pytest.MonkeyPatch) -> None:
    real = Ring._policy

    def policy(self: Ring, rule: int, *, is_next: bool = False) -> Policy:
        return msgspec.structs.replace(real(self, rule, is_next=is_next), zones=())

    patch.setattr(Ring, "_policy", policy)


@planted(
    "acknowledged", "sessions", "monotonic", mechanism=DATA_CENTERS, likely=5, workload="data-centers", nemesis=FAULTS
)
def local_levels_count_all_replicas(patch: pytest.MonkeyPatch) -> None:
    real = levels._by_data_center

    def by_data_center(
        level: Consistency, holders: Holders, ring: Ring, rule: int, coordinator: NodeId, *, is_write: bool
    ) -> Need:
        need = real(level, holders, ring, rule, coordinator, is_write=is_write)
        return Need(need.nodes, need.primaries) if level is not Consistency.EACH_QUORUM else need

    patch.setattr(levels, "_by_data_center", by_data_center)


@planted(
    "acknowledged",
    "sessions",
    "monotonic",
    mechanism=DATA_CENTERS,
    likely=14,
    workload="data-centers",
    nemesis=FAULTS,
)
def each_quorum_is_met_by_one_data_center(patch: pytest.MonkeyPatch) -> None:
    real = levels._by_data_center

    def by_data_center(
        level: Consistency, holders: Holders, ring: Ring, rule: int, coordinator: NodeId, *, is_write: bool
    ) -> Need:
        need = real(level, holders, ring, rule, coordinator, is_write=is_write)
        first = need.parts[0]
        return Need(first.required, first.required, (first,))

    patch.setattr(levels, "_by_data_center", by_data_center)


@planted(
    "acknowledged", "sessions", "monotonic", mechanism=DATA_CENTERS, likely=5, workload="data-centers", nemesis=FAULTS
)
def acks_from_elsewhere_count_for_local_levels(patch: pytest.MonkeyPatch) -> None:
    real = levels.to_write

    def to_write(level: Consistency, holders: Holders, *, ring: Ring, rule: int, coordinator: NodeId) -> Need:
        need = real(level, holders, ring=ring, rule=rule, coordinator=coordinator)
        return Need(need.nodes, need.primaries)

    patch.setattr(levels, "to_write", to_write)


@planted("residency", mechanism=DATA_CENTERS, likely=1, is_soak=True, workload="bank", data_centers=2, nemesis="none")
def records_of_transactions_are_kept_anywhere(patch: pytest.MonkeyPatch) -> None:
    def id_within(transaction_id: bytes, _current: ClusterMap, _tables: Iterable[Table]) -> bytes:
        return transaction_id

    patch.setattr(ledger, "id_within", id_within)
