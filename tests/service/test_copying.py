"""Copies of a moving partition: how many pages are under way while clients ask, and while none does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Copies, Kept
from merganser.model.messages import Reply
from merganser.service.admission import Admission
from merganser.service.asking import Asker
from merganser.service.copying import PAGE_ROWS, Copying
from merganser.service.leadership import Leadership
from merganser.service.topology import Topology
from merganser.sim.world import World
from merganser.storage.engine import Batch, Engine
from service.plays import simulated

PEER = NodeId("peer")
TABLE = cast("Table", SimpleNamespace(id=1, rule=3, name="moving"))


class Newcomer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Copies, asyncio.Future[Reply]]] = []
        self.most = 0
        self.is_asked = asyncio.Event()

    def ask(self, _node: NodeId, request: Copies, **_how: object) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.asked.append((request, answer))
        self.is_asked.set()
        self.most = max(self.most, sum(not answer.done() for _, answer in self.asked))
        return answer

    async def answer_all(self, work: asyncio.Future[Any]) -> list[bytes]:
        """Answer each page until ``work`` is done; returns the keys of all."""
        keys = []
        while not work.done():
            for request, answer in self.asked:
                if not answer.done():
                    keys += [copy.key for copy in request.copies]
                    answer.set_result(Kept(()))
            await asyncio.sleep(0.001)
        return keys


def copying(newcomer: Newcomer, engine: Engine, rows: int, *, is_asked: bool) -> Copying:
    """Two partitions, each with ``rows`` rows: its keys begin with its number."""
    batch = Batch()
    for partition in b"12":
        for row in range(rows):
            batch.put(b"%c%04d" % (partition, row), b"register")
    engine.commit(batch)
    led = SimpleNamespace(epoch=(1, 1), generation=0)

    async def background() -> None:
        await asyncio.sleep(0)

    return Copying(
        cast(
            "Topology",
            SimpleNamespace(
                partition_range=lambda _table, first, last: (b"%d" % first, b"%d" % (last + 1)),
                map=SimpleNamespace(epoch=7),
            ),
        ),
        cast("Asker", newcomer),
        engine,
        cast("Leadership", SimpleNamespace(led=lambda _group: led)),
        cast("Admission", SimpleNamespace(background=background, is_asked=is_asked)),
    )


@simulated(machines=1)
async def test_while_clients_ask_one_page_of_all_places_is_under_way(world: World) -> None:
    for is_asked, most in (True, 1), (False, 2):
        newcomer, rows = Newcomer(), 2 * PAGE_ROWS + 1
        work = copying(newcomer, world.machines[0].engine, rows, is_asked=is_asked)
        both = asyncio.gather(*(work.copy(TABLE, PartitionId(partition), PEER) for partition in (1, 2)))
        keys = await newcomer.answer_all(both)
        await both
        assert newcomer.most == most
        assert sorted(keys) == [b"%c%04d" % (partition, row) for partition in b"12" for row in range(rows)]
        assert work.rows == 2 * rows


@simulated(machines=1)
async def test_a_copy_that_is_refused_ends_and_lets_the_next_place_go_on(world: World) -> None:
    newcomer = Newcomer()
    work = copying(newcomer, world.machines[0].engine, 1, is_asked=True)
    first = asyncio.ensure_future(work.copy(TABLE, PartitionId(1), PEER))
    second = asyncio.ensure_future(work.copy(TABLE, PartitionId(2), PEER))
    await newcomer.is_asked.wait()
    newcomer.asked[0][1].set_exception(RefusedError("stale", "an older placement"))
    with pytest.raises(RefusedError, match="older placement"):
        await first
    await newcomer.answer_all(asyncio.ensure_future(second))
    assert work.rows == 1
