"""Writes on their way: sent until a majority has them, and to stragglers a few times more."""

from __future__ import annotations

import asyncio

from merganser.model.cluster import Table
from merganser.model.errors import UnknownOutcomeError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import Replicate
from merganser.model.messages import Reply, Request
from merganser.net.transport import Traffic
from merganser.service.in_flight import STRAGGLER_RESENDS_MAX
from merganser.service.leadership import Led
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.led import (
    change,
    group_of,
    leader_of,
    leading,
    others_than,
    payload_of,
    read,
    register_at,
    started_led,
    term_at,
    the_leader,
)
from service.moves import moving, name_in
from service.plays import key_of, member, simulated, until

K = b"k"


def replicates_to(machine: Machine) -> list[tuple[NodeId, Replicate]]:
    """Return what ``machine`` replicates from now on, and to whom."""
    sent: list[tuple[NodeId, Replicate]] = []
    transport = member(machine).transport
    ask = transport.request

    def listen(
        node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        if isinstance(request, Replicate):
            sent.append((node, request))
        return ask(node, request, timeout_s=timeout_s, traffic=traffic)

    transport.request = listen  # type: ignore[method-assign]
    return sent


def behind(machine: Machine) -> list[tuple[TableId, NodeId]]:
    """Return who is given up by ``machine`` from now on, and in which table."""
    told: list[tuple[TableId, NodeId]] = []

    def note(_led: Led, table: TableId, node: NodeId) -> None:
        told.append((table, node))

    leader_of(machine).terms.when_behind = note
    return told


async def ready(world: World) -> tuple[Table, Machine, Machine, Machine]:
    """Return a table, the leader of an item that is known, and the other replicas."""
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    one, other = others_than(world, leader)
    return table, leader, one, other


@simulated()
async def test_each_replica_is_sent_a_write_once_when_all_is_well(world: World) -> None:
    table, leader, *_ = await ready(world)
    sent = replicates_to(leader)
    await change(leader, table, K, payload_of("put", b"v"))
    await asyncio.sleep(2.0)
    assert sorted(node for node, _ in sent) == sorted(machine.node for machine in others_than(world, leader))


@simulated()
async def test_what_a_turn_has_for_a_replica_goes_in_one_message(world: World) -> None:
    table, leader, *_ = await ready(world)
    keys = [K, *(name for name in map(b"%d".__mod__, range(200)) if the_leader(world, table, name) is leader)]
    for key in keys:
        await read(leader, table, key)
    sent = replicates_to(leader)
    before = world.network.sent
    done = await asyncio.gather(*(change(leader, table, key, payload_of("put", b"v")) for key in keys))
    assert len(done) == len(keys) > 10
    alone = {request.key for _, request in sent}
    assert len(alone) <= 2  # what had to be touched once more is late for the others
    assert world.network.sent - before < len(keys)


@simulated()
async def test_a_copy_that_is_refused_is_sent_again_and_the_others_of_its_message_are_not(world: World) -> None:
    table, leader, one, other = await ready(world)
    name = next(
        name
        for name in map(b"%d".__mod__, range(200))
        if the_leader(world, table, name) is leader and group_of(leader, table, name) != group_of(leader, table, K)
    )
    await read(leader, table, name)
    term = term_at(leader, table, K)
    assert term is not None
    for machine in one, other:
        member(machine).leader_tables.generations.begin(term.group, (term.epoch, term.generation + 1))
    writings = [asyncio.create_task(change(leader, table, key, payload_of("put", b"v"))) for key in (K, name)]
    await writings[1]
    sent = replicates_to(leader)
    assert not writings[0].done()
    term.generation += 1
    async with asyncio.timeout(2.0):
        await writings[0]
    assert {request.key for _, request in sent} == {key_of(table, K)}


@simulated()
async def test_a_replica_that_is_silent_is_sent_a_write_a_few_times_more_and_then_given_up(world: World) -> None:
    table, leader, silent, _ = await ready(world)
    sent, given_up = replicates_to(leader), behind(leader)
    world.network.cut(silent.address, leader.address)  # it hears, and cannot answer
    await change(leader, table, K, payload_of("put", b"v"))
    await until(lambda: (table.id, silent.node) in given_up, timeout_s=10.0)
    await asyncio.sleep(3.0)
    assert sum(node == silent.node for node, _ in sent) == 1 + STRAGGLER_RESENDS_MAX


@simulated()
async def test_a_replica_that_is_down_is_given_up_at_once(world: World) -> None:
    table, leader, down, _ = await ready(world)
    down.crash()
    await until(lambda: not member(leader).transport.is_reachable(down.node))
    sent, given_up = replicates_to(leader), behind(leader)
    await change(leader, table, K, payload_of("put", b"v"))
    await asyncio.sleep(1.0)
    assert sum(node == down.node for node, _ in sent) == 1
    assert given_up == [(table.id, down.node)]


@simulated()
async def test_an_ack_of_a_later_write_counts_for_the_earlier_ones_of_the_item(world: World) -> None:
    table, leader, one, other = await ready(world)
    for machine in one, other:
        world.network.cut(leader.address, machine.address)
    first = asyncio.create_task(change(leader, table, K, payload_of("put", b"first")))
    await until(lambda: register_at(leader, table, K).value == b"first")
    for machine in one, other:
        world.network.mend(leader.address, machine.address)
    second = asyncio.create_task(change(leader, table, K, payload_of("put", b"second")))
    async with asyncio.timeout(0.1):  # less than it takes to send the first again
        await asyncio.gather(first, second)
        await until(lambda: {register_at(machine, table, K).value for machine in (one, other)} == {b"second"})
    assert first.result().version < second.result().version


@simulated()
async def test_nobody_waits_for_a_write_for_ever(world: World) -> None:
    table, leader, one, other = await ready(world)
    for machine in one, other:
        machine.disk.slow((60.0, 60.0))
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    async with asyncio.timeout(11.0):
        await asyncio.wait([writing])
    assert isinstance(writing.exception(), UnknownOutcomeError)


@simulated()
async def test_what_is_in_flight_when_a_generation_begins_is_sent_in_that(world: World) -> None:
    table, leader, one, other = await ready(world)
    for machine in one, other:
        world.network.cut(leader.address, machine.address)
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    term = term_at(leader, table, K)
    assert term is not None
    term.generation += 1
    for machine in one, other:
        member(machine).leader_tables.generations.begin(term.group, (term.epoch, term.generation))
        world.network.mend(leader.address, machine.address)
    async with asyncio.timeout(2.0):
        await writing


@simulated()
async def test_what_is_chosen_is_never_sent_in_a_later_generation(world: World) -> None:
    table, leader, silent, _ = await ready(world)
    sent = replicates_to(leader)
    world.network.cut(leader.address, silent.address)
    await change(leader, table, K, payload_of("put", b"v"))
    term = term_at(leader, table, K)
    assert term is not None
    term.generation += 1
    await asyncio.sleep(5.0)
    assert [request.generation for node, request in sent if node == silent.node] == [0] * (1 + STRAGGLER_RESENDS_MAX)


@simulated(machines=5)
async def test_a_write_waits_for_most_of_those_who_serve_and_most_of_those_who_will(world: World) -> None:
    table = await started_led(world)
    ring = member(world.machines[0]).topology.ring
    moved, partition = PartitionId(0), PartitionId(ring.partitions - 1)  # its owner stays, the next one goes
    name = name_in(world, table, partition)
    leader = leading(world, table, name)
    assert leader is not None
    await change(leader, table, name, payload_of("put", b"1"))
    held = {*ring.holders(partition, table.rule).serving, *ring.holders(moved, table.rule).serving}
    newcomer = next(machine for machine in world.machines if machine.node not in held)
    world.network.cut(leader.address, newcomer.address)  # so that it is brought nothing, and all stays as it is
    await moving(world, table, moved, newcomer)
    holders = member(leader).topology.ring.holders(partition, table.rule)
    machines = {machine.node: machine for machine in world.machines}
    (leaving,) = (machines[node] for node in holders.leaving)
    (staying,) = (machines[node] for node in holders.staying if node != leader.node)
    assert leaving is not leader

    world.network.cut(leader.address, leaving.address)
    await change(leader, table, name, payload_of("put", b"2"))  # this leader and the other who stays are most of both
    world.network.cut(leader.address, staying.address)
    world.network.mend(leader.address, leaving.address)
    writing = asyncio.create_task(change(leader, table, name, payload_of("put", b"3")))
    key = key_of(table, name)
    await until(lambda: b"3" in (leaving.engine.get(key) or b""))
    await asyncio.sleep(0.05)
    assert not writing.done(), "most of those who serve have it, of those who will only the leader"
    world.network.mend(leader.address, newcomer.address)
    await writing
