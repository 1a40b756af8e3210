"""What clients do in a run, one module each; `sim.checkers` judges what they heard.

A workload is built over `Clients` and says what client number ``i`` does, once. Everything it asks goes through
`Clients`, so it is in the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from merganser.model.cluster import KEY_VALUE_WIRE, Conflicts
from merganser.sim.clients import Clients
from merganser.sim.indexes import INDEXES
from merganser.sim.machine import Machine
from merganser.sim.workloads.appends import Appends
from merganser.sim.workloads.bank import Bank
from merganser.sim.workloads.bursts import LIMITS, Bursts
from merganser.sim.workloads.carts import Carts
from merganser.sim.workloads.conditions import Conditions
from merganser.sim.workloads.counters import Counters
from merganser.sim.workloads.crdt_carts import CrdtCarts
from merganser.sim.workloads.crdts import Crdts
from merganser.sim.workloads.data_centers import DataCenters
from merganser.sim.workloads.deletes import Deletes
from merganser.sim.workloads.expiries import Expiries
from merganser.sim.workloads.handoff import Handoff
from merganser.sim.workloads.index_changes import IndexChanges
from merganser.sim.workloads.index_queries import IndexQueries
from merganser.sim.workloads.indexes import Indexes
from merganser.sim.workloads.item_scans import ItemScans
from merganser.sim.workloads.items import Items
from merganser.sim.workloads.last_writes import LastWrites
from merganser.sim.workloads.levels import Levels
from merganser.sim.workloads.native import Native
from merganser.sim.workloads.native_crdts import NativeCrdtUse
from merganser.sim.workloads.registers import Registers
from merganser.sim.workloads.scans import Scans
from merganser.sim.workloads.sessions import Sessions
from merganser.sim.workloads.shoppers import Shoppers
from merganser.sim.workloads.siblings import Siblings
from merganser.sim.workloads.tables import Tables
from merganser.sim.workloads.tags import Tags


class Workload(Protocol):
    """What the clients of a run do."""

    async def client(self, number: int, operations: int) -> None:
        """Be client ``number`` for so many operations."""


@runtime_checkable
class Concluding(Protocol):
    """A workload that has a last look when all is well again."""

    async def conclude(self, machine: Machine, client: int) -> bool:
        """Look once, through ``machine``; returns whether all was answered."""


WORKLOADS: dict[str, Callable[[Clients, int], Workload]] = {
    "registers": Registers,
    "sessions": Sessions,
    "deletes": Deletes,
    "scans": Scans,
    "levels": Levels,
    "handoff": Handoff,
    "tables": Tables,
    "bursts": Bursts,
    "siblings": Siblings,
    "carts": Carts,
    "conditions": Conditions,
    "last-writes": LastWrites,
    "tags": Tags,
    "crdts": Crdts,
    "crdt-carts": CrdtCarts,
    "items": Items,
    "counters": Counters,
    "bank": Bank,
    "appends": Appends,
    "item-scans": ItemScans,
    "index-queries": IndexQueries,
    "indexes": Indexes,
    "expiries": Expiries,
    "index-changes": IndexChanges,
    "native": Native,
    "native-crdts": NativeCrdtUse,
    "data-centers": DataCenters,
}
"""By name; each is made of the clients and the number of keys that all of them share."""

MEASURING: dict[str, Callable[[Clients, int], Workload]] = {"shoppers": Shoppers}
"""Those that are run by their own names alone: they count something, and find nothing that the others do not."""

NAMED = {**WORKLOADS, **MEASURING}

ON_LEADERS = frozenset(
    ("items", "counters", "bank", "appends", "item-scans", "index-queries", "indexes", "expiries", "index-changes")
)
"""Those that work on a leader-based table."""

IN_DATA_CENTERS = frozenset(("data-centers",))
"""Those that work in several data centres even if nobody asks for any."""

CONFLICTS: dict[str, Conflicts] = {
    "siblings": "siblings",
    "carts": "siblings",
    "conditions": "siblings",
    "native": "siblings",
    "tags": "siblings",
    "shoppers": "siblings",
    "crdts": "crdt",
    "crdt-carts": "crdt",
    "native-crdts": "crdt",
}
"""What becomes of conflicts in the table, for those that work on one where the last write does not win."""

WIRES = dict.fromkeys(("native", "native-crdts", "last-writes"), KEY_VALUE_WIRE)
"""Whose table it is, for those on tables that only that wire makes."""

INDEXED = {"indexes": INDEXES}
"""The global indexes that the table is made with, for those that look at any."""

LIMITED = {"bursts": LIMITS}
"""What the nodes take on at once, for workloads that would not reach what they take on otherwise."""
