"""What the tests do to items of leader-based tables, and how they are evaluated: the words of a little wire."""

from __future__ import annotations

import random

import msgspec

from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.leader_messages import Change, Changed, Led, ReadLed, TakeOver
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.register import UNWRITTEN, Content, Decided, Register, Version
from merganser.service.leader import Leader
from merganser.service.leadership import Led as Term
from merganser.service.steps import WIRES, of_wires
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from service.plays import key_of, member, started_with_leaders, until

Payload = tuple[str, bytes | int | None, bytes | None]


def evaluate(_table: Table, payload: bytes, value: bytes | None) -> Decided:
    """Put, delete, compare and set, or add, as `payload_of` says it."""
    name, first, second = msgspec.msgpack.decode(payload, type=Payload)
    if name == "put":
        assert not isinstance(first, int)
        return Decided(Content(first))
    if name == "compare_and_set":
        return Decided(Content(second)) if value == first else Decided(None, value or b"", is_rejected=True)
    if name == "add":
        assert isinstance(first, int)
        total = b"%d" % (int(value or b"0") + first)
        return Decided(Content(total), total)
    raise RequestError(f"nothing is called {name}")


def payload_of(name: str, first: bytes | int | None = None, second: bytes | None = None) -> bytes:
    return msgspec.msgpack.encode((name, first, second))


def leader_of(machine: Machine) -> Leader:
    return member(machine).leader_tables.leader


def group_of(machine: Machine, table: Table, name: bytes) -> Group:
    ring = member(machine).topology.ring
    return Group(table.n, ring.partition_of(keys.token_in(key_of(table, name))))


def term_at(machine: Machine, table: Table, name: bytes) -> Term | None:
    if machine.member is None:
        return None
    return member(machine).leader_tables.leadership.led(group_of(machine, table, name))


def leading(world: World, table: Table, name: bytes) -> Machine | None:
    """Return the machine that leads ``name`` in the latest epoch."""
    terms = [(machine, term_at(machine, table, name)) for machine in world.machines if not machine.is_paused]
    led = [(term.epoch, number, machine) for number, (machine, term) in enumerate(terms) if term is not None]
    return max(led)[2] if led else None


async def started_led(world: World, *, n: int = 3) -> Table:
    """Start every machine, make a table, and return it once each machine can evaluate and each group is led."""
    table = await started_with_leaders(world, n=n)
    for machine in world.machines:
        can_evaluate(machine)
    await until(lambda: all(leading(world, table, b"%d" % n) for n in range(100)))
    return table


def can_evaluate(machine: Machine) -> None:
    leader_of(machine).makers[WIRES] = of_wires({"sim": evaluate})


def epoch_of(machine: Machine, table: Table, name: bytes) -> Epoch:
    term = term_at(machine, table, name)
    return NO_EPOCH if term is None else term.epoch


async def change(
    machine: Machine,
    table: Table,
    name: bytes,
    payload: bytes,
    *,
    epoch: Epoch | None = None,
    request: bytes | None = None,
) -> Changed:
    """Have ``machine`` do a step as the leader that it is."""
    if request is None:
        request = _ids.randbytes(16)
    if epoch is None:
        epoch = epoch_of(machine, table, name)
    asked = Change(0, table.id, key_of(table, name), epoch, request, WIRES, payload)
    reply = await machine.spawn(member(machine).serve(member(machine).topology.node, asked))
    assert isinstance(reply, Changed)
    return reply


async def read(machine: Machine, table: Table, name: bytes, *, epoch: Epoch | None = None) -> Led:
    """Have ``machine`` read an item as the leader that it is."""
    asked = ReadLed(0, table.id, key_of(table, name), epoch_of(machine, table, name) if epoch is None else epoch)
    reply = await machine.spawn(member(machine).serve(member(machine).topology.node, asked))
    assert isinstance(reply, Led)
    return reply


def register_at(machine: Machine, table: Table, name: bytes) -> Register:
    key = key_of(table, name)
    stored = machine.engine.get(key)
    return UNWRITTEN if stored is None else decode_register(key, stored)


def plant(machine: Machine, table: Table, name: bytes, version: Version, value: bytes | None) -> None:
    """Store a register on one machine, as the write of an earlier leader that went no further."""
    key = key_of(table, name)
    register = encode_register(key, Register(version, Content(value)))
    member(machine).trees.write([(table.id, key, machine.engine.get(key), register)])


_ids = random.Random(0)


async def take_over(machine: Machine, table: Table, name: bytes) -> Term:
    """Have ``machine`` lead ``name`` though another may; returns its new term."""
    me, group = member(machine), group_of(machine, table, name)
    known = me.leader_tables.leadership.known(group)
    request = TakeOver(me.topology.map.epoch, group.rule, ((group.partition, known),))
    await machine.spawn(me.serve(me.topology.node, request))
    await until(lambda: epoch_of(machine, table, name) > known)
    term = term_at(machine, table, name)
    assert term is not None
    return term


def others_than(world: World, leader: Machine) -> list[Machine]:
    return [machine for machine in world.machines if machine is not leader]


def the_leader(world: World, table: Table, name: bytes) -> Machine:
    machine = leading(world, table, name)
    assert machine is not None
    return machine


def values_at(world: World, table: Table, name: bytes) -> list[bytes | None]:
    return [register_at(machine, table, name).value for machine in world.machines]
