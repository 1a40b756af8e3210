"""What every engine promises, asked of each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merganser.model.errors import StorageFailedError
from merganser.storage.engine import Batch, Engine
from merganser.storage.memory import MemoryEngine
from merganser.storage.rocks import RocksEngine

FIRST, LAST = b"", b"\xff" * 8


@pytest.fixture(params=["memory", "memory over a disk", "rocks"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine
    if request.param == "memory":
        made = MemoryEngine()
    elif request.param == "memory over a disk":
        made = MemoryEngine(sync=lambda: asyncio.sleep(0))
    else:
        made = RocksEngine.open(tmp_path / "data")
    yield made
    made.close()


def fill(engine: Engine, *keys: bytes) -> None:
    batch = Batch()
    for key in keys:
        batch.put(key, b"value of " + key)
    engine.commit(batch)


def keys_of(engine: Engine, start: bytes = FIRST, end: bytes = LAST, *, reverse: bool = False) -> list[bytes]:
    return [key for key, _ in engine.scan(start, end, reverse=reverse)]


def test_what_was_committed_is_there_at_once(engine: Engine) -> None:
    assert engine.get(b"a") is None
    engine.commit(Batch().put(b"a", b"1").put(b"empty", b"").put(b"\x00\xff", b"\xff\x00"))
    assert [engine.get(key) for key in (b"a", b"empty", b"\x00\xff", b"b")] == [b"1", b"", b"\xff\x00", None]
    engine.commit(Batch().put(b"a", b"2").delete(b"empty").delete(b"never there"))
    assert [engine.get(key) for key in (b"a", b"empty")] == [b"2", None]


def test_a_batch_applies_in_the_order_it_was_made(engine: Engine) -> None:
    fill(engine, b"a", b"b", b"c")
    engine.commit(
        Batch()
        .put(b"b", b"gone again")
        .delete_range(b"a", b"c")
        .put(b"a", b"after the range")
        .delete(b"c")
        .put(b"c", b"after the delete")
        .put(b"d", b"1")
        .delete(b"d")
    )
    assert list(engine.scan(FIRST, LAST)) == [(b"a", b"after the range"), (b"c", b"after the delete")]


def test_a_scan_holds_its_start_and_not_its_end(engine: Engine) -> None:
    fill(engine, b"a", b"aa", b"b", b"c")
    assert keys_of(engine, b"a", b"c") == [b"a", b"aa", b"b"]
    assert keys_of(engine, b"a\x00", b"b\x00") == [b"aa", b"b"]
    assert list(engine.scan(b"b", b"c")) == [(b"b", b"value of b")]


def test_a_reverse_scan_is_the_scan_backwards(engine: Engine) -> None:
    fill(engine, b"a", b"aa", b"b", b"c")
    assert keys_of(engine, b"a", b"c", reverse=True) == [b"b", b"aa", b"a"]
    assert keys_of(engine, b"aa", b"bb", reverse=True) == [b"b", b"aa"]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_range_with_nothing_in_it_yields_nothing(engine: Engine, reverse: bool) -> None:
    fill(engine, b"a", b"d")
    for start, end in [(b"b", b"c"), (b"a", b"a"), (b"d", b"a"), (b"x", b"z"), (b"", b"a")]:
        assert keys_of(engine, start, end, reverse=reverse) == []


def test_a_scan_may_stop_early(engine: Engine) -> None:
    fill(engine, b"a", b"b", b"c")
    for key, _ in engine.scan(FIRST, LAST):
        assert key == b"a"
        break
    engine.commit(Batch().delete(b"a"))
    assert keys_of(engine) == [b"b", b"c"]


def test_deleting_a_range_backwards_deletes_nothing(engine: Engine) -> None:
    fill(engine, b"a", b"b", b"c")
    engine.commit(Batch().delete_range(b"c", b"a").delete_range(b"b", b"b"))
    assert keys_of(engine) == [b"a", b"b", b"c"]


keys = st.lists(st.sampled_from([0, 1, 0x61, 0xFF]), min_size=1, max_size=3).map(bytes)
operations = st.one_of(
    st.tuples(keys, st.binary(max_size=3) | st.none()),
    st.tuples(keys, keys, st.none()),
)


@given(st.lists(st.lists(operations, max_size=6), max_size=6), keys, keys)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gets_and_scans_agree_with_a_model(
    engine: Engine,
    batches: list[list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]]],
    start: bytes,
    end: bytes,
) -> None:
    engine.commit(Batch().delete_range(FIRST, LAST))
    model: dict[bytes, bytes] = {}
    for changes in batches:
        batch = Batch()
        batch.operations += changes
        engine.commit(batch)
        model = after(model, batch)
    rows = sorted((key, value) for key, value in model.items() if start <= key < end)
    assert list(engine.scan(start, end)) == rows
    assert list(engine.scan(start, end, reverse=True)) == rows[::-1]
    assert list(engine.scan(FIRST, LAST)) == sorted(model.items())
    assert engine.get(start) == model.get(start)


def after(model: dict[bytes, bytes], batch: Batch) -> dict[bytes, bytes]:
    rows = dict(model)
    for operation in batch.operations:
        if len(operation) == 3:
            rows = {key: value for key, value in rows.items() if not operation[0] <= key < operation[1]}
        elif operation[1] is None:
            rows.pop(operation[0], None)
        else:
            rows[operation[0]] = operation[1]
    return rows


def test_after_durable_everything_is_durable(engine: Engine) -> None:
    async def scenario() -> None:
        for n in range(3):
            engine.commit(Batch().put(b"a", b"%d" % n).put(b"b", b""))
            await engine.durable()
            assert engine.is_durable(b"a")
            assert engine.is_durable(b"never written")
            assert engine.is_all_durable

    asyncio.run(scenario())


def test_many_writers_at_once_all_get_their_durability(engine: Engine) -> None:
    async def writer(number: int) -> None:
        for round_ in range(5):
            key = b"%d/%d" % (number, round_)
            engine.commit(Batch().put(key, b"x"))
            await engine.durable()
            assert engine.is_durable(key)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(writer(number))
        assert len(keys_of(engine)) == 250
        assert engine.is_all_durable

    asyncio.run(scenario())


def test_a_cancelled_writer_leaves_the_others_durable(engine: Engine) -> None:
    async def write(number: int) -> None:
        engine.commit(Batch().put(b"%d" % number, b"x"))
        await engine.durable()

    async def scenario() -> None:
        writers = [asyncio.create_task(write(number)) for number in range(10)]
        await asyncio.sleep(0)
        for writer in writers[::2]:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        assert all(not writer.cancelled() for writer in writers[1::2])
        assert all(engine.is_durable(b"%d" % number) for number in range(1, 10, 2))
        await engine.durable()
        assert engine.is_all_durable

    asyncio.run(scenario())


def test_a_closed_engine_takes_no_writes_and_closes_again(engine: Engine) -> None:
    assert engine.failure is None
    engine.close()
    engine.close()
    assert engine.failure is not None
    with pytest.raises(StorageFailedError, match="closed"):
        engine.commit(Batch().put(b"a", b""))
    with pytest.raises(StorageFailedError, match="closed"):
        asyncio.run(engine.durable())


def test_closing_tells_those_who_wait(engine: Engine) -> None:
    async def scenario() -> None:
        engine.commit(Batch().put(b"a", b""))
        if engine.is_all_durable:
            return
        waiter = asyncio.create_task(engine.durable())
        await asyncio.sleep(0)
        engine.close()
        with pytest.raises(StorageFailedError, match="closed"):
            await waiter

    asyncio.run(scenario())
