"""A replica: what it refuses, what it waits for, and what a power cut cannot undo."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import ClockSkewError, CorruptionError, RefusedError, StorageFailedError
from merganser.model.ids import TableId
from merganser.model.messages import Apply, Found, Merged, Read, ReadRange, Reply, Request, Rows
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import encode_row
from service.plays import (
    ALL,
    CELL,
    damage,
    held,
    key_of,
    member,
    now_s,
    plant,
    put,
    replicas_of,
    settled,
    simulated,
    started,
    until,
)

FAR = 3600.0  # a deadline that does not matter


def row(value: bytes = b"v", micros: int = 0) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US + micros, 9), value),))


def apply(table: Table, name: bytes, what: Row, *, map_epoch: int = 0) -> Apply:
    key = key_of(table, name)
    return Apply(map_epoch, table.id, key, encode_row(key, what))


def every_row(table: Table, *, rows_max: int = 1000, bytes_max: int = 1_000_000, reverse: bool = False) -> ReadRange:
    start, end = keys.token_range(table.id, *_WHOLE_RING)
    return ReadRange(0, table.id, start, end, reverse, rows_max, bytes_max)


_WHOLE_RING = (keys.token_in(b"\0" * 12), keys.token_in(b"\0" * 4 + b"\xff" * 8))


async def ask(machine: Machine, request: Request) -> Reply:
    """Ask ``machine`` as its first peer would."""
    peer = member(machine).topology.map.nodes[0].id
    return await machine.spawn(member(machine).serve(peer, request))


async def keep_syncing(machine: Machine) -> asyncio.Event:
    """Let no fsync of ``machine`` end before the event is set."""
    disk_is_well = asyncio.Event()

    async def wait() -> None:
        await disk_is_well.wait()

    await until(lambda: machine.engine.is_all_durable)
    machine.engine._group._sync = wait
    return disk_is_well


@simulated(machines=5)
async def test_keys_that_a_node_does_not_hold_are_refused_with_its_epoch(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    for request in (apply(table, b"k", row()), Read(0, table.id, key_of(table, b"k"))):
        with pytest.raises(RefusedError, match="holds no replica of partition") as refused:
            await ask(outsider, request)
        assert refused.value.code == NOT_A_REPLICA
        assert refused.value.map_epoch == member(outsider).topology.map.epoch
    assert held(outsider, table, b"k") is None


@simulated(machines=5)
async def test_a_range_is_refused_unless_the_node_holds_all_of_it(world: World) -> None:
    table = await started(world)
    *others, alone_in_its_zone = sorted(world.machines, key=lambda machine: machine is world.machines[2])
    assert await ask(alone_in_its_zone, every_row(table)) == Rows((), is_last=True)
    for machine in others:
        with pytest.raises(RefusedError, match="holds no replica of partition"):
            await ask(machine, every_row(table))


@simulated()
async def test_tables_that_do_not_exist_are_refused(world: World) -> None:
    table = await started(world)
    stranger = Table(TableId(99), "x", "sim", 3, b"", "x")
    requests = (
        apply(stranger, b"k", row()),
        Read(0, stranger.id, key_of(stranger, b"k")),
        every_row(stranger),
        Read(0, table.id, key_of(stranger, b"k")),
        Read(0, TableId(0), keys.metadata_key("cluster_map")),
    )
    for request in requests:
        with pytest.raises(RefusedError, match="no table with id") as refused:
            await ask(world.machines[0], request)
        assert refused.value.code == NO_SUCH_TABLE


@simulated()
async def test_a_request_of_a_newer_epoch_makes_the_replica_catch_up_first(world: World) -> None:
    await world.start()
    late, *informed = world.machines
    for machine in informed:
        world.network.cut(machine.address, late.address)
    table = await world_table(world, informed[0])
    world.network.heal()
    assert member(late).topology.table(table.id) is None
    await put(informed[0], table, b"k", b"v", level=ALL)
    assert held(late, table, b"k") is not None


async def world_table(world: World, machine: Machine) -> Table:
    return await machine.spawn(
        member(machine).catalog.create_table(
            wire="sim",
            name="t",
            n=3,
            definition=b"",
            unique_id=f"{world.rng.getrandbits(64):016x}",
            deadline=now_s() + 10.0,
        )
    )


@simulated()
async def test_a_request_of_an_older_epoch_is_served_if_the_key_is_held(world: World) -> None:
    table = await started(world)
    assert await ask(world.machines[0], apply(table, b"k", row(), map_epoch=1)) == Merged()


@simulated()
async def test_timestamps_too_far_in_the_future_are_refused_and_nothing_is_written(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    minted_before = await machine.spawn(member(machine).timestamps.mint(FAR))
    with pytest.raises(ClockSkewError, match="more than the 60"):
        await ask(machine, apply(table, b"k", row(micros=120_000_000)))
    assert held(machine, table, b"k") is None
    minted = await machine.spawn(member(machine).timestamps.mint(FAR))
    assert minted.micros - minted_before.micros < 1_000_000, "the clock did not follow"


@simulated()
async def test_the_clock_follows_what_the_replica_is_sent(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await ask(machine, apply(table, b"k", row(micros=30_000_000)))
    minted = await machine.spawn(member(machine).timestamps.mint(FAR))
    assert minted > Timestamp(EPOCH_US + 30_000_000, 9)


@simulated()
async def test_a_damaged_row_from_a_peer_is_refused(world: World) -> None:
    table = await started(world)
    good = apply(table, b"k", row())
    for bad in (good.row[:-1], good.row[:-1] + b"?", apply(table, b"other", row()).row, b""):
        with pytest.raises(CorruptionError):
            await ask(world.machines[0], Apply(0, table.id, good.key, bad))
    assert held(world.machines[0], table, b"k") is None


@simulated()
async def test_a_repeated_or_older_apply_commits_nothing(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    older, newer = apply(table, b"k", row(b"old", 1)), apply(table, b"k", row(b"new", 2))
    await ask(machine, newer)
    committed = machine.engine._group.committed
    for request, outranked_by in ((newer, None), (older, Timestamp(EPOCH_US + 2, 9)), (newer, None)):
        assert await ask(machine, request) == Merged(outranked_by)
    assert machine.engine._group.committed == committed
    assert held(machine, table, b"k") == row(b"new", 2)


@simulated()
async def test_applies_in_any_order_leave_the_same_row(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    writes = [Row((Cell(bytes((97 + i % 3,)), Timestamp(EPOCH_US + i, 1), b"%d" % i),)) for i in range(6)]
    writes.append(Row((), Timestamp(EPOCH_US + 2, 1)))
    kept = set()
    for number in range(20):
        name = b"k%d" % number
        for what in world.rng.sample(writes, len(writes)):
            await ask(machine, apply(table, name, what))
        kept.add(held(machine, table, name))
    assert len(kept) == 1


@simulated()
async def test_an_ack_waits_for_the_fsync(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    disk_is_well = await keep_syncing(machine)
    first = asyncio.ensure_future(ask(machine, apply(table, b"k", row())))
    repeated = asyncio.ensure_future(ask(machine, apply(table, b"k", row())))
    await asyncio.sleep(10.0)
    assert not first.done()
    assert not repeated.done(), "there is nothing to write, and it is not durable either"
    disk_is_well.set()
    assert [await first, await repeated] == [Merged(), Merged()]


@simulated()
async def test_reads_and_scans_that_meet_an_unsynced_write_wait_for_its_fsync(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await ask(machine, apply(table, b"other", row()))
    disk_is_well = await keep_syncing(machine)
    plant(machine, table, b"k", row())
    read = asyncio.ensure_future(ask(machine, Read(0, table.id, key_of(table, b"k"))))
    scan = asyncio.ensure_future(ask(machine, every_row(table)))
    assert await ask(machine, Read(0, table.id, key_of(table, b"other"))) != Found(None), "this one meets nothing"
    await asyncio.sleep(10.0)
    assert not read.done()
    assert not scan.done()
    disk_is_well.set()
    assert await read == Found(encode_row(key_of(table, b"k"), row()))
    page = await scan
    assert isinstance(page, Rows)
    assert len(page.rows) == 2


@simulated()
async def test_after_a_failed_fsync_writes_are_refused_and_synced_rows_still_read(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await ask(machine, apply(table, b"k", row()))

    async def fail() -> None:
        raise OSError("no space left on device")

    machine.engine._group._sync = fail
    with pytest.raises(StorageFailedError, match="no space left"):
        await ask(machine, apply(table, b"new", row()))
    with pytest.raises(StorageFailedError):
        await ask(machine, Read(0, table.id, key_of(table, b"new")))
    assert await ask(machine, Read(0, table.id, key_of(table, b"k"))) != Found(None)


@simulated()
async def test_an_acknowledged_row_survives_a_power_cut(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for number in range(20):
        await ask(machine, apply(table, b"k%d" % number, row(b"%d" % number)))
        machine.crash()
        machine.start()
        await world.up(machine)
    assert all(held(machine, table, b"k%d" % number) == row(b"%d" % number) for number in range(20))


@simulated()
async def test_a_cancelled_apply_is_written_whole_or_not_at_all_and_can_be_repeated(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for number in range(30):
        applying = asyncio.ensure_future(ask(machine, apply(table, b"k", row(b"%d" % number, number))))
        await asyncio.sleep(world.rng.uniform(0.0, 0.005))
        applying.cancel()
        kept = held(machine, table, b"k")
        assert kept is None or kept.cells[0].value in {b"%d" % n for n in range(number + 1)}
    await ask(machine, apply(table, b"k", row(b"last", 99)))
    assert held(machine, table, b"k") == row(b"last", 99)
    assert machine.engine.is_durable(key_of(table, b"k"))


@simulated()
async def test_a_damaged_stored_row_is_refused_and_kept(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await ask(machine, apply(table, b"k", row()))
    damaged = damage(machine, table, b"k")
    for request in (Read(0, table.id, key_of(table, b"k")), apply(table, b"k", row(b"new", 5)), every_row(table)):
        with pytest.raises(CorruptionError, match="damaged value"):
            await ask(machine, request)
    assert machine.engine.get(key_of(table, b"k")) == damaged


@simulated()
async def test_a_page_stops_at_its_limits_and_holds_at_least_one_row(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    for number in range(10):
        plant(machine, table, b"k%d" % number, row())
    for rows_max, bytes_max, expected in ((3, 10**6, 3), (1, 10**6, 1), (0, 10**6, 1), (10, 1, 1), (10, 0, 1)):
        page = await ask(machine, every_row(table, rows_max=rows_max, bytes_max=bytes_max))
        assert isinstance(page, Rows)
        assert (len(page.rows), page.is_last) == (expected, False)
    page = await ask(machine, every_row(table, rows_max=10))
    assert isinstance(page, Rows)
    assert (len(page.rows), page.is_last) == (10, True)


@simulated()
async def test_a_page_holds_tombstones_and_nothing_of_other_tables(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    other = Table(TableId(table.id + 1), "next", "sim", 3, b"", "next")
    machine.engine.commit(Batch().put(key_of(other, b"k"), encode_row(key_of(other, b"k"), row())))
    plant(machine, table, b"k", Row((), Timestamp(EPOCH_US, 1)))
    page = await ask(machine, every_row(table))
    assert isinstance(page, Rows)
    assert [key for key, _ in page.rows] == [key_of(table, b"k")]
    greedy = ReadRange(0, table.id, keys.token_range(table.id, *_WHOLE_RING)[0], b"\xff", False, 100, 10**6)
    page = await ask(machine, greedy)
    assert isinstance(page, Rows)
    assert [key for key, _ in page.rows] == [key_of(table, b"k")]


@simulated()
async def test_an_apply_under_way_when_its_table_is_dropped_leaves_no_row(world: World) -> None:
    for _ in range(10):
        table = await world_table(world, (await started_machines(world))[0])
        writes = [asyncio.ensure_future(put(world.machines[i % 3], table, b"k%d" % i, b"v")) for i in range(9)]
        await asyncio.sleep(world.rng.uniform(0.0, 0.01))
        machine = world.rng.choice(world.machines)
        await machine.spawn(member(machine).catalog.drop_table(table, deadline=now_s() + 10.0))
        await asyncio.wait(writes)
        await until(lambda table=table: not any(member(m).topology.table(table.id) for m in world.machines))  # type: ignore[misc]
        await settled(world)
        for write in writes:
            write.exception()
        assert [list(m.engine.scan(*keys.table_range(table.id))) for m in world.machines] == [[]] * 3


async def started_machines(world: World) -> list[Machine]:
    await world.start()
    return world.machines
