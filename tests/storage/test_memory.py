from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.errors import InvariantError, StorageFailedError
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine

FIRST, LAST = b"", b"\xff" * 8


async def quick() -> None:
    await asyncio.sleep(0)


def rows(engine: MemoryEngine) -> list[tuple[bytes, bytes]]:
    return list(engine.scan(FIRST, LAST))


def test_without_a_disk_a_commit_is_durable_at_once() -> None:
    engine = MemoryEngine()
    engine.commit(Batch().put(b"a", b"1"))
    assert engine.is_durable(b"a")
    assert engine.unsynced_batches == 0
    engine.power_cut(keep=0)
    assert rows(engine) == [(b"a", b"1")]


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
changes = st.lists(
    st.tuples(keys, st.none() | st.sampled_from([b"1", b"2"])) | st.tuples(keys, keys, st.none()), max_size=4
)


@given(st.lists(changes, max_size=5), st.lists(changes, max_size=5), st.integers(0, 6))
def test_a_power_cut_leaves_what_was_durable_and_the_first_batches_after_it(
    durable: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
    unsynced: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
    keep: int,
) -> None:
    async def scenario() -> None:
        engine, expected = MemoryEngine(sync=quick), MemoryEngine()
        for number, operations in enumerate(durable + unsynced):
            batch = Batch()
            batch.operations += operations
            engine.commit(batch)
            if number < len(durable) + keep:
                expected.commit(batch)
            if number + 1 == len(durable):
                await engine.durable()
        assert engine.unsynced_batches == len(unsynced)
        engine.power_cut(keep)
        assert rows(engine) == rows(expected)
        assert engine.is_all_durable

    asyncio.run(scenario())


def test_a_power_cut_during_a_sync_takes_back_what_the_sync_would_have_covered() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def sync() -> None:
            await release.wait()

        engine = MemoryEngine(sync=sync)
        engine.commit(Batch().put(b"a", b"1"))
        waiter = asyncio.create_task(engine.durable())
        await asyncio.sleep(0)
        engine.commit(Batch().put(b"b", b"1"))
        engine.power_cut(keep=0)
        with pytest.raises(StorageFailedError, match="power was cut"):
            await waiter
        assert rows(engine) == []

        release.set()
        engine.commit(Batch().put(b"c", b"1"))
        assert not engine.is_durable(b"c")
        await engine.durable()
        assert engine.is_durable(b"c")
        assert rows(engine) == [(b"c", b"1")]

    asyncio.run(scenario())


def test_a_failing_sync_fails_writes_and_reads_go_on_until_the_power_is_cut() -> None:
    async def scenario() -> None:
        errors = [OSError(28, "No space left on device")]

        async def sync() -> None:
            if errors:
                raise errors.pop()

        engine = MemoryEngine(sync=sync)
        engine.commit(Batch().put(b"a", b"1"))
        with pytest.raises(StorageFailedError, match="No space left"):
            await engine.durable()
        assert engine.failure is not None
        with pytest.raises(StorageFailedError):
            engine.commit(Batch().put(b"b", b"1"))
        assert rows(engine) == [(b"a", b"1")]
        assert not engine.is_durable(b"a")

        engine.power_cut(keep=0)
        assert engine.failure is None
        engine.commit(Batch().put(b"b", b"1"))
        await engine.durable()
        assert rows(engine) == [(b"b", b"1")]

    asyncio.run(scenario())


def test_a_scan_held_over_a_commit_is_a_bug_that_shows() -> None:
    engine = MemoryEngine()
    engine.commit(Batch().put(b"a", b"1").put(b"b", b"2"))
    scan = engine.scan(FIRST, LAST)
    next(scan)
    engine.commit(Batch().delete(b"a"))
    with pytest.raises(InvariantError, match="held over a commit"):
        next(scan)


@given(st.lists(changes, max_size=4), st.lists(changes, max_size=4), st.lists(changes, max_size=4))
def test_an_image_is_what_has_reached_the_disk_and_can_be_put_back(
    durable: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
    unsynced: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
    later: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
) -> None:
    async def scenario() -> None:
        engine, expected = MemoryEngine(sync=quick), MemoryEngine()
        for operations in durable:
            batch = Batch()
            batch.operations += operations
            engine.commit(batch)
            expected.commit(batch)
        await engine.durable()
        for operations in unsynced:
            batch = Batch()
            batch.operations += operations
            engine.commit(batch)
        image = engine.image()
        assert sorted(image.items()) == rows(expected)
        engine.power_cut(keep=len(unsynced))
        for operations in later:
            batch = Batch()
            batch.operations += operations
            engine.commit(batch)
        await engine.durable()
        engine.restore(image)
        assert rows(engine) == rows(expected)
        engine.power_cut(keep=0)
        assert rows(engine) == rows(expected)

    asyncio.run(scenario())
