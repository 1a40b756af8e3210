"""Where a table is, asked and changed through the native client: the same machinery as that of operators."""

from __future__ import annotations

from typing import Any

import pytest

from client.by_hand import Nodes, a_map, client, client_of, made, on_virtual_time
from merganser.model.client_messages import ChangePolicy, TableIs
from merganser.model.errors import PeerLostError, RequestError, TableNotFoundError
from merganser.sim.world import World
from service.plays import holders, member, simulated, until


async def is_over(world: World, zones: set[str]) -> None:
    """Return when two machines in these zones hold the key, and no other."""
    await until(lambda: all(member(machine).topology.map.operation is None for machine in world.machines))
    there = {machine.address for machine in world.machines if machine.zone in zones}
    table = next(one for one in member(world.machines[0]).topology.map.tables if one.name == "values")
    await until(lambda: len(held := set(holders(world, table, b"k"))) == 2 and held <= there)


@simulated(machines=5)
async def test_a_table_moves_to_other_zones_and_nothing_is_lost(world: World) -> None:
    await made(world)
    async with client(world, timeout_s=20.0) as ann:
        await ann.table("values").put("k", "v")
        assert await ann.policy("values") == "3"
        zones = sorted({machine.zone for machine in world.machines})[:2]
        told = await ann.set_policy("values", n=2, zones=zones)
        assert told == f"2 in zones {zones[0]}, {zones[1]}"
        assert await ann.set_policy("values", n=2, zones=zones) == told  # and nothing more is begun
        with pytest.raises(RequestError, match=r"operation is under way"):
            await ann.set_policy("values", n=1)
        await is_over(world, set(zones))
        assert await ann.policy("values") == told
        assert (await ann.table("values").get("k")).value == b"v"
        assert await ann.set_policy("values", zones=()) == "2"
        await until(lambda: all(member(machine).topology.map.operation is None for machine in world.machines))
        assert await ann.policy("values") == "2"


@simulated()
async def test_what_speaks_against_it_is_told_and_nothing_is_begun(world: World) -> None:
    await made(world)
    epoch = member(world.machines[0]).topology.map.epoch
    async with client(world, timeout_s=5.0) as ann:
        for wrong, reason in (
            ({"zones": ["nowhere"]}, "no node that owns anything is in zone 'nowhere'"),
            ({"n": 5}, "5 replicas of each key are wanted"),
            ({"replicas": {"eu": 3}}, "no node that owns anything is in data centre 'eu'"),
            ({"n": 17}, "'17' is no number of replicas"),
            ({}, "say what is to be otherwise"),
            ({"n": 2, "replicas": {"eu": 3}}, "leave out n"),
        ):
            with pytest.raises(RequestError, match=reason):
                await ann.set_policy("values", **wrong)
        with pytest.raises(TableNotFoundError):
            await ann.set_policy("others", n=2)
        with pytest.raises(TypeError, match="zones must be a list of texts, not str: 'a'"):
            await ann.set_policy("values", zones="a")
        assert all(member(machine).topology.map.operation is None for machine in world.machines)
        assert member(world.machines[0]).topology.map.epoch == epoch
        assert await ann.set_policy("values", n=5, force=True) == "5"


@on_virtual_time
async def test_a_change_whose_answer_was_lost_is_asked_for_again() -> None:
    lost: list[Any] = [PeerLostError("no answer")]
    nodes = Nodes(
        a_map(), lambda _node, _request: lost.pop() if lost else TableIs("t", 2, "siblings", 1, "2 in zones a")
    )
    async with client_of(nodes) as ann:
        assert await ann.set_policy("t", n=2, zones=["a"]) == "2 in zones a"
    assert [type(request) for _, request in nodes.asked] == [ChangePolicy] * 2
