"""What a member begins without a task: what it answers at once or promises, and what it leaves to `serve`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from merganser.core.admission import AdmissionLimits
from merganser.model.cluster import Table
from merganser.model.errors import OverloadedError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.leader_messages import Change, Changed, Confirm, Led, ReadLed, Standing
from merganser.model.leadership import Epoch
from merganser.model.messages import Apply, Merged, Reply, Request
from merganser.model.register import Intent, Register
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.intents import NoTransactions
from merganser.service.steps import WIRES
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage.values import encode_row
from service.led import change, epoch_of, group_of, leader_of, payload_of, started_led, term_at, the_leader
from service.plays import CELL, key_of, made_with_leaders, member, simulated, started, until

NAME = b"k"
PEER = NodeId("a peer")


def begin(machine: Machine, request: Request) -> asyncio.Future[Reply] | Reply | None:
    return member(machine).begin(PEER, request)


def served(machine: Machine) -> int:
    load = member(machine).admission.load()
    return load.served + load.led


def apply_of(machine: Machine, table: Table, micros: int = 1, *, newer: int = 0) -> Apply:
    key = key_of(table, NAME)
    row = Row((Cell(CELL, Timestamp(EPOCH_US + micros, 1), b"v%d" % micros),))
    return Apply(member(machine).topology.map.epoch + newer, table.id, key, encode_row(key, row))


def change_of(machine: Machine, table: Table, value: bytes) -> Change:
    map_epoch = member(machine).topology.map.epoch
    request = value.ljust(16, b".")
    payload = payload_of("put", value)
    return Change(map_epoch, table.id, key_of(table, NAME), epoch_of(machine, table, NAME), request, WIRES, payload)


def read_of(machine: Machine, table: Table) -> ReadLed:
    map_epoch = member(machine).topology.map.epoch
    return ReadLed(map_epoch, table.id, key_of(table, NAME), epoch_of(machine, table, NAME))


@simulated()
async def test_a_row_is_merged_at_once_and_acked_when_it_is_durable(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    request = apply_of(machine, table)
    acked = begin(machine, request)
    assert isinstance(acked, asyncio.Future)
    assert member(machine).engine.get(request.key) == request.row
    assert not member(machine).engine.is_durable(request.key)
    assert served(machine) == 1
    assert await acked == Merged()
    assert member(machine).engine.is_durable(request.key)
    assert begin(machine, request) == Merged()  # it is durable by now
    await asyncio.sleep(0)
    assert served(machine) == 0


@simulated()
async def test_what_names_a_newer_map_or_no_such_table_is_not_begun(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    assert begin(machine, apply_of(machine, table, newer=1)) is None
    led = await made_with_leaders(world)
    with pytest.raises(RefusedError):
        begin(machine, apply_of(machine, led))
    assert served(machine) == 0


@simulated()
async def test_who_has_too_much_to_do_begins_nothing(world: World) -> None:
    machine = world.machines[0]
    machine.limits = AdmissionLimits(served_max=5)
    table = await started(world)
    taken = [begin(machine, apply_of(machine, table, number)) for number in range(5)]
    with pytest.raises(OverloadedError):
        begin(machine, apply_of(machine, table, 1_000_000))
    await asyncio.gather(*[one for one in taken if isinstance(one, asyncio.Future)])
    await asyncio.sleep(0)
    assert served(machine) == 0


@simulated()
async def test_a_change_is_promised_once_and_a_repeated_one_is_left_to_who_remembers(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"old"))
    request = change_of(leader, table, b"new")
    promised = begin(leader, request)
    assert isinstance(promised, asyncio.Future)
    assert not promised.done()
    assert begin(leader, request) is None
    done = await promised
    assert isinstance(done, Changed)
    assert await member(leader).answer(PEER, request) == done
    follower = next(machine for machine in world.machines if machine is not leader)
    assert begin(follower, request) is None  # which `serve` refuses
    with pytest.raises(RefusedError):
        await member(follower).answer(PEER, request)


@simulated()
async def test_a_change_is_done_though_who_asked_has_given_up(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"old"))
    request = change_of(leader, table, b"new")
    promised = begin(leader, request)
    assert isinstance(promised, asyncio.Future)
    promised.cancel()
    await asyncio.sleep(1.0)
    assert served(leader) == 0
    assert isinstance(await member(leader).answer(PEER, request), Changed)
    led = await member(leader).answer(PEER, read_of(leader, table))
    assert isinstance(led, Led)
    assert led.value == b"new"


@simulated()
async def test_a_change_and_its_copy_that_wait_for_the_same_transaction_are_done_once(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"1"))
    term, key, ended = term_at(leader, table, NAME), key_of(table, NAME), asyncio.Event()
    assert term is not None
    waiting = 0

    class Transaction(NoTransactions):
        async def for_change(self, _table: Table, _key: bytes, _head: Register, *, deadline: float) -> None:
            nonlocal waiting
            waiting += 1
            await ended.wait()

    def holds(intent: Intent | None) -> bool:
        return leader_of(leader).amend(
            table, key, lambda head: msgspec.structs.replace(head.content, intent=intent), led=term
        )

    leader_of(leader).items.resolver = Transaction()
    assert holds(Intent(b"t" * 16, 1, True, b"2"))
    asked = [
        leader.spawn(change(leader, table, NAME, payload_of("add", 1), request=b"one and the same")) for _ in range(2)
    ]
    await until(lambda: waiting == 2)
    assert holds(None)
    ended.set()
    first, second = await asyncio.gather(*asked)
    assert (first.answer, first.version) == (b"2", second.version)


@simulated()
async def test_a_read_is_promised_unless_the_item_is_in_flight_and_asks_whether_the_epoch_stands(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"old"))
    await asyncio.sleep(1.0)
    promised = begin(leader, read_of(leader, table))
    assert isinstance(promised, asyncio.Future)
    await asyncio.sleep(0)
    assert not promised.done()
    led = await promised
    assert isinstance(led, Led)
    assert led.value == b"old"
    writing = begin(leader, change_of(leader, table, b"new"))
    assert isinstance(writing, asyncio.Future)
    assert begin(leader, read_of(leader, table)) is None
    led = await member(leader).answer(PEER, read_of(leader, table))
    assert isinstance(led, Led)
    assert led.value == b"new"


@simulated()
async def test_who_is_a_replica_and_vouches_for_the_epoch_has_its_read_at_once(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"v"))
    await asyncio.sleep(1.0)
    follower = next(machine for machine in world.machines if machine is not leader)
    vouched = msgspec.structs.replace(read_of(leader, table), is_vouched=True)
    led = member(leader).begin(member(follower).topology.node, vouched)
    assert isinstance(led, Led)
    assert led.value == b"v"
    assert isinstance(member(leader).begin(member(leader).topology.node, vouched), asyncio.Future)  # not another one
    assert isinstance(member(leader).begin(PEER, vouched), asyncio.Future)  # no replica
    older = msgspec.structs.replace(vouched, map_epoch=0)
    assert (member(leader).topology.map.placed > 0) == isinstance(
        member(leader).begin(member(follower).topology.node, older), asyncio.Future
    )
    leadership = member(follower).leader_tables.leadership
    group, epoch = group_of(leader, table, NAME), epoch_of(leader, table, NAME)
    assert leadership.vouches(group, epoch)
    leadership.may_vote = lambda _group: False
    assert not leadership.vouches(group, epoch)
    leadership.may_vote = lambda _group: True
    later = Epoch(epoch.number + 1, epoch.leader)
    assert not leadership.vouches(group, later)
    member(follower).leader_tables.promises.promise(((group, later),))
    assert not leadership.vouches(group, epoch)
    assert not leadership.vouches(group, later)  # which is not durable yet


@simulated(machines=5)
async def test_two_are_no_majority_of_five(world: World) -> None:
    table = await started_led(world, n=5)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"v"))
    await asyncio.sleep(1.0)
    vouched = msgspec.structs.replace(read_of(leader, table), is_vouched=True)
    follower = next(machine for machine in world.machines if machine is not leader)
    assert isinstance(member(leader).begin(member(follower).topology.node, vouched), asyncio.Future)


@simulated()
async def test_an_epoch_is_confirmed_at_once_by_who_has_promised_it_and_by_nobody_else(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, NAME)
    await change(leader, table, NAME, payload_of("put", b"v"))
    await asyncio.sleep(1.0)
    epoch = epoch_of(leader, table, NAME)
    partition = group_of(leader, table, NAME).partition
    map_epoch = member(leader).topology.map.epoch
    me = member(leader).topology.node
    later_epoch = Epoch(epoch.number + 1, epoch.leader)
    for machine in world.machines:
        if machine is leader:
            continue
        claim = Confirm(map_epoch, ((table.n, partition, epoch),))
        assert member(machine).begin(me, claim) == Standing((epoch,))
        later = Confirm(map_epoch, ((table.n, partition, later_epoch),))
        assert member(machine).begin(me, later) is None  # a promise would have to be written
