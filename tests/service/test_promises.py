from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import PartitionId
from merganser.model.leader_messages import NOT_LEADING
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.service.promises import Promises
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine

GROUP, OTHER = Group(3, PartitionId(7)), Group(1, PartitionId(7))
FIRST, SECOND = Epoch(4, 1), Epoch(4, 2)


class SlowEngine(MemoryEngine):
    """Syncs when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def durable(self) -> None:
        self.asked.set()
        await self.goes_on.wait()
        await super().durable()


def test_a_promise_is_durable_on_return_and_outlives_the_node() -> None:
    async def play() -> None:
        engine = MemoryEngine()
        await Promises(engine).admit(GROUP, FIRST)
        assert engine.is_all_durable
        again = Promises(engine)
        assert again.of(GROUP) == FIRST
        assert again.of(OTHER) == NO_EPOCH

    asyncio.run(play())


def test_what_is_older_than_the_promise_is_refused_and_told_the_promise() -> None:
    async def play() -> None:
        promises = Promises(MemoryEngine())
        await promises.admit(GROUP, SECOND)
        with pytest.raises(RefusedError) as refusal:
            await promises.admit(GROUP, FIRST)
        assert refusal.value.code == NOT_LEADING
        assert refusal.value.epoch == SECOND
        await promises.admit(GROUP, SECOND)

    asyncio.run(play())


def test_one_that_was_overtaken_while_it_waited_for_the_disk_is_refused() -> None:
    async def play() -> None:
        engine = SlowEngine()
        promises = Promises(engine)
        waiting = asyncio.ensure_future(promises.admit(GROUP, FIRST))
        await engine.asked.wait()
        promises.promise(((GROUP, SECOND),))
        engine.goes_on.set()
        with pytest.raises(RefusedError):
            await waiting

    asyncio.run(play())


def test_what_is_promised_while_another_promise_waits_is_durable_too_before_anybody_hears_of_it() -> None:
    async def play() -> None:
        engine = SlowEngine()
        promises = Promises(engine)
        promises.promise(((GROUP, FIRST),))
        waiting = asyncio.ensure_future(promises.durable())
        await engine.asked.wait()
        promises.promise(((GROUP, SECOND), (OTHER, FIRST)))
        engine.goes_on.set()
        await waiting
        assert promises.stands(GROUP, SECOND)
        assert promises.stands(OTHER, FIRST)

    asyncio.run(play())


def test_promises_never_fall_and_each_rise_is_told_at_once() -> None:
    async def play() -> None:
        promises, told = Promises(MemoryEngine()), []
        promises.when_promised(lambda group, epoch: told.append((group, epoch)))
        promises.promise(((GROUP, SECOND), (OTHER, FIRST)))
        promises.promise(((GROUP, FIRST), (OTHER, FIRST)))
        assert promises.of(GROUP) == SECOND
        assert told == [(GROUP, SECOND), (OTHER, FIRST)]

    asyncio.run(play())


def test_a_damaged_promise_is_no_promise() -> None:
    async def play() -> None:
        engine = MemoryEngine()
        await Promises(engine).admit(GROUP, FIRST)
        start = keys.metadata_key("promise|")
        [(key, stored)] = engine.scan(start, keys.prefix_end(start))
        engine.commit(Batch().put(key, stored[:-1] + b"\xff"))
        with pytest.raises(CorruptionError):
            Promises(engine)

    asyncio.run(play())
