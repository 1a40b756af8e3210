"""First touches and settling: what a leader makes known, adopts, and sends to replicas that lack it."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import Any

from merganser.model.cluster import Table
from merganser.model.ids import NodeId
from merganser.model.leader_messages import TouchRange
from merganser.model.messages import Reply, Request
from merganser.model.register import Version
from merganser.net.transport import Traffic
from merganser.service.leadership import Led
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.led import (
    change,
    epoch_of,
    group_of,
    leader_of,
    others_than,
    payload_of,
    plant,
    read,
    register_at,
    started_led,
    take_over,
    term_at,
    the_leader,
    values_at,
)
from service.plays import damage, key_of, member, simulated, until
from service.test_leader import K

# First touches


@simulated()
async def test_equal_trees_make_everything_known_without_a_word(world: World) -> None:
    table = await started_led(world)
    await change(the_leader(world, table, K), table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    heir, *_ = others_than(world, the_leader(world, table, K))
    term = await take_over(heir, table, K)
    roots = term.roots[table.id]
    assert len(set(roots.values())) == 1
    version = register_at(heir, table, K).version
    assert (await read(heir, table, K)).version == version
    assert version.epoch < term.epoch


@simulated()
async def test_what_only_a_minority_holds_is_adopted_by_a_majority_before_anyone_sees_it(world: World) -> None:
    table = await started_led(world)
    first = the_leader(world, table, K)
    await change(first, table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    later = Version(*epoch_of(first, table, K), 99)
    heir, third = others_than(world, first)
    for machine in world.machines:  # so that all trees differ
        plant(machine, table, b"%d" % world.machines.index(machine), later, b"x")
    plant(heir, table, K, later, b"w")
    term = await take_over(heir, table, K)
    found = await read(heir, table, K)
    assert (found.value, found.version.epoch) == (b"w", term.epoch)
    assert sum(value == b"w" for value in values_at(world, table, K)) >= 2
    await until(lambda: register_at(third, table, K).version == found.version)


@simulated()
async def test_the_walk_makes_known_what_nobody_asks_for(world: World) -> None:
    table = await started_led(world)
    first = the_leader(world, table, K)
    heir, *_ = others_than(world, first)
    later = Version(*epoch_of(first, table, K), 99)
    key = key_of(table, K)
    for number, machine in enumerate(world.machines):
        plant(machine, table, K, Version(later.number, later.leader, later.sequence + number), b"%d" % number)
    await take_over(heir, table, K)
    await until(lambda: len({machine.engine.get(key) for machine in world.machines}) == 1, timeout_s=10.0)
    assert register_at(heir, table, K).version.epoch == epoch_of(heir, table, K)


@simulated()
async def test_the_walk_reads_rows_only_where_trees_differ(world: World) -> None:
    table = await started_led(world)
    ring, first = member(world.machines[0]).topology.ring, the_leader(world, table, K)
    partition = ring.partition_of(keys.token_in(key_of(table, K)))
    beside = [b"%d" % n for n in range(2000)]
    beside = [name for name in beside if ring.partition_of(keys.token_in(key_of(table, name))) == partition]
    for name in (K, *beside):
        await change(first, table, name, payload_of("put", b"v"))
    await until(lambda: all(values_at(world, table, name) == [b"v"] * 3 for name in (K, *beside)))
    heir, *_ = others_than(world, first)
    epoch = epoch_of(first, table, K)
    for number, machine in enumerate(world.machines):
        plant(machine, table, K, Version(*epoch, 9000 + number), b"%d" % number)
    asked = await pages_asked_for(heir)
    await take_over(heir, table, K)
    key = key_of(table, K)
    await until(lambda: len({machine.engine.get(key) for machine in world.machines}) == 1, timeout_s=10.0)
    await until(lambda: leader_of(heir).knows_all(table, led=standing(heir, table)), timeout_s=10.0)
    assert 1 <= len(asked) <= 2
    assert all(keys.table_in(start) == table.id and start <= key < end for start, end in asked)
    untouched = [name for name in beside if register_at(heir, table, name).version.epoch == epoch]
    assert len(untouched) == len(beside)


def standing(machine: Machine, table: Table) -> Led:
    term = term_at(machine, table, K)
    assert term is not None
    return term


async def pages_asked_for(machine: Machine) -> list[tuple[bytes, bytes]]:
    """Return where the ranges go that ``machine`` asks others for from now on."""
    asked: list[tuple[bytes, bytes]] = []
    transport = member(machine).transport
    ask = transport.request

    def listen(node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA) -> Future[Reply]:
        if isinstance(request, TouchRange):
            asked.append((request.start, request.end))
        return ask(node, request, timeout_s=timeout_s, traffic=traffic)

    transport.request = listen  # type: ignore[method-assign]
    return asked


@simulated()
async def test_trees_that_were_compared_while_the_replicas_changed_say_nothing(world: World) -> None:
    table = await started_led(world)
    first = the_leader(world, table, K)
    await change(first, table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    leader = leader_of(first)
    term = leader.terms.of_group(group_of(first, table, K))
    assert term is not None
    touches = leader.items.touches
    touches.place(term, table).until = b""
    everything = [touches._range(term, table)]
    assert list(await first.spawn(touches._unequal(term, table))) == [], "all trees are equal"
    leaves_of = touches._leaves_of

    async def told_before_a_flip(*of: Any) -> Sequence[int] | None:
        leaves = await leaves_of(*of)
        term.led.placed += 1
        return leaves

    touches._leaves_of = told_before_a_flip  # type: ignore[assignment, method-assign]
    assert list(await first.spawn(touches._unequal(term, table))) == everything


@simulated()
async def test_items_are_served_while_a_replica_is_away(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    away, *_ = others_than(world, leader)
    away.crash()
    assert not (await change(leader, table, K, payload_of("put", b"v"))).is_rejected
    assert (await read(leader, table, K)).value == b"v"


@simulated()
async def test_a_damaged_register_at_the_leader_is_written_anew_from_what_the_others_hold(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    written = await change(leader, table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    damage(leader, table, K)
    found = await read(leader, table, K)
    assert found.value == b"v"
    assert found.version > written.version
    await until(lambda: {register_at(machine, table, K).version for machine in world.machines} == {found.version})


# Settling


@simulated()
async def test_settling_sends_a_replica_what_it_lacks_as_it_is(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    written = await change(leader, table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    other, *_ = others_than(world, leader)
    key = key_of(table, K)
    member(other).trees.write([(table.id, key, other.engine.get(key), None)])
    term = term_at(leader, table, K)
    assert term is not None
    await leader.spawn(leader_of(leader).settle(table, key, led=term, toward=member(other).topology.node))
    assert register_at(other, table, K) == register_at(leader, table, K)
    assert register_at(leader, table, K).version == written.version


@simulated()
async def test_settling_outranks_what_an_earlier_leader_left_behind(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    other, *_ = others_than(world, leader)
    key = key_of(table, K)
    await change(leader, table, K, payload_of("put", b"v"))
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)
    term = term_at(leader, table, K)
    assert term is not None
    before = register_at(leader, table, K).version
    plant(other, table, K, Version(before.number, before.leader, before.sequence + 5), b"left behind")
    for _ in range(5):  # which only happens with versions of earlier epochs, but those are made alike
        term.next_version()
    await leader.spawn(leader_of(leader).settle(table, key, led=term, toward=None))
    assert register_at(leader, table, K).version > before
    assert values_at(world, table, K) == [b"v"] * 3
