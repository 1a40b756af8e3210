"""Operations over the admin port: planned, begun once, told of, cancelled, refused with the way out."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson

from merganser.net.http import Request, Response
from merganser.net.peers import Peers
from merganser.node.admin import HEADER, Admin
from merganser.sim.machine import Machine
from merganser.sim.world import World
from node.test_admin import NoPeers, page
from service.plays import member, simulated, started, until


async def asked(machine: Machine, path: str, content: object = None) -> tuple[int, dict[str, Any]]:
    admin = Admin(lambda: cast("Peers", NoPeers()), lambda: member(machine))
    request = Request(b"POST", path.encode(), [(HEADER, b"1")], orjson.dumps(content), "127.0.0.1:1")

    async def answer() -> Response:
        return await admin(request)

    response = await machine.spawn(answer())
    assert isinstance(response.body, bytes)
    return response.status, orjson.loads(response.body)


async def grown(world: World) -> Machine:
    """Return a machine that has joined."""
    await started(world)
    newcomer = world.add_machine()
    await world.start()
    await until(lambda: all(len(member(machine).topology.map.nodes) == 4 for machine in world.machines))
    return newcomer


async def ended(machine: Machine) -> dict[str, Any]:
    for _ in range(600):
        _, found = await page(machine, b"/operation")
        if found["running"] is None:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(found)


@simulated()
async def test_a_node_joins_and_leaves_again_and_the_plan_was_right(world: World) -> None:
    newcomer = await grown(world)
    wanted = {"kind": "join", "nodes": [newcomer.address]}
    status, plan = await asked(world.machines[0], "/operation/plan", wanted)
    assert (status, plan["objections"], plan["moves"]) == (200, [], 4)
    assert [(node["owned"], node["owned_after"]) for node in plan["nodes"]][3] == (0, 4)
    assert (await page(world.machines[0], b"/operation"))[1]["running"] is None
    status, found = await asked(world.machines[1], "/operation/begin", {**wanted, "id": "a"})
    assert status == 200
    assert found["running"]["id"] == "a"
    assert (await asked(world.machines[2], "/operation/begin", {**wanted, "id": "a"}))[0] == 200
    status, found = await asked(world.machines[0], "/operation/begin", {"kind": "rebalance", "id": "b"})
    assert status == 400
    assert found["error"].startswith(f"another operation is under way: join {newcomer.node} (weight 1); wait for")
    last = (await ended(world.machines[1]))["last"]
    assert last == {"id": "a", "told": f"join {newcomer.node} (weight 1)", "is_done": True}
    owned = [node["partitions_owned"] for node in (await page(world.machines[1], b"/ring"))[1]["nodes"]]
    assert owned == [node["owned_after"] for node in plan["nodes"]]
    status, _ = await asked(world.machines[1], "/operation/begin", {"kind": "leave", "nodes": ["4"], "id": "c"})
    assert status == 200
    assert (await ended(world.machines[1]))["last"]["is_done"]
    assert len(member(world.machines[1]).topology.map.nodes) == 3
    await until(lambda: member(newcomer).topology.gone_at > 0)
    assert (await page(newcomer, b"/health"))[1] == {"state": "left"}


@simulated()
async def test_what_is_begun_can_be_cancelled(world: World) -> None:
    newcomer = await grown(world)
    machine = world.machines[0]
    await asked(machine, "/operation/begin", {"kind": "join", "nodes": [newcomer.node], "id": "a"})
    assert (await asked(machine, "/operation/cancel?id=other"))[0] == 400
    status, found = await asked(machine, "/operation/cancel?id=a")
    assert (status, found["running"]) == (200, None)
    assert found["last"]["is_done"] is False
    status, plan = await asked(machine, "/operation/plan", {"kind": "rebalance"})
    assert (plan["nodes"][3]["weight"], plan["nodes"][3]["owned_after"]) == (0, 0), "nobody asked for it"
    status, plan = await asked(machine, "/operation/plan", {"kind": "join", "nodes": [newcomer.node]})
    assert (status, plan["nodes"][3]["weight_after"], plan["nodes"][3]["owned_after"]) == (200, 1, 4)


@simulated()
async def test_it_is_ending_only_once_nothing_is_left_to_change(world: World) -> None:
    await started(world)
    machine, told = world.machines[0], list[str]()
    zones = {str(number): "elsewhere" for number in (1, 2, 3)}
    await asked(machine, "/operation/begin", {"kind": "zones", "zones": zones, "id": "a"})
    while (progress := member(machine).rebalancer.progress()) is not None:
        told.append(progress.step)
        await asyncio.sleep(0.01)
    assert {"copying", "settling"} & set(told)
    is_ending = [step == "ending" for step in told]
    assert is_ending == sorted(is_ending)


@simulated()
async def test_what_makes_no_sense_is_refused_with_the_reason(world: World) -> None:
    await grown(world)
    machine = world.machines[0]
    for wanted, reason in (
        ({"kind": "join", "nodes": ["1"]}, "node 1 has its share already (weight 1, 5 partitions): give it another"),
        ({"kind": "join", "nodes": []}, "join takes the nodes that it is for"),
        ({"kind": "join", "nodes": ["4", "4"]}, "a node is named twice"),
        ({"kind": "join", "nodes": ["4"], "weight": -1.0}, "nodes join with a weight above 0"),
        ({"kind": "join", "nodes": ["nobody"]}, "no node 'nobody' is a member of this cluster"),
        ({"kind": "replace", "nodes": ["1"]}, "replace needs --by"),
        ({"kind": "replace", "nodes": ["1"], "by": "2"}, f"node {world.machines[1].node} owns partitions already"),
        ({"kind": "weights", "nodes": ["1"]}, "move needs --weight"),
        ({"kind": "zones"}, "zones takes NODE=ZONE"),
        ({"kind": "explode"}, "the body makes no sense: Invalid enum value 'explode'"),
        ({"kind": "rebalance", "sideways": 1}, "the body makes no sense: Object contains unknown field"),
    ):
        status, found = await asked(machine, "/operation/plan", wanted)
        assert status == 400
        assert found["error"].startswith(reason)
    status, found = await asked(machine, "/operation/begin", {"kind": "rebalance"})
    assert (status, found["error"][:14]) == (400, "id is missing:")


@simulated()
async def test_a_node_that_lives_is_removed_only_if_the_operator_insists(world: World) -> None:
    await grown(world)
    machine = world.machines[0]
    wanted = {"kind": "remove", "nodes": ["4"]}
    objection = "node 4 (machine-3:7700) is alive, and what only it holds would be lost: have it leave instead"
    _, plan = await asked(machine, "/operation/plan", wanted)
    assert plan["objections"] == [objection]
    status, found = await asked(machine, "/operation/begin", {**wanted, "id": "a"})
    assert (status, found["error"]) == (400, objection)
    status, _ = await asked(machine, "/operation/begin", {**wanted, "id": "a", "forced": True})
    assert status == 200
    assert (await ended(machine))["last"]["is_done"]
