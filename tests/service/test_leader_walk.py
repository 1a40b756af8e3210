"""Leaders, replicas and clients at random, and everything that can be wrong at once: each item stays one register.

What happened to each item is judged as one history (`sim.checkers.linearizable`), and afterwards all replicas agree.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import (
    MerganserError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    UnknownOutcomeError,
)
from merganser.model.leader_messages import NOT_LEADING, Change, Changed, Led, ReadLed, TakeOver
from merganser.model.messages import Request
from merganser.service.asking import wrote_nothing
from merganser.service.steps import WIRES
from merganser.sim.checkers.linearizable import Action, CompareAndSet, Operation, Put, Read, flaws
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.led import can_evaluate, group_of, leading, payload_of, started_led
from service.plays import key_of, member, now_s

NAMES = (b"a", b"b", b"c")
CLIENTS = 6
ASK_S = 0.6
TRIES = 3


class Client:
    """Asks for one operation after the other, through any machine, and remembers what it was told."""

    def __init__(self, world: World, table: Table, number: int) -> None:
        self.world = world
        self.table = table
        self.number = number
        self.rng = random.Random(f"{number} {world.rng.random()}")
        self.history: list[Operation] = []
        self.answered = 0

    async def run(self, until_s: float) -> None:
        count = 0
        while now_s() < until_s:
            count += 1
            await self._one(self.rng.choice(NAMES), b"%d-%d" % (self.number, count))
            await asyncio.sleep(self.rng.uniform(0.0, 0.02))

    async def _one(self, name: bytes, unique: bytes) -> None:
        kind = self.rng.choice(("read", "read", "put", "compare_and_set", "delete"))
        seen = self._last_seen(name)
        if kind == "read":
            await self._do(name, None, lambda _told: Read(_told))
        elif kind == "put":
            await self._do(name, payload_of("put", unique), lambda _told: Put(unique))
        elif kind == "delete":
            await self._do(name, payload_of("put", None), lambda _told: Put(None))
        else:
            payload = payload_of("compare_and_set", seen, unique)
            await self._do(name, payload, lambda _told: CompareAndSet(seen, unique))

    def _last_seen(self, name: bytes) -> bytes | None:
        reads = [o.action.value for o in self.history if o.key == name and isinstance(o.action, Read)]
        return reads[-1] if reads else None

    async def _do(self, name: bytes, payload: bytes | None, action_of: Callable[[bytes | None], Action]) -> None:
        began_s = now_s()
        told = await self.ask(name, payload)
        if isinstance(told, Led):
            self.history.append(Operation(name, Read(told.value), began_s, now_s()))
        elif isinstance(told, Changed) and told.is_rejected:
            self.history.append(Operation(name, Read(told.answer or None), began_s, now_s()))
        elif isinstance(told, Changed):
            self.history.append(Operation(name, action_of(None), began_s, now_s()))
        elif told == "unknown" and payload is not None:
            self.history.append(Operation(name, action_of(None), began_s))
        self.answered += isinstance(told, Led | Changed)

    async def ask(self, name: bytes, payload: bytes | None) -> Led | Changed | str:
        """Ask who leads, as the coordinating side does: a change that may be done is only asked of the same again."""
        machine = self.rng.choice(self.world.machines)
        if machine.member is None or machine.is_paused:
            return "not done"
        me = machine.member
        group = group_of(machine, self.table, name)
        epoch = me.leader_tables.leadership.known(group)
        leader = me.topology.node_of(epoch.leader)
        if leader is None:
            return "not done"
        key = key_of(self.table, name)
        request: Request = ReadLed(0, self.table.id, key, epoch)
        if payload is not None:
            request = Change(0, self.table.id, key, epoch, self.rng.randbytes(16), WIRES, payload)
        outcome = "not done"
        for _ in range(TRIES):
            try:
                return await self._told(machine, machine_of_node(self.world, leader), request)
            except RefusedError as error:
                if error.code == NOT_LEADING:
                    me.leader_tables.leadership.learned(group, error.epoch)
                    return outcome
                outcome = outcome if wrote_nothing(error) else "unknown"
            except UnknownOutcomeError:
                return "unknown"
            except PeerUnreachableError:
                return outcome
            except (PeerLostError, TimeoutError):
                outcome = "unknown"
            except MerganserError as error:
                outcome = outcome if wrote_nothing(error) else "unknown"
            if machine.member is not me or machine.is_paused:
                return "unknown"
        return outcome

    async def _told(self, machine: Machine, leader: Machine, request: Request) -> Led | Changed:
        """Ask as a node would, for a client that does not die with it."""
        answer: asyncio.Future[Led | Changed] = asyncio.get_running_loop().create_future()

        async def ask() -> None:
            try:
                me = member(machine)
                if machine is leader:
                    reply = await me.serve(me.topology.node, request)
                else:
                    reply = await me.transport.request(leader.node, request, timeout_s=ASK_S)
            except MerganserError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    assert isinstance(reply, Led | Changed)
                    answer.set_result(reply)

        machine.spawn(ask())
        async with asyncio.timeout(ASK_S + 0.1):
            return await answer


def machine_of_node(world: World, node: str) -> Machine:
    return next(machine for machine in world.machines if machine.node == node)


class Trouble:
    """One thing after the other goes wrong."""

    def __init__(self, world: World, table: Table) -> None:
        self.world = world
        self.table = table
        self.rng = random.Random(f"trouble {world.rng.random()}")
        self.base_loss = self.rng.choice((0.0, 0.1))
        self.calm()

    async def run(self, until_s: float) -> None:
        kinds: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (
            self.crash, self.crash, self.pause, self.cut, self.cut, self.one_way, self.one_way,
            self.loss, self.slow_disk, self.reset,
        )  # fmt: skip
        while now_s() < until_s:
            await self.rng.choice(kinds)()
            await asyncio.sleep(self.rng.uniform(0.0, 0.1))

    async def usurpers(self, until_s: float) -> None:
        while now_s() < until_s:
            await self.usurp()
            await asyncio.sleep(self.rng.choice((0.01, 0.05, 0.2)) * self.rng.random())

    def any(self) -> Machine:
        """Return a machine, the leader of some item as likely as all the others together."""
        leader = leading(self.world, self.table, self.rng.choice(NAMES))
        if leader is not None and self.rng.random() < 0.5:
            return leader
        return self.rng.choice(self.world.machines)

    async def crash(self) -> None:
        machine = self.any()
        if not machine.is_up or machine.member is None:
            return
        machine.crash()
        await asyncio.sleep(self.rng.uniform(0.0, 0.4))
        machine.start()
        await self.world.up(machine)
        can_evaluate(machine)

    async def pause(self) -> None:
        machine = self.any()
        if machine.member is None:
            return
        machine.pause()
        await asyncio.sleep(self.rng.choice((0.1, 1.5)) * self.rng.random())
        machine.resume()

    async def usurp(self) -> None:
        """Have a machine campaign though somebody leads."""
        machine = self.any()
        if machine.member is None or machine.is_paused:
            return
        group = group_of(machine, self.table, self.rng.choice(NAMES))
        known = machine.member.leader_tables.leadership.known(group)
        request = TakeOver(machine.member.topology.map.epoch, group.rule, ((group.partition, known),))
        machine.spawn(quietly(machine.member.serve(machine.node, request)))

    async def cut(self) -> None:
        lonely = self.any()
        others = [machine for machine in self.world.machines if machine is not lonely]
        for other in others:
            self.world.network.cut(lonely.address, other.address)
            self.world.network.cut(other.address, lonely.address)
        await asyncio.sleep(self.rng.choice((0.1, 2.0)) * self.rng.random())
        for other in others:
            self.world.network.mend(lonely.address, other.address)
            self.world.network.mend(other.address, lonely.address)

    async def one_way(self) -> None:
        one = self.any()
        other = self.rng.choice([machine for machine in self.world.machines if machine is not one])
        if self.rng.random() < 0.5:
            one, other = other, one
        self.world.network.cut(one.address, other.address)
        await asyncio.sleep(self.rng.choice((0.1, 1.5)) * self.rng.random())
        self.world.network.mend(one.address, other.address)

    async def loss(self) -> None:
        self.world.network.conditions.loss = self.rng.choice((0.05, 0.2, 0.4))
        self.world.network.conditions.duplication = 0.1
        self.world.network.conditions.delay_s = (0.0002, self.rng.choice((0.01, 0.1)))
        await asyncio.sleep(self.rng.uniform(0.1, 1.5))
        self.calm()

    def calm(self) -> None:
        """Lose something all the same, in every other run: what is asked may arrive where what was written did not."""
        self.world.network.conditions.loss = self.base_loss
        self.world.network.conditions.duplication = 0.0
        self.world.network.conditions.delay_s = (0.0002, 0.01)

    async def slow_disk(self) -> None:
        machine = self.any()
        machine.disk.slow()
        await asyncio.sleep(self.rng.uniform(0.1, 1.5))
        machine.disk.heal()

    async def reset(self) -> None:
        one, other = self.rng.sample(self.world.machines, 2)
        self.world.network.reset(one.address, other.address)


async def quietly(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except MerganserError:
        return


async def agree(world: World, table: Table) -> list[Operation]:
    """Return a last read of each item, once all is well, and all replicas agree on it."""
    last = []
    for name in NAMES:
        client = Client(world, table, 99)
        began_s = now_s()
        async with asyncio.timeout(20.0):
            while not isinstance(told := await client.ask(name, None), Led):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        last.append(Operation(name, Read(told.value), began_s, now_s()))
    return last


def walk(seed: int, *, seconds: float = 12.0, machines: int = 3) -> int:
    world = World(seed, machines=machines, partitions=8)
    answered = 0

    async def play(world: World) -> list[Operation]:
        nonlocal answered
        table = await started_led(world)
        clients = [Client(world, table, number) for number in range(CLIENTS)]
        trouble = Trouble(world, table)
        end_s = now_s() + seconds
        await asyncio.gather(trouble.run(end_s), trouble.usurpers(end_s), *(client.run(end_s) for client in clients))
        answered = sum(client.answered for client in clients)
        world.network.heal()
        history = [operation for client in clients for operation in client.history]
        return [*history, *await agree(world, table)]

    history = world.run(play)
    assert world.errors() == []
    assert list(flaws(history)) == []
    return answered


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_each_item_is_one_register(seed: int) -> None:
    assert walk(seed) > 50


@pytest.mark.parametrize("seed", range(100, 102))
def test_so_it_is_with_five_machines(seed: int) -> None:
    assert walk(seed, machines=5) > 50
