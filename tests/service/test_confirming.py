"""Rounds of confirmations after the loop has stood still: nobody may be left waiting."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from merganser.model.errors import PeerLostError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Confirm, Standing
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.service.asking import Asker
from merganser.service.confirming import AGAIN_S, Confirmations
from merganser.service.topology import Topology

pytestmark = pytest.mark.plain  # it stands in for what compiled code calls directly

ME, ONE, OTHER = (NodeId(letter * 16) for letter in "abc")


class Replicas:
    """Answers that all stands, but while they are away."""

    def __init__(self) -> None:
        self.are_away = True
        self.lost: list[asyncio.Future[Reply]] = []

    def nearest_first(self, nodes: list[NodeId]) -> list[NodeId]:
        return nodes

    def ask(self, _node: NodeId, request: Confirm, *, timeout_s: float) -> asyncio.Future[Reply]:
        assert timeout_s > 0
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self.are_away:
            self.lost.append(answer)
        else:
            answer.set_result(Standing(tuple(epoch for _, _, epoch in request.claims)))
        return answer


def test_a_round_that_a_stall_of_the_loop_outlasted_keeps_nobody_waiting() -> None:
    async def play() -> None:
        replicas = Replicas()
        topology = SimpleNamespace(node=ME, map=SimpleNamespace(epoch=1))
        group, epoch = Group(3, PartitionId(0)), Epoch(1, 1)
        term: Any = SimpleNamespace(group=group, epoch=epoch, quorum=2, replicas=(ME, ONE, OTHER), is_standing=True)
        term = Hashable(**vars(term))
        confirmations = Confirmations(
            cast("Topology", topology),
            cast("Asker", replicas),
            known=lambda _: epoch,
            learned=lambda *_: None,
        )
        waiting = asyncio.ensure_future(confirmations.confirm(term, deadline=asyncio.get_running_loop().time() + 60.0))
        await asyncio.sleep(0)  # it waits
        await asyncio.sleep(0)  # the round begins
        confirmations._asked[0].began_at -= 2 * AGAIN_S  # as if nothing had run since
        while len(replicas.lost) < 2:  # the other is asked once the first has failed
            if not replicas.lost[0].done():
                replicas.lost[0].set_exception(PeerLostError("gone"))
            await asyncio.sleep(0)
        replicas.lost[1].set_exception(PeerLostError("gone"))
        replicas.are_away = False
        async with asyncio.timeout(10):
            await waiting

    asyncio.run(play())


class Hashable(SimpleNamespace):
    """A term."""

    __hash__ = object.__hash__  # type: ignore[assignment]
