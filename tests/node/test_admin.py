"""The admin port: a node that takes no writes from clients says so, and load balancers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from merganser.model.ids import NodeId
from merganser.net.http import Request
from merganser.net.peers import Peers
from merganser.node.admin import Admin
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import member, simulated, started, until

HOUR_US = 3_600_000_000


class NoPeers:
    def connected(self) -> Mapping[NodeId, bool]:
        return {}


async def page(machine: Machine, path: bytes) -> tuple[int, dict[str, Any]]:
    admin = Admin(lambda: cast("Peers", NoPeers()), lambda: member(machine))
    response = await admin(Request(b"GET", path, [], b"", "127.0.0.1:1"))
    assert isinstance(response.body, bytes)
    return response.status, orjson.loads(response.body)


@simulated()
async def test_a_node_with_a_wrong_clock_is_ill_and_well_again_when_it_is_set_right(world: World) -> None:
    await started(world)
    machine, other, _ = world.machines
    await until(lambda: len(member(machine).clock_watch.standing().peers_s) == 2)
    machine.skew_us = HOUR_US
    assert await page(machine, b"/health") == (503, {"state": "wrong clock"})
    status, found = await page(machine, b"/status")
    assert (status, found["state"]) == (200, "wrong clock")
    assert found["failure"].startswith("this node's clock is 3600.0 s ahead of the median of the 3 clocks it knows")
    assert round(found["clock"]["ahead_s"]) == 3600
    assert await page(other, b"/health") == (200, {"state": "serving"})
    machine.skew_us = 0
    assert await page(machine, b"/health") == (200, {"state": "serving"})


@simulated()
async def test_a_node_whose_disk_failed_is_read_only_whatever_its_clock_shows(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    machine.engine.close()
    machine.skew_us = HOUR_US
    assert await page(machine, b"/health") == (503, {"state": "read-only"})


@simulated()
async def test_status_tells_what_is_going_on(world: World) -> None:
    await started(world)
    _, found = await page(world.machines[0], b"/status")
    assert found["load"]["background_share"] == 1.0
    assert found["load"]["requests_limit"] == 256
