"""The admin port: a node that takes no writes from clients says so, and load balancers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import orjson

from merganser.model.ids import NodeId, PartitionId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.model.versions import SPOKEN
from merganser.net.http import Request, Response
from merganser.net.peers import Peers
from merganser.node.admin import HEADER, Admin
from merganser.service.transactions import TransactItem
from merganser.sim.indexes import BY_COLOR
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.plays import key_of, member, plant, simulated, started, started_with_leaders, until
from service.test_indexer import RED, begun, put, settled
from service.transactions_by_hand import evaluate

HOUR_US = 3_600_000_000


class NoPeers:
    versions = SPOKEN

    def connected(self) -> Mapping[NodeId, bool]:
        return {}

    def agreed(self) -> Mapping[NodeId, int | None]:
        return {}

    def problems(self) -> Mapping[NodeId, str | None]:
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
    assert found["leadership"] == {"groups_led": 0, "groups_without_leader": 0, "terms_begun": 0, "terms_ended": 0}


@simulated()
async def test_status_tells_how_many_groups_the_node_leads_and_how_many_nobody_leads(world: World) -> None:
    await started_with_leaders(world)
    await asyncio.sleep(1.0)
    pages = [(await page(machine, b"/status"))[1]["leadership"] for machine in world.machines]
    assert sum(found["groups_led"] for found in pages) == 16
    assert all(found["groups_without_leader"] == 0 for found in pages)
    for machine in world.machines[1:]:
        machine.crash()
    await asyncio.sleep(2.0)
    _, alone = await page(world.machines[0], b"/status")
    assert (alone["leadership"]["groups_led"], alone["leadership"]["groups_without_leader"]) == (0, 16)


@simulated()
async def test_status_tells_what_became_of_transactions(world: World) -> None:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    table = await started_with_leaders(world)
    transactions = member(world.machines[0]).leader_tables.transactions
    items = [TransactItem(table, key_of(table, name), b"=x") for name in (b"a", b"b")]
    await world.machines[0].spawn(transactions.write(items, deadline=world.loop.time() + 10.0))
    assert (await page(world.machines[0], b"/status"))[1]["transactions"] == {
        "under_way": 0,
        "refused": 0,
        "committed": 1,
        "cancelled": 0,
        "given_up_for_others": 0,
        "ended_for_others": 0,
    }


@simulated()
async def test_status_tells_how_far_indexes_are_behind(world: World) -> None:
    table = await begun(world, names=[BY_COLOR])
    await put(world.machines[0], table, b"a", RED)
    await settled(world, table)
    found = [(await page(machine, b"/status"))[1]["indexes"] for machine in world.machines]
    assert sum(one["entries_delivered"] for one in found) == 1
    assert all(one["items_waiting"] == one["markers_removed"] == 0 for one in found)


async def post(
    machine: Machine, path: bytes, *headers: tuple[bytes, bytes], is_ephemeral: bool = False
) -> tuple[int, dict[str, Any]]:
    admin = Admin(lambda: cast("Peers", NoPeers()), lambda: member(machine), is_ephemeral=is_ephemeral)
    response = await machine.spawn(_answered(admin, Request(b"POST", path, list(headers), b"", "127.0.0.1:1")))
    assert isinstance(response.body, bytes)
    return response.status, orjson.loads(response.body)


async def _answered(admin: Admin, request: Request) -> Response:
    return await admin(request)


BY_HAND = (HEADER, b"1")


@simulated()
async def test_status_tells_what_is_damaged_and_what_it_waits_for(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    member(machine).damage.met_row(table.id, key_of(table, b"k"))
    _, found = await page(machine, b"/status")
    assert (found["damage"]["found"], found["damage"]["waiting"]) == (1, 1)
    assert found["damage"]["first"][0]["table"] == table.name
    assert found["damage"]["first"][0]["why"].startswith("found just now")
    assert found["scrub"]["passes"] == 0


@simulated()
async def test_a_repair_is_told_peer_by_peer(world: World) -> None:
    table = await started(world)
    machine, *others = world.machines
    status, told = await post(machine, b"/repair?table=t&partition=3", BY_HAND)
    assert (status, told["rows"], told["damaged"]) == (200, 0, 0)
    assert set(told["peers"]) == {member(other).topology.node for other in others}
    assert all(peer["problem"] is None and peer["damaged"] == 0 for peer in told["peers"].values())
    status, told = await post(machine, b"/repair?table=t&partition=3&scrub_only=1", BY_HAND)
    assert (status, told["peers"]) == (200, {})
    assert table.name == "t"


@simulated()
async def test_what_a_form_or_a_script_of_a_browser_sends_is_refused(world: World) -> None:
    await started(world)
    for headers in ([], [(b"content-type", b"application/json")], [BY_HAND, (b"origin", b"http://evil.example")]):
        for path in (b"/repair?table=t&partition=3", b"/clean"):
            status, _ = await post(world.machines[0], path, *headers, is_ephemeral=True)
            assert status == 403
    assert member(world.machines[0]).catalog.current.tables


@simulated()
async def test_a_node_in_memory_drops_all_tables_when_asked_to_and_another_does_not(world: World) -> None:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    table = await started_with_leaders(world)
    machine = world.machines[0]
    items = [TransactItem(table, key_of(table, b"a"), b"=x")]
    await machine.spawn(member(machine).leader_tables.transactions.write(items, deadline=world.loop.time() + 10.0))
    assert len(member(machine).catalog.current.tables) == 3, "one is the ledger of transactions"
    status, told = await post(machine, b"/clean", BY_HAND)
    assert (status, len(member(machine).catalog.current.tables)) == (403, 3)
    assert told["error"].startswith("this node keeps its data")
    assert await post(machine, b"/clean", BY_HAND, is_ephemeral=True) == (200, {"tables": 3})
    assert member(machine).catalog.current.tables == ()
    assert await post(machine, b"/clean", BY_HAND, is_ephemeral=True) == (200, {"tables": 0})


@simulated()
async def test_mistakes_in_a_repair_are_told(world: World) -> None:
    await started(world, n=1)
    machine = world.machines[0]
    ring, me = member(machine).topology.ring, member(machine).topology.node
    foreign = next(p for p in range(16) if ring.owner(PartitionId(p)) != me)
    for path, told in (
        ("/repair?table=x&partition=0", "no tables are called 'x' on this node; there are t"),
        ("/repair?table=t&partition=16", "partition must be 0 to 15, not '16'"),
        ("/repair?table=t", "partition must be 0 to 15, not ''"),
        ("/repair?table=t&partition=0&force=1", "unknown: force"),
        (f"/repair?table=t&partition={foreign}", f"this node holds no replica of partition {foreign} of t"),
    ):
        status, answer = await post(machine, path.encode(), BY_HAND)
        assert status == 400
        assert answer["error"].startswith(told)
    assert (await post(machine, b"/status", BY_HAND))[0] == 405


@simulated()
async def test_status_tells_what_comparisons_came_to(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 10.0
    table = await started(world)
    plant(world.machines[0], table, b"k", Row((Cell(b"value", Timestamp(EPOCH_US, 1), b"v"),)))
    _, found = await page(world.machines[0], b"/status")
    assert found["anti_entropy"]["oldest_comparisons_us"] == {"t": None}
    await asyncio.sleep(25.0)
    pages = [(await page(machine, b"/status"))[1]["anti_entropy"] for machine in world.machines]
    assert all(of_one["completed"] >= 10 and of_one["given_up"] == 0 for of_one in pages)
    assert sum(of_one["differing"] for of_one in pages) >= 2
    assert sum(of_one["met_here"] + of_one["met_there"] for of_one in pages) == 2
    assert sum(of_one["sent_bytes"] for of_one in pages) > 0
    for of_one in pages:
        assert (
            EPOCH_US
            < of_one["oldest_comparisons_us"]["t"]
            <= of_one["last_completed_us"]
            <= world.machines[0].wall_us()
        )
