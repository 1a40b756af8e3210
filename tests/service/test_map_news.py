"""Newer maps come to all nodes, though whoever has changed one pushes it to the voters and to some others only."""

from __future__ import annotations

import pytest

from merganser.model.ids import NodeId
from merganser.model.messages import Adopt, Done
from merganser.service import map_news
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import member, play, serve_instead, started, until


def count_pushes(machine: Machine, to: dict[NodeId, int]) -> None:
    async def adopt(_sender: NodeId, request: Adopt) -> Done:
        to[machine.node] = to.get(machine.node, 0) + 1
        return await member(machine).catalog.news.adopt(request)

    serve_instead(machine, Adopt, adopt)


@pytest.mark.parametrize(("others", "pushed_to"), [(32, 7), (1, 6), (0, 5)])
def test_a_change_is_pushed_to_the_voters_and_some_others_and_known_to_all(
    monkeypatch: pytest.MonkeyPatch, others: int, pushed_to: int
) -> None:
    monkeypatch.setattr(map_news, "PUSHES_MAX", others)

    async def script(world: World) -> None:
        await started(world)
        pushed: dict[NodeId, int] = {}
        for machine in world.machines:
            count_pushes(machine, pushed)
        assert len(member(world.machines[0]).topology.map.voters) == 5
        epoch = member(world.machines[0]).topology.map.epoch
        table = await world.table(name="another")
        await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
        assert all(member(machine).topology.map.epoch == epoch + 1 for machine in world.machines)
        assert len(pushed) == pushed_to
        assert set(pushed.values()) <= {1, 2}  # the network may bring a message twice

    play(script, machines=7)
