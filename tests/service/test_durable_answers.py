"""Answers that wait for the disk: together, no longer than they must, and not past its failure."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import StorageFailedError
from merganser.model.messages import Done, Merged
from merganser.service.durable_answers import DurableAnswers
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine


class Disk(MemoryEngine):
    """Syncs when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[None]] = []

    async def durable(self) -> None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]


def test_answers_of_one_turn_wait_together_and_later_ones_for_the_next_sync() -> None:
    async def scenario() -> None:
        disk = Disk()
        answers = DurableAnswers(disk)
        disk.commit(Batch().put(b"k", b"v"))
        first, second = answers.after(Done()), answers.after(Merged())
        await asyncio.sleep(0)
        third = answers.after(Done())
        await asyncio.sleep(0)
        assert len(disk.waiting) == 2
        assert not first.done()
        disk.waiting[0].set_result(None)
        assert (await first, await second) == (Done(), Merged())
        assert not third.done()
        disk.waiting[1].set_result(None)
        assert await third == Done()

    asyncio.run(scenario())


def test_nothing_is_answered_by_a_disk_that_failed() -> None:
    async def scenario() -> None:
        disk = Disk()
        answers = DurableAnswers(disk)
        given_up, waiting = answers.after(Done()), answers.after(Done())
        await asyncio.sleep(0)
        given_up.cancel()
        disk.waiting[0].set_exception(StorageFailedError("no more"))
        with pytest.raises(StorageFailedError, match="no more"):
            await waiting

    asyncio.run(scenario())


def test_who_waits_is_let_go_at_the_end() -> None:
    async def scenario() -> None:
        answers = DurableAnswers(Disk())
        waiting = answers.after(Done())
        await asyncio.sleep(0)
        answers.close()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(scenario())
