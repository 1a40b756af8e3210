"""What the checkpoints of several nodes hold together: the races that take away what was acknowledged, one by one.

Each play takes one checkpoint before and the others after; with a standstill what was acknowledged is in the merge, and
without one it is not, which shows that the play would find its absence.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from merganser.core import snapshots
from merganser.model.cluster import Table
from merganser.model.consistency import WriteQuorums
from merganser.model.errors import CorruptionError, MerganserError
from merganser.model.ids import NodeId, PartitionId, Token
from merganser.model.transaction import Forget
from merganser.service import transaction_steps
from merganser.service.copies import Copies, Counted
from merganser.service.standstill import Standstill
from merganser.service.steps import WIRES
from merganser.service.transactions import TransactItem
from merganser.sim.machine import Machine
from merganser.sim.steps import Put, payload_of
from merganser.sim.world import World
from merganser.storage import keys
from service.plays import (
    ALL,
    damage,
    key_of,
    made_with_leaders,
    member,
    now_s,
    play,
    put,
    replicas_of,
    settled,
    started,
    until,
)
from sim.snapshot_hunt import Image, begin_standstill, contents_of

PARTITIONS = 4
ACTS = pytest.mark.parametrize("stands_still", [True, False])


@pytest.fixture(autouse=True)
def _without_standstill(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and not callspec.params.get("stands_still", True):
        monkeypatch.setattr(Standstill, "is_on", False)


async def checkpoint(machine: Machine) -> tuple[NodeId, Image]:
    await machine.spawn(machine.engine.durable())
    return machine.node, Image(machine.image())


async def snapshot(
    world: World, first: Machine, table: Table, meanwhile: Callable[[], Awaitable[None]]
) -> dict[bytes, bytes | None]:
    """Take the checkpoint of ``first``, let ``meanwhile`` happen, take the others; return what they hold of a table."""
    for machine in world.machines:
        begin_standstill(machine, "token")
    images = dict([await checkpoint(first)])
    await meanwhile()
    for machine in world.machines:
        assert member(machine).standstill.is_of("token")
        if machine is not first:
            images.update([await checkpoint(machine)])
        member(machine).standstill.end("token")
    return contents_of(member(first).topology.map, images, PARTITIONS)[table.name]


async def led_write(machine: Machine, table: Table, value: bytes | None) -> None:
    based = member(machine).leader_tables.leader_based
    step = payload_of(Put(value))
    await machine.spawn(based.change(table, key_of(table, b"k"), WIRES, step, deadline=now_s() + 2.0))


@pytest.mark.parametrize("has_horizons", [True, False])
def test_what_was_deleted_does_not_come_back_when_its_tombstone_is_purged_between_checkpoints(
    has_horizons: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_horizons:
        monkeypatch.setattr(Copies, "_horizon_us", lambda *_: 0)

    async def script(world: World) -> None:
        for machine in world.machines:
            machine.purge_margin_us = 100_000
        table = await started(world)
        behind, asked, _ = world.machines
        await put(asked, table, b"k", b"v", level=ALL)
        await settled(world)
        world.cut_off(behind)
        await put(asked, table, b"k", None)  # acknowledged by the two others
        images = dict([await checkpoint(behind)])
        world.network.heal()
        place = member(asked).topology.ring.partition_of(_token(table))
        while any(machine.engine.get(key_of(table, b"k")) for machine in world.machines):
            await asyncio.sleep(0.3)
            await asked.spawn(member(asked).purger.round(table, place, deadline=now_s() + 0.5))
        images.update([await checkpoint(machine) for machine in world.machines if machine is not behind])
        found = contents_of(member(asked).topology.map, images, PARTITIONS)[table.name]
        assert found.get(b"k") == (None if has_horizons else b"v")

    play(script, partitions=PARTITIONS)


@ACTS
def test_what_was_deleted_does_not_come_back_when_its_register_is_dropped_between_checkpoints(
    stands_still: bool,
) -> None:
    async def script(world: World) -> None:
        for machine in world.machines:
            machine.repair_interval_s = 0.2
        await started(world)
        table = await made_with_leaders(world)
        behind, asked, other = world.machines
        await led_write(asked, table, b"v")
        await settled(world)
        world.cut_off(behind)
        await until_written(asked, table)

        async def dropped() -> None:
            world.network.heal()
            try:
                for machine in (asked, other):
                    await until(lambda: machine.engine.get(key_of(table, b"k")) is None, timeout_s=9.0)  # noqa: B023
            except TimeoutError:
                assert stands_still, "nothing is in the way of dropping it"

        found = await snapshot(world, behind, table, dropped)
        assert found.get(b"k") == (None if stands_still else b"v")

    play(script, partitions=PARTITIONS)


async def until_written(machine: Machine, table: Table) -> None:
    """Delete, with as many tries as an election takes."""
    for _ in range(20):
        try:
            await led_write(machine, table, None)
        except MerganserError:
            continue
        return
    raise AssertionError("no leader in time")


@ACTS
def test_what_only_a_hint_holds_is_there_though_it_is_delivered_between_checkpoints(stands_still: bool) -> None:
    async def script(world: World) -> None:
        table = await started(world)
        replicas = replicas_of(world, table, b"k")
        (keeper,) = [machine for machine in world.machines if machine not in replicas]
        world.cut_off(keeper)
        await put(keeper, table, b"k", b"v", level=WriteQuorums(w=1))  # keeps hints for all, and acknowledges

        async def delivered() -> None:
            world.network.heal()
            await until(lambda: replicas[0].engine.get(key_of(table, b"k")) is not None)
            try:
                await until(lambda: member(keeper).handoff.pending() == 0, timeout_s=3.0)
            except TimeoutError:
                assert stands_still, "nothing is in the way of giving up hints"

        for machine in world.machines:
            begin_standstill(machine, "token")
        images = dict([await checkpoint(machine) for machine in replicas])
        await delivered()
        images.update([await checkpoint(keeper)])
        found = contents_of(member(keeper).topology.map, images, PARTITIONS)[table.name]
        assert found.get(b"k") == (b"v" if stands_still else None)

    play(script, machines=4, partitions=PARTITIONS)


@pytest.mark.parametrize("waits", [True, False])
def test_a_transaction_that_commits_between_checkpoints_is_not_in_half_of_them(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not waits:
        monkeypatch.setattr(transaction_steps, "Commit", Forget)
    torn: list[tuple[bytes | None, bytes | None]] = []

    async def script(world: World) -> None:
        await started(world)
        table = await made_with_leaders(world)
        names = [b"%d" % number for number in range(30)]
        one, other = next(pair for pair in itertools.combinations(names, 2) if not _shared(world, table, *pair))
        await world.machines[0].spawn(_both(world, table, one, other, b"0"))
        for round_number in range(4):  # the record lies anywhere, and counts where it was copied late
            value = b"%d" % (round_number + 1)
            await asyncio.sleep(3.0)  # the one before is applied
            for machine in world.machines:
                begin_standstill(machine, "token")
            early = replicas_of(world, table, other)
            images = dict([await checkpoint(machine) for machine in early])
            work = world.machines[0].spawn(_both(world, table, one, other, value))
            await asyncio.wait({work}, timeout=1.0)
            images.update([await checkpoint(machine) for machine in world.machines if machine not in early])
            for machine in world.machines:
                member(machine).standstill.end("token")
            found = contents_of(member(world.machines[0]).topology.map, images, 8)[table.name]
            torn.extend({(found.get(one), found.get(other))} if found.get(one) != found.get(other) else ())
            await asyncio.wait({work})

    play(script, machines=6, partitions=8)
    assert bool(torn) is not waits


def _shared(world: World, table: Table, one: bytes, other: bytes) -> set[str]:
    """Return who holds both."""
    holding = [{machine.address for machine in replicas_of(world, table, name)} for name in (one, other)]
    return holding[0] & holding[1]


async def _both(world: World, table: Table, one: bytes, other: bytes, value: bytes) -> None:
    items = [TransactItem(table, key_of(table, name), payload_of(Put(value))) for name in (one, other)]
    try:
        await member(world.machines[0]).leader_tables.transactions.write(items, deadline=now_s() + 5.0)
    except MerganserError:
        return


def test_a_damaged_copy_says_nothing_and_two_of_three_are_too_few_to_tell() -> None:
    async def script(world: World) -> None:
        table = await started(world)
        await put(world.machines[0], table, b"k", b"v", level=ALL)
        await settled(world)
        damage(world.machines[0], table, b"k")
        images = dict([await checkpoint(machine) for machine in world.machines])
        current, counted = member(world.machines[0]).topology.map, Counted()
        partition = member(world.machines[0]).topology.ring.partition_of(_token(table))
        ((key, _),) = Copies(current, images, now_s=0).of(table, partition, counted)
        assert key == key_of(table, b"k")
        assert (counted.rows, counted.copies, counted.damaged) == (1, 3, 1)
        damage(world.machines[1], table, b"k")
        images.update([await checkpoint(world.machines[1])])
        with pytest.raises(CorruptionError, match="1 of 3 copies of key"):
            list(Copies(current, images, now_s=0).of(table, partition, Counted()))

    play(script, partitions=PARTITIONS)


def test_a_minority_of_the_replicas_cannot_be_read() -> None:
    async def script(world: World) -> None:
        table = await started(world)
        images = dict([await checkpoint(world.machines[0])])
        current = member(world.machines[0]).topology.map
        assert snapshots.short_of_replicas(current, images) == [(table, PARTITIONS)]
        with pytest.raises(CorruptionError, match="1 of 3 copies of the partition"):
            list(Copies(current, images, now_s=0).of(table, PartitionId(0), Counted()))

    play(script, partitions=PARTITIONS)


def _token(table: Table) -> Token:
    return keys.token_in(key_of(table, b"k"))
