"""Rounds of purges on a whole cluster: what they wait for, survive and refuse."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import horizon
from merganser.model.consistency import Consistency
from merganser.model.errors import RefusedError
from merganser.model.messages import Complete, Hint, Merged, Seal, Sealed
from merganser.service import horizons as horizons_module
from merganser.service.horizons import NOT_SEALED
from merganser.service.partition_gate import STALE_EPOCH
from merganser.service.purger import MARGIN_US
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import encode_row
from service.plays import ALL, ONE, get, holders, key_of, member, now_s, put, replicas_of, simulated, started, until
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
    standing,
    up_again,
)


@simulated()
async def test_a_round_waits_for_hints_and_gives_up_when_they_stay(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", None, level=ALL)
    await past_the_margin()
    keeper = member(world.machines[2]).purger
    keeper._has_hints = lambda *_, **__: True
    assert (await purge_round(world.machines[0], table, b"k", timeout_s=5.0)).problem == "it took too long"
    assert standing(world.machines[0], table, b"k").horizon_us == 0
    began = asyncio.ensure_future(purge_round(world.machines[0], table, b"k"))
    await asyncio.sleep(5.0)
    assert not began.done()
    keeper._has_hints = lambda *_, **__: False
    assert (await began).problem is None


@simulated(machines=4)
async def test_a_hint_from_before_the_seal_is_delivered_before_the_round_completes(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (keeper,) = [machine for machine in world.machines if machine not in replicas]
    for replica in replicas:
        replica.crash()
    written = await put(keeper, table, b"k", b"v", level=Consistency.ANY)
    await asyncio.sleep(1.0)
    await up_again(world)
    await past_the_margin()
    assert (await purge_round(replicas[0], table, b"k")).problem is None
    assert standing(replicas[0], table, b"k").horizon_us > written.micros
    assert member(keeper).hints.targets() == []
    for machine in world.machines:
        assert await get(machine, table, b"k") == b"v"


@simulated(machines=4)
async def test_a_hint_from_before_the_seal_is_not_taken_after_it(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k", by=replicas_of(world, table, b"k")[0])
    (keeper,) = [machine for machine in world.machines if machine not in replicas_of(world, table, b"k")]
    row, key = old_value(keeper, seconds_ago=PAST_MARGIN_S + 5), key_of(table, b"k")
    sealed_us = standing(keeper, table, b"k").sealed_us
    answer = await ask(keeper, Hint(0, table.id, key, encode_row(key, row), 1))
    assert answer == Merged(horizon.right_after(sealed_us))
    assert member(keeper).hints.targets() == []


@simulated(machines=5)
async def test_a_round_needs_nodes_that_are_no_replicas_because_they_may_hold_hints(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    await put(replicas[0], table, b"k", None, level=ALL)
    await past_the_margin()
    outsider = next(machine for machine in world.machines if machine not in replicas)
    outsider.crash()
    assert (await purge_round(replicas[0], table, b"k", timeout_s=5.0)).problem is not None
    await up_again(world)
    assert (await purge_round(replicas[0], table, b"k")).problem is None
    assert standing(outsider, table, b"k").sealed_us > 0
    with pytest.raises(RefusedError, match="holds no replica"):
        await purge_round(outsider, table, b"k")


@simulated()
async def test_rounds_of_several_leaders_at_once_do_no_harm(world: World) -> None:
    table = await started(world)
    for number in range(5):
        await put(world.machines[number % 3], table, b"k", b"%d" % number, level=ALL)
        await put(world.machines[number % 3], table, b"l", None, level=ALL)
        await past_the_margin()
        rounds = [purge_round(machine, table, name) for machine in world.machines for name in (b"k", b"l")]
        await asyncio.gather(*rounds)
        await purged(world)
        for machine in world.machines:
            assert await get(machine, table, b"k", level=ONE) == b"%d" % number
    assert holders(world, table, b"l") == []


@simulated()
async def test_a_standing_survives_a_power_cut_and_a_vow_does_not(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    machine = world.machines[1]
    before = standing(machine, table, b"k")
    partition = partition_of(machine, table, b"k")
    vow = member(machine).horizons.vow(table.id, partition)
    await past_the_margin()
    seal = Seal(epoch(machine), table.id, partition, machine.wall_us() - MARGIN_US)
    sealed = await ask(machine, seal)
    assert isinstance(sealed, Sealed)
    machine.crash()
    await up_again(world)
    assert standing(machine, table, b"k") == before.sealed(seal.horizon_us)
    assert member(machine).horizons.vow(table.id, partition) != vow
    with pytest.raises(RefusedError) as refused:
        await ask(machine, Complete(epoch(machine), table.id, partition, seal.horizon_us, sealed.vow))
    assert refused.value.code == NOT_SEALED


@simulated()
async def test_a_round_of_another_epoch_is_refused(world: World) -> None:
    table = await started(world)
    partition = partition_of(world.machines[0], table, b"k")
    for other in (epoch(world.machines[0]) - 1, epoch(world.machines[0]) + 1):
        with pytest.raises(RefusedError) as refused:
            await ask(world.machines[0], Seal(other, table.id, partition, 1))
        assert refused.value.code == STALE_EPOCH


@simulated()
async def test_the_standings_of_a_dropped_table_are_forgotten(world: World) -> None:
    table = await started(world)
    await bury(world, table, b"k")
    machine = world.machines[0]
    await machine.spawn(member(machine).catalog.drop_table(table, deadline=now_s() + 10.0))
    await until(lambda: not any(member(m).topology.table(table.id) for m in world.machines))
    prefix = horizons_module._PREFIX
    for other in world.machines:
        assert list(other.engine.scan(prefix, keys.prefix_end(prefix))) == []


@simulated()
async def test_rounds_run_by_themselves_once_per_interval(world: World) -> None:
    for machine in world.machines:
        machine.purge_interval_s = 600.0
    table = await started(world)
    for number in range(30):
        await put(world.machines[0], table, b"k%d" % number, None, level=ALL)
    await asyncio.sleep(3_000.0)
    assert all(holders(world, table, b"k%d" % number) == [] for number in range(30))
