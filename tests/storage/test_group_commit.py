from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.errors import StorageFailedError
from merganser.storage.engine import Batch
from merganser.storage.group_commit import GroupCommit


class Disk:
    """An fsync that ends when the test says so."""

    def __init__(self) -> None:
        self.began: list[asyncio.Future[None]] = []
        self.covers: list[int] = []
        self.group = GroupCommit(self._sync)

    async def _sync(self) -> None:
        self.covers.append(self.group.committed)
        self.began.append(asyncio.get_running_loop().create_future())
        await self.began[-1]

    def commit(self, key: bytes = b"key") -> None:
        self.group.note(Batch().put(key, b""))

    async def wait(self) -> asyncio.Task[None]:
        waiter = asyncio.create_task(self.group.durable())
        await settle()
        return waiter

    async def end(self, error: Exception | None = None) -> None:
        """End the fsync in flight."""
        assert not self.began[-1].done(), "no fsync is in flight"
        if error is None:
            self.began[-1].set_result(None)
        else:
            self.began[-1].set_exception(error)
        await settle()


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(8):
        await asyncio.sleep(0)


def run(scenario: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_one_fsync_serves_all_who_committed_before_it() -> None:
    async def scenario() -> None:
        disk = Disk()
        waiters = []
        for _ in range(100):
            disk.commit()
            waiters.append(asyncio.create_task(disk.group.durable()))
        await settle()
        await disk.end()
        assert all(waiter.done() for waiter in waiters)
        assert len(disk.began) == 1
        assert disk.group.is_all_durable

    run(scenario())


def test_nothing_to_make_durable_costs_no_fsync() -> None:
    async def scenario() -> None:
        disk = Disk()
        await disk.group.durable()
        assert disk.began == []

    run(scenario())


def test_a_commit_during_an_fsync_waits_for_the_next_which_begins_at_once() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit()
        first = await disk.wait()
        disk.commit()
        second = await disk.wait()
        await disk.end()
        assert first.done()
        assert not second.done()
        assert len(disk.began) == 2
        await disk.end()
        assert second.done()

    run(scenario())


def test_who_comes_during_an_fsync_and_changed_nothing_since_it_began_joins_it() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit()
        waiters = [await disk.wait(), await disk.wait()]
        await disk.end()
        assert all(waiter.done() for waiter in waiters)
        assert len(disk.began) == 1

    run(scenario())


def test_no_fsync_runs_when_nobody_waits() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit()
        await disk.wait()
        disk.commit()
        await disk.end()
        assert len(disk.began) == 1
        assert not disk.group.is_all_durable

    run(scenario())


@pytest.mark.parametrize("cancelled", [0, 1])
def test_a_cancelled_waiter_takes_nothing_from_the_others(cancelled: int) -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit()
        this_round = [await disk.wait(), await disk.wait()]
        disk.commit()
        next_round = [await disk.wait(), await disk.wait()]
        this_round[cancelled].cancel()
        next_round[cancelled].cancel()
        await settle()
        await disk.end()
        await disk.end()
        for waiters in (this_round, next_round):
            assert waiters[cancelled].cancelled()
            await waiters[1 - cancelled]
        assert disk.group.is_all_durable

    run(scenario())


def test_a_key_is_durable_when_the_fsync_that_began_after_its_newest_commit_ended() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit(b"early")
        disk.commit(b"both")
        await disk.wait()
        disk.commit(b"late")
        disk.commit(b"both")
        assert [disk.group.is_durable(key) for key in (b"early", b"both", b"late", b"other")] == [False] * 3 + [True]
        await disk.wait()
        await disk.end()
        assert [disk.group.is_durable(key) for key in (b"early", b"both", b"late")] == [True, False, False]
        await disk.end()
        assert disk.group.is_durable(b"both")

    run(scenario())


def test_a_deleted_range_is_not_durable_until_its_fsync_ended() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.group.note(Batch().delete_range(b"b", b"d").delete(b"x"))
        assert [disk.group.is_durable(key) for key in (b"a", b"b", b"c", b"d", b"x")] == [
            True,
            False,
            False,
            True,
            False,
        ]
        await disk.wait()
        await disk.end()
        assert disk.group.is_durable(b"b")

    run(scenario())


def test_a_failed_fsync_fails_all_who_wait_and_all_who_come() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit(b"this round")
        waiters = [await disk.wait()]
        disk.commit(b"next round")
        waiters.append(await disk.wait())
        await disk.end(OSError(5, "Input/output error"))
        for waiter in waiters:
            with pytest.raises(StorageFailedError, match=r"fsync failed.*Input/output error"):
                await waiter
        with pytest.raises(StorageFailedError):
            disk.commit()
        with pytest.raises(StorageFailedError):
            await disk.group.durable()
        assert not disk.group.is_durable(b"this round")
        assert not disk.group.is_durable(b"next round")
        assert disk.group.is_durable(b"other")
        assert len(disk.began) == 1

    run(scenario())


def test_a_failed_write_fails_all_who_wait_but_what_an_fsync_covers_is_durable() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit(b"good")
        waiter = await disk.wait()
        disk.commit(b"bad")
        disk.group.fail("no space left")
        disk.group.fail("a later reason")
        with pytest.raises(StorageFailedError, match="no space left"):
            await waiter
        await disk.end()
        assert disk.group.is_durable(b"good")
        assert not disk.group.is_durable(b"bad")
        assert disk.group.failure == "no space left"

    run(scenario())


def test_stopping_tells_those_who_wait_and_ends_the_round() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.commit()
        waiter = await disk.wait()
        disk.group.stop("closed")
        with pytest.raises(StorageFailedError, match="closed"):
            await waiter
        await settle()
        assert disk.began[0].cancelled()
        assert not disk.group.is_durable(b"key")

    run(scenario())


def test_what_a_dead_event_loop_left_is_covered_by_the_next_round() -> None:
    disk = Disk()

    async def first_life() -> None:
        disk.commit(b"in flight")
        await disk.wait()
        disk.commit(b"after")
        await disk.wait()

    async def second_life() -> None:
        assert not disk.group.is_durable(b"in flight")
        waiter = await disk.wait()
        await disk.end()
        await waiter
        assert disk.group.is_durable(b"in flight")
        assert disk.group.is_durable(b"after")

    run(first_life())
    run(second_life())


@given(st.lists(st.sampled_from(["commit", "wait", "cancel", "end"]), max_size=40))
def test_a_waiter_is_woken_exactly_when_an_fsync_that_began_after_its_commit_ends(steps: list[str]) -> None:
    async def scenario() -> None:
        disk = Disk()
        waiting: list[tuple[int, asyncio.Task[None]]] = []
        durable = 0
        for step in steps:
            if step == "commit":
                disk.commit()
            elif step == "wait":
                waiting.append((disk.group.committed, await disk.wait()))
            elif step == "cancel" and waiting:
                waiting.pop()[1].cancel()
                await settle()
            elif step == "end" and disk.began and not disk.began[-1].done():
                durable = disk.covers[-1]
                await disk.end()
            assert all(waiter.done() == (committed <= durable) for committed, waiter in waiting)
            assert disk.group.synced == durable

    run(scenario())
