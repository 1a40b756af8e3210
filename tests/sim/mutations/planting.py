"""Deliberate bugs, one a mechanism, and the scenario in which the simulator must find each.

A bug is planted by replacing a function of ours for one test. To add one: write a function that takes a
`pytest.MonkeyPatch`, and name in `@planted` the scenario and the checkers of which one must speak up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from merganser.sim.scenario import Scenario

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
    likely: int = 0
    """A seed that found it when this was written: tried first, it saves hunting for those that are hard to find."""
    is_soak: bool = False
    """Hunted for by `make soak` alone: another bug of the mechanism shows that it is looked at."""


PLANTED: list[Planted] = []

DURABILITY, QUORUMS, VERSIONS, TOMBSTONES = "durability", "quorums", "versions", "tombstones and expiry"
CLOCKS, READ_REPAIR, HANDOFF, RANGES = "clocks", "read repair", "sloppy quorum and hinted handoff", "ranges"
TABLES, DISKS, OVERLOAD, MEMBERSHIP = "tables", "disks", "overload", "membership"
HASH_TREES, ANTI_ENTROPY, WHOLENESS, HEALING = "hash trees", "anti-entropy", "wholeness", "healing"
ELECTIONS, ITEMS, FIRST_TOUCH, TRANSACTIONS = "elections", "items with leaders", "first touch", "transactions"
LED_REPAIR, LOCAL_INDEXES, INDEXES = "repair of leader-based tables", "local indexes", "global indexes"
EXPIRY, SIBLINGS, VERSIONS_OF_NODES = "expiry of items", "siblings", "versions of nodes"
MOVING, CLIENTS, SPLITTING = "moving partitions", "native clients", "cutting the ring finer"
TAGS, DATA_CENTERS = "tags of values", "data centres"
CRDTS, CONDITIONS = "values that merge themselves", "conditional puts and last writes"
POLICIES = "changes of policies"
MECHANISMS = (
    *(DURABILITY, QUORUMS, VERSIONS, TOMBSTONES, CLOCKS, READ_REPAIR, HANDOFF, RANGES, TABLES),
    *(HASH_TREES, ANTI_ENTROPY, HEALING, WHOLENESS, DISKS, MEMBERSHIP, OVERLOAD),
    *(ELECTIONS, ITEMS, FIRST_TOUCH, TRANSACTIONS, LED_REPAIR, LOCAL_INDEXES, INDEXES, EXPIRY, SIBLINGS),
    VERSIONS_OF_NODES,
    MOVING,
    CLIENTS,
    TAGS,
    SPLITTING,
    DATA_CENTERS,
    CRDTS,
    CONDITIONS,
    POLICIES,
)


def planted(
    *checkers: str, mechanism: str, seeds_max: int = 150, likely: int = 0, is_soak: bool = False, **scenario: Any
) -> Callable[[Plant], Plant]:
    """Note a bug of ``mechanism`` that one of ``checkers`` must find under ``scenario``, ``likely`` with that seed."""

    def note(plant: Plant) -> Plant:
        in_world = Scenario(**scenario)
        PLANTED.append(Planted(plant.__name__, mechanism, plant, in_world, checkers, seeds_max, likely, is_soak))
        return plant

    return note
