"""Tombstones and expiry on a whole cluster: what is dropped, when, and that nothing deleted comes back."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import horizon
from merganser.model.errors import RefusedError, UnavailableError
from merganser.model.messages import Apply, Complete, Found, Merged, Read, Reply, Seal
from merganser.model.row import CellWrite, Mutation
from merganser.service.horizons import NOT_SEALED, NOT_WHOLE
from merganser.service.purger import MARGIN_US, SEAL_AHEAD
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import encode_row
from service.plays import (
    ALL,
    ONE,
    QUORUM,
    get,
    held,
    holders,
    key_of,
    member,
    now_s,
    page,
    put,
    settled,
    simulated,
    started,
    until,
)
from service.purges import (
    PAST_MARGIN_S,
    ask,
    bury,
    epoch,
    old_value,
    partition_of,
    past_the_margin,
    purge_round,
    purged,
    repair,
    standing,
    up_again,
)

# What is dropped, and when


@simulated()
async def test_a_deleted_row_is_gone_from_every_disk_after_a_round(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    for machine in world.machines:
        assert await get(machine, table, b"k") is None


@simulated()
async def test_a_tombstone_younger_than_the_margin_stays(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    await past_the_margin()
    await put(world.machines[0], table, b"k", None, level=ALL)
    assert (await purge_round(world.machines[0], table, b"k")).problem is None
    await purged(world)
    assert len(holders(world, table, b"k")) == 3


@simulated()
async def test_expired_cells_and_rows_are_gone_on_all_replicas_and_what_lives_is_equal(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    soon_s, late_s = (EPOCH_US // 1_000_000 + int(now_s()) + seconds for seconds in (5, 100_000))
    mutations = {
        b"cell": Mutation((CellWrite(b"a", b"1"), CellWrite(b"b", b"2", soon_s))),
        b"row": Mutation((CellWrite(b"a", b"1"), CellWrite(b"b", b"2", late_s)), expires_at_s=soon_s),
        b"late": Mutation((CellWrite(b"a", b"1"),), expires_at_s=late_s),
    }
    for name, mutation in mutations.items():
        coordinator = member(machine).coordinator
        write = coordinator.write(table, key_of(table, name), mutation, level=ALL, deadline=now_s() + 2)
        await machine.spawn(write)
    await past_the_margin()
    await asyncio.sleep(10.0)
    for name in mutations:
        assert (await purge_round(machine, table, name)).problem is None
    await purged(world)
    assert holders(world, table, b"row") == []
    for name, cells in ((b"cell", [b"a"]), (b"late", [b"a"])):
        assert len({m.engine.get(key_of(table, name)) for m in world.machines}) == 1
        row = held(machine, table, name)
        assert row is not None
        assert [cell.name for cell in row.cells] == cells


@simulated()
async def test_a_row_that_expires_as_a_whole_hides_what_was_written_before_it(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"k", b"old")
    soon_s = EPOCH_US // 1_000_000 + int(now_s()) + 5
    mutation = Mutation((CellWrite(b"other", b"1"),), expires_at_s=soon_s)
    coordinator = member(machine).coordinator
    await machine.spawn(coordinator.write(table, key_of(table, b"k"), mutation, level=ALL, deadline=now_s() + 2))
    await asyncio.sleep(10.0)
    assert (await page(machine, table, *keys.table_range(table.id))).rows == []


@simulated()
async def test_a_clock_that_is_ahead_purges_nothing_early(world: World) -> None:
    table = await started(world)
    expires_s = EPOCH_US // 1_000_000 + 1_000
    await put(world.machines[0], table, b"k", b"v", level=ALL, expires_at_s=expires_s)
    await past_the_margin()
    world.machines[0].skew_us = 10_000 * 1_000_000
    partition = partition_of(world.machines[0], table, b"k")
    seal = Seal(epoch(world.machines[0]), table.id, partition, world.machines[0].wall_us() - MARGIN_US)
    with pytest.raises(RefusedError) as refused:
        await ask(world.machines[1], seal)
    assert refused.value.code == SEAL_AHEAD
    assert (await purge_round(world.machines[0], table, b"k", timeout_s=5.0)).problem is not None
    assert len(holders(world, table, b"k")) == 3
    assert await get(world.machines[1], table, b"k") == b"v"


# The classic ways back


@simulated()
async def test_nothing_is_purged_while_a_node_is_down_and_nothing_rises_when_it_is_back(world: World) -> None:
    table = await started(world)
    first, second, away = world.machines
    await put(first, table, b"k", b"v", level=ALL)
    away.crash()
    await put(first, table, b"k", None)
    for _ in range(3):
        for machine in world.machines:
            machine.skew_us += 30 * 86_400 * 1_000_000  # longer than any grace
        await asyncio.sleep(5.0)
        assert (await purge_round(first, table, b"k", timeout_s=3.0)).problem is not None
    assert {m.address for m in (first, second)} <= set(holders(world, table, b"k"))
    await up_again(world)
    for machine in world.machines:
        assert await get(machine, table, b"k") is None
    assert (await purge_round(second, table, b"k")).problem is None
    await purged(world)
    await settled(world)
    assert holders(world, table, b"k") == []
    assert await get(away, table, b"k", level=ONE) is None


async def put_old_disk_back(world: World, machine: Machine, image: dict[bytes, bytes]) -> None:
    machine.crash()
    machine.restore(image)
    await up_again(world)


@simulated()
async def test_an_old_disk_raises_nothing_and_is_given_what_it_lacks(world: World) -> None:
    table = await started(world)
    first, second, old = world.machines
    await put(first, table, b"k", b"v", level=ALL)
    image = old.image()
    await put(first, table, b"k", None, level=ALL)
    same_partition = next(
        name
        for number in range(1_000)
        if partition_of(first, table, name := b"n%d" % number) == partition_of(first, table, b"k")
    )
    await put(first, table, same_partition, b"live", level=ALL)
    await past_the_margin()
    assert (await purge_round(first, table, b"k")).problem is None
    await purged(world)
    await put_old_disk_back(world, old, image)
    assert holders(world, table, b"k") == [old.address]
    for reader in (first, second, old):
        for level in (QUORUM, ALL):
            assert await get(reader, table, b"k", level=level) is None
        assert (await page(reader, table, *keys.table_range(table.id))).rows != []
        listed = [key for key, _ in (await page(reader, table, *keys.table_range(table.id))).rows]
        assert key_of(table, b"k") not in listed
    await settled(world)
    assert holders(world, table, b"k") == [old.address], "no read has spread it"
    await past_the_margin()
    assert (await purge_round(old, table, b"k")).problem is None
    await purged(world)
    assert holders(world, table, b"k") == []
    assert await get(old, table, same_partition, level=ONE) == b"live"
    assert len({standing(m, table, b"k") for m in world.machines}) == 1


@simulated()
async def test_a_hint_or_repair_from_before_the_horizon_that_comes_late_is_ignored(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    for machine in world.machines:
        late = old_value(machine, seconds_ago=PAST_MARGIN_S + 5)
        answer = await ask(machine, repair(table, b"k", late))
        assert answer == Merged(horizon.right_after(standing(machine, table, b"k").sealed_us))
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_repair_that_a_replica_as_far_vouches_for_is_taken(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    machine = world.machines[0]
    row = old_value(machine, seconds_ago=PAST_MARGIN_S + 5)
    vouched_us = standing(machine, table, b"k").horizon_us
    assert await ask(machine, repair(table, b"k", row, vouched_us=vouched_us)) == Merged()
    assert held(machine, table, b"k") == row


@simulated()
async def test_a_clients_write_from_before_the_seal_is_sent_again_and_seen(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    slow = world.machines[1]
    slow.crash()
    slow.skew_us = -int((PAST_MARGIN_S + 30) * 1e6)
    slow.clock_skew_max_s = 1e6
    # its clock begins at the ceiling of its last life, which is from before the seal, too
    image = {key: stored for key, stored in slow.image().items() if not key.endswith(b"clock_ceiling")}
    slow.restore(image)
    await up_again(world)
    written = await put(slow, table, b"k", b"again")
    assert written.micros > standing(world.machines[0], table, b"k").sealed_us
    for machine in world.machines:
        assert await get(machine, table, b"k") == b"again"


@simulated()
async def test_a_delayed_write_from_before_the_seal_is_refused_by_every_replica(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    for machine in world.machines:
        key, row = key_of(table, b"k"), old_value(machine, seconds_ago=PAST_MARGIN_S + 5)
        answer = await ask(machine, Apply(0, table.id, key, encode_row(key, row)))
        assert answer == Merged(horizon.right_after(standing(machine, table, b"k").sealed_us))
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_replica_that_missed_the_end_of_a_round_still_takes_late_repairs_and_none_is_seen(world: World) -> None:
    table = await started(world)
    first, second, missed = world.machines
    await put(first, table, b"k", b"v", level=ALL)
    await put(first, table, b"k", None, level=ALL)
    await past_the_margin()
    serve = missed.member._serve  # type: ignore[union-attr]

    async def refuse(*_: object) -> Reply:
        raise RefusedError(NOT_SEALED, "lost")

    complete, serve[Complete] = serve[Complete], refuse
    assert (await purge_round(first, table, b"k")).problem is not None
    serve[Complete] = complete
    await purged(world)
    assert holders(world, table, b"k") == [missed.address], "its tombstone stays"
    for machine in (missed, second):
        await ask(machine, repair(table, b"k", old_value(machine, seconds_ago=PAST_MARGIN_S + 5)))
    for reader in world.machines:
        assert await get(reader, table, b"k") is None
    await asyncio.sleep(2.0)
    assert (await purge_round(second, table, b"k")).problem is None
    await purged(world)
    assert holders(world, table, b"k") == []
    assert len({standing(m, table, b"k").horizon_us for m in world.machines}) == 1


# Rows that vanish


@simulated()
async def test_a_replica_that_lost_rows_answers_no_reads_until_it_has_compared_with_all_others(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    await put(world.machines[0], table, b"k", b"live", level=ALL)
    lost, *others = world.machines
    batch = Batch()
    batch.operations.append((key_of(table, b"k"), None))
    lost.engine.commit(batch)
    others[0].crash()
    partition = partition_of(lost, table, b"k")
    await lost.spawn(member(lost).horizons.doubt(table.id, partition))
    with pytest.raises(RefusedError) as refused:
        await ask(lost, Read(0, table.id, key_of(table, b"k")))
    assert refused.value.code == NOT_WHOLE
    with pytest.raises(UnavailableError):
        await get(others[1], table, b"k")
    await up_again(world)
    await until(lambda: standing(lost, table, b"k").is_whole)
    assert isinstance(await ask(lost, Read(0, table.id, key_of(table, b"k"))), Found)
    assert await get(lost, table, b"k", level=ONE) == b"live"
    assert standing(lost, table, b"k").horizon_us == standing(others[1], table, b"k").horizon_us


@simulated()
async def test_a_damaged_row_is_left_alone_by_a_purge(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"k", None, level=ALL)
    await past_the_margin()
    key = key_of(table, b"k")
    stored = machine.engine.get(key)
    assert stored is not None
    damaged = stored[:-1] + bytes((stored[-1] ^ 1,))
    partition = partition_of(machine, table, b"k")
    await machine.spawn(member(machine).horizons.seal(table.id, partition, machine.wall_us() - MARGIN_US))
    machine.engine.commit(Batch().put(key, damaged))
    vow = member(machine).horizons.vow(table.id, partition)
    horizon_us = standing(machine, table, b"k").sealed_us
    await machine.spawn(member(machine).horizons.complete(table.id, partition, horizon_us, vow=vow))
    await purged(world)
    assert machine.engine.get(key) == damaged
