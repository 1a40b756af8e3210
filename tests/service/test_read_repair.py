"""Read repair: in the background, bounded, and it ends."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.model.errors import PeerLostError
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Apply, Merged, Reply, Request
from merganser.service.read_repair import REPAIRS_MAX, ReadRepair, Reconciled, reconcile
from merganser.sim.loop import SimulatedLoop

APPLY = Apply(1, TableId(1), b"key", b"row")
NODE = NodeId("a")


class Peer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Reply]] = []

    def send(self, _node: NodeId, _request: Request) -> asyncio.Future[Reply]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]


def test_repairs_beyond_the_bound_are_dropped_and_there_is_room_again_when_some_end() -> None:
    async def script() -> None:
        peer = Peer()
        repairs = ReadRepair(peer.send)
        for _ in range(REPAIRS_MAX + 3):
            repairs.repair(NODE, APPLY)
        assert (len(peer.asked), repairs.sent, repairs.dropped) == (REPAIRS_MAX, REPAIRS_MAX, 3)
        peer.asked[0].set_result(Merged())
        await asyncio.sleep(0)
        repairs.repair(NODE, APPLY)
        assert repairs.sent == REPAIRS_MAX + 1

    SimulatedLoop(random.Random(1)).run(script())


def test_idle_waits_for_every_repair_and_failures_are_counted() -> None:
    async def script() -> None:
        peer = Peer()
        repairs = ReadRepair(peer.send)
        repairs.repair(NODE, APPLY)
        repairs.repair(NODE, APPLY)
        idle = asyncio.ensure_future(repairs.idle())
        peer.asked[0].set_exception(PeerLostError("gone"))
        await asyncio.sleep(0.1)
        assert not idle.done()
        peer.asked[1].set_result(Merged())
        await idle
        assert (repairs.sent, repairs.failed) == (2, 1)

    SimulatedLoop(random.Random(1)).run(script())


def test_an_error_of_our_own_is_not_swallowed() -> None:
    loop = SimulatedLoop(random.Random(1))

    async def script() -> None:
        peer = Peer()
        repairs = ReadRepair(peer.send)
        repairs.repair(NODE, APPLY)
        peer.asked[0].set_exception(ZeroDivisionError())
        await repairs.idle()

    loop.run(script())
    with pytest.raises(ZeroDivisionError):
        raise loop.errors[0]


def test_no_answers_at_all_come_to_nothing() -> None:
    assert reconcile(b"k", {}) == Reconciled(None, ())
