"""A replica of leader-based tables: what it keeps, what it refuses, and when it says so."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import TableId
from merganser.model.leader_messages import (
    NOT_LEADING,
    STALE_GENERATION,
    Copies,
    Drop,
    Kept,
    Replicate,
    Touch,
    TouchRange,
    TouchTree,
)
from merganser.model.leadership import Epoch
from merganser.model.messages import Done, Found, Nodes, Reply, Request, Rows
from merganser.model.register import EMPTY, UNWRITTEN, Content, Register, Version
from merganser.net.transport import refusal_code
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from service.led import group_of, register_at, started_led
from service.plays import damage, key_of, member, now_s, simulated, started, until

K = b"k"
LATE = 1000
"""Numbers of epochs that nobody is elected in while these tests run."""


def epoch(number: int) -> Epoch:
    return Epoch(LATE + number, 1)


def register(number: int, sequence: int, value: bytes) -> Register:
    return Register(Version(*epoch(number), sequence), Content(value))


def replicate(table: Table, what: Register, *, number: int | None = None, name: bytes = K) -> Replicate:
    key = key_of(table, name)
    of = what.version.epoch if number is None else epoch(number)
    return Replicate(0, table.id, key, of, encode_register(key, what))


def drop(replica: Machine, table: Table, *names: bytes) -> Drop:
    """As the leader of the partition of the first would ask for it."""
    tombstones = tuple((key_of(table, name), Version(*epoch(1), 1)) for name in names)
    return Drop(0, table.id, group_of(replica, table, names[0]).partition, epoch(1), 1, tombstones)


async def ask(machine: Machine, request: Request) -> Reply:
    """Ask ``machine`` as its first peer would."""
    return await machine.spawn(member(machine).serve(member(machine).topology.map.nodes[0].id, request))


@simulated()
async def test_the_later_version_is_kept_in_whatever_order_they_come(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    versions = [register(1, sequence, b"%d" % sequence) for sequence in (2, 1, 3, 3, 2)]
    kept = []
    for version in versions:
        assert await ask(replica, replicate(table, version)) == Done()
        kept.append(register_at(replica, table, K).value)
    assert kept == [b"2", b"2", b"3", b"3", b"3"]


@simulated()
async def test_of_copies_that_come_together_each_is_kept_or_refused_by_itself(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    await ask(replica, replicate(table, register(2, 1, b"newer")))
    late = replicate(table, register(1, 1, b"late"), name=K)
    torn = replicate(table, register(1, 1, b"v"), name=b"torn")
    torn = msgspec.structs.replace(torn, register=torn.register[:-1] + b"w")
    elsewhere = replicate(table, register(1, 1, b"v"), name=b"elsewhere")
    elsewhere = msgspec.structs.replace(elsewhere, table=TableId(99))
    first, last = (replicate(table, register(3, sequence, b"%d" % sequence), name=K) for sequence in (1, 2))
    kept = await ask(replica, Copies((late, torn, elsewhere, first, last)))
    assert isinstance(kept, Kept)
    assert [(place, refused.code) for place, refused in kept.refused] == [
        (0, NOT_LEADING),
        (1, refusal_code(CorruptionError())),
        (2, NO_SUCH_TABLE),
    ]
    assert kept.refused[0][1].epoch == epoch(2)
    assert register_at(replica, table, K).value == b"2"
    assert register_at(replica, table, b"torn") == UNWRITTEN


@simulated()
async def test_copies_that_come_together_are_acked_once_all_of_them_are_durable(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    names = [b"%d" % number for number in range(3)]
    for name in names:
        await ask(replica, Touch(0, table.id, key_of(table, name), epoch(1)))
    replica.disk.slow((0.5, 0.5))
    began = now_s()
    copies = tuple(replicate(table, register(1, 1, name), name=name) for name in names)
    assert await ask(replica, Copies(copies)) == Kept(())
    assert now_s() - began >= 0.5
    replica.crash()
    replica.start()
    assert [register_at(replica, table, name).value for name in names] == names


@simulated()
async def test_epochs_outrank_sequences(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    await ask(replica, replicate(table, register(1, 9, b"old"), number=2))
    await ask(replica, replicate(table, register(2, 1, b"new")))
    assert register_at(replica, table, K).value == b"new"
    await ask(replica, replicate(table, register(1, 9, b"old"), number=2))
    assert register_at(replica, table, K).value == b"new"


@simulated()
async def test_each_request_promises_its_epoch_and_earlier_ones_are_refused_from_then_on(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    key = key_of(table, K)
    low, high = key, keys.after(key)
    requests: tuple[Request, ...] = (
        replicate(table, register(1, 1, b"v")),
        Touch(0, table.id, key, epoch(2)),
        TouchRange(0, table.id, low, high, epoch(3), 10, 1000),
    )
    for number, request in enumerate(requests, start=1):
        await ask(replica, request)
        assert member(replica).leader_tables.promises.of(group_of(replica, table, K)) == epoch(number)
    for late in (
        replicate(table, register(2, 1, b"w")),
        Touch(0, table.id, key, epoch(2)),
        TouchRange(0, table.id, low, high, epoch(2), 10, 1000),
    ):
        with pytest.raises(RefusedError) as refused:
            await ask(replica, late)
        assert (refused.value.code, refused.value.epoch) == (NOT_LEADING, epoch(3))
    assert register_at(replica, table, K).value == b"v"


@simulated()
async def test_nothing_is_acked_and_nothing_told_that_is_not_durable(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    await ask(replica, Touch(0, table.id, key_of(table, K), epoch(1)))
    replica.disk.slow((0.5, 0.5))
    began = now_s()
    keeping = asyncio.create_task(ask(replica, replicate(table, register(1, 1, b"v"))))
    await until(lambda: register_at(replica, table, K).value == b"v")
    key, partition = key_of(table, K), group_of(replica, table, K).partition
    low, high = keys.token_range(table.id, *member(replica).topology.ring.token_range(partition))
    told_s: dict[type[Reply], float] = {}

    async def told(request: Request) -> Reply:
        reply = await ask(replica, request)
        told_s[type(reply)] = now_s() - began
        return reply

    found, rows, nodes, _ = await asyncio.gather(
        told(Touch(0, table.id, key, epoch(1))),
        told(TouchRange(0, table.id, low, high, epoch(1), 10, 1000)),
        told(TouchTree(0, table.id, partition, epoch(1))),
        told(drop(replica, table, K)),
    )
    assert min(told_s.values()) > 0.4
    assert isinstance(found, Found)
    assert decode_register(key, found.row).value == b"v"
    assert isinstance(rows, Rows)
    assert [row_key for row_key, _ in rows.rows] == [key]
    assert isinstance(nodes, Nodes)
    assert nodes.hashes
    assert await keeping == Done()


@simulated()
async def test_a_damaged_register_is_refused_to_leaders_and_noted(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    key = key_of(table, K)
    await ask(replica, replicate(table, register(1, 1, b"v")))
    spoiled = damage(replica, table, K)
    for request in (
        Touch(0, table.id, key, epoch(1)),
        TouchRange(0, table.id, key, keys.after(key), epoch(1), 10, 1000),
        replicate(table, register(1, 2, b"w")),
    ):
        with pytest.raises(CorruptionError):
            await ask(replica, request)
        member(replica).damage.forget(member(replica).damage.wounds[key])
    assert replica.engine.get(key) == spoiled


@simulated()
async def test_a_damaged_register_is_not_dropped_but_noted(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    await ask(replica, replicate(table, register(1, 1, b"v")))
    spoiled = damage(replica, table, K)
    assert await ask(replica, drop(replica, table, K)) == Done()
    assert replica.engine.get(key_of(table, K)) == spoiled
    assert key_of(table, K) in member(replica).damage.wounds


@simulated()
async def test_tombstones_of_another_partition_than_the_one_named_are_not_dropped(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    here = group_of(replica, table, K)
    other = next(name for name in (b"%d" % n for n in range(100)) if group_of(replica, table, name) != here)
    for name in (K, other):
        await ask(replica, replicate(table, Register(Version(*epoch(1), 1), EMPTY), name=name))
    with pytest.raises(RefusedError) as refused:
        await ask(replica, drop(replica, table, K, other))
    assert refused.value.code == NOT_A_REPLICA
    assert all(replica.engine.get(key_of(table, name)) is not None for name in (K, other))
    await ask(replica, drop(replica, table, K))
    assert replica.engine.get(key_of(table, K)) is None


@simulated()
async def test_a_page_ends_before_a_damaged_register(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    ring = member(replica).topology.ring
    found = [b"%d" % n for n in range(200)]
    together = [name for name in found if group_of(replica, table, name).partition == 3][:3]
    names = sorted(together, key=lambda name: key_of(table, name))
    for name in names:
        await ask(replica, replicate(table, register(1, 1, name), name=name))
    damage(replica, table, names[2])
    low, high = keys.token_range(table.id, *ring.token_range(group_of(replica, table, names[0]).partition))
    page = await ask(replica, TouchRange(0, table.id, low, high, epoch(1), 10, 100_000))
    assert isinstance(page, Rows)
    assert [key for key, _ in page.rows] == [key_of(table, name) for name in names[:2]]
    assert not page.is_last


@simulated()
async def test_what_was_damaged_on_its_way_is_not_kept(world: World) -> None:
    table = await started_led(world)
    whole = replicate(table, register(1, 1, b"v"))
    torn = Replicate(0, table.id, whole.key, whole.epoch, whole.register[:-1] + b"w")
    with pytest.raises(CorruptionError):
        await ask(world.machines[0], torn)
    assert register_at(world.machines[0], table, K) == UNWRITTEN


@simulated()
async def test_what_was_to_be_dropped_in_an_earlier_generation_is_not(world: World) -> None:
    table = await started_led(world)
    replica = world.machines[0]
    await ask(replica, replicate(table, Register(Version(*epoch(1), 1), EMPTY)))
    wanted = drop(replica, table, K)
    await ask(replica, msgspec.structs.replace(wanted, generation=2, tombstones=()))
    with pytest.raises(RefusedError) as refused:
        await ask(replica, wanted)
    assert refused.value.code == STALE_GENERATION
    assert replica.engine.get(key_of(table, K)) is not None


@simulated(machines=5)
async def test_keys_of_others_and_tables_without_leaders_are_refused(world: World) -> None:
    leaderless = await started(world)
    with pytest.raises(RefusedError) as refused:
        await ask(world.machines[0], replicate(leaderless, register(1, 1, b"v")))
    assert refused.value.code == NO_SUCH_TABLE


@pytest.mark.parametrize("kind", [Touch, TouchRange, TouchTree, Drop])
def test_a_request_of_a_newer_map_makes_the_replica_catch_up_first(kind: type[Request]) -> None:
    @simulated()
    async def script(world: World) -> None:
        await started(world)
        late, *informed = world.machines
        for machine in informed:
            world.network.cut(machine.address, late.address)
        catalog = member(informed[0]).catalog
        making = catalog.create_table(
            wire="sim", name="led", n=3, definition=b"", unique_id="led", deadline=now_s() + 60.0, replication="leader"
        )
        table = await informed[0].spawn(making)
        world.network.heal()
        key, group = key_of(table, K), group_of(informed[0], table, K)
        assert member(late).topology.table(table.id) is None
        map_epoch = member(informed[0]).topology.map.epoch
        requests: dict[type[Request], Request] = {
            Touch: Touch(map_epoch, table.id, key, epoch(1)),
            TouchRange: TouchRange(map_epoch, table.id, key, keys.after(key), epoch(1), 10, 1000),
            TouchTree: TouchTree(map_epoch, table.id, group.partition, epoch(1)),
            Drop: Drop(map_epoch, table.id, group.partition, epoch(1), 1, ()),
        }
        await late.spawn(member(late).serve(informed[0].node, requests[kind]))

    script()


@simulated(machines=5)
async def test_a_node_that_is_no_replica_says_so(world: World) -> None:
    table = await started_led(world)
    replicas = member(world.machines[0]).topology.replicas(table, key_of(table, K))
    outsider = next(machine for machine in world.machines if machine.node not in replicas)
    with pytest.raises(RefusedError) as refused:
        await ask(outsider, replicate(table, register(1, 1, b"v")))
    assert refused.value.code == NOT_A_REPLICA
