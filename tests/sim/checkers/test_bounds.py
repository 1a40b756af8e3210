"""The checker of bounds."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from merganser.core import cluster_map
from merganser.core.admission import AdmissionLimits
from merganser.model.cluster import NodeRecord
from merganser.model.ids import ClusterId, NodeId
from merganser.model.load import Load
from merganser.service.admission import Admission
from merganser.sim.checkers.bounds import exceeded_bounds
from merganser.sim.checkers.replicas import NodeState

LIMITS = AdmissionLimits(requests_max=4, waiting_max=3, operations_max=2, served_max=5, served_bytes_max=100, led_max=6)
MAP = cluster_map.found(ClusterId("c"), [NodeRecord(NodeId("a"), 0, "a:1", {}, "z")], partitions=4)


async def _idle() -> Load:
    admission = Admission(LIMITS)
    try:
        return admission.load()
    finally:
        admission.close()


def told(**changes: int) -> list[str]:
    load = msgspec.structs.replace(asyncio.run(_idle()), **changes)
    return list(exceeded_bounds([NodeState(NodeId("a"), MAP, {}, load=load, limits=LIMITS)]))


def test_what_the_limits_allow_is_no_violation() -> None:
    full = {
        "most_requests_in_flight": 4,
        "most_requests_waiting": 3,
        "most_operations": 2,
        "most_served": 5,
        "most_led": 6,
    }
    assert told(**full, most_served_bytes=100) == []


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("most_requests_in_flight", 5),
        ("most_requests_waiting", 4),
        ("most_operations", 3),
        ("most_served", 6),
        ("most_led", 7),
        ("most_served_bytes", 101),
        ("requests_in_flight", 1),
        ("requests_waiting", 1),
    ],
)
def test_one_more_than_the_limits_allow_is_told(figure: str, value: int) -> None:
    (sentence,) = told(**{figure: value})
    assert sentence.startswith(f"a had {value} ")
