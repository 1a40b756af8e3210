"""A whole cluster under clients and faults, and the verdict.

`run_scenario(seed)` founds a cluster, creates a table, lets clients write, read and delete through
random nodes while faults come and go, then heals everything and checks: every acknowledged write is
read back at QUORUM through every node, and after one read of each key at ALL the replicas are equal.
One seed decides everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from merganser.core import rows
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import Consistency
from merganser.model.errors import InvariantError, MerganserError, TableExistsError, UnavailableError
from merganser.model.row import CellWrite, Mutation, Row
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.service.member import Member
from merganser.sim.history import History, Read, Write
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.memory import MemoryEngine

CELL = b"value"
CLIENTS = 4
CLIENT_TIMEOUT_S = 3.0
REQUEST_TIMEOUT_S = 2.0
SETTLE_S = 60.0


class Scenario(msgspec.Struct, frozen=True):
    """How large, how long and how hard a run is."""

    machines: int = 3
    zones: int = 3
    partitions: int = 16
    operations: int = 25
    """Of each client."""
    hot_keys: int = 3
    """Shared by all clients; every other write goes to a key of its own."""
    losses: tuple[float, ...] = (0.02, 0.2)
    """Shares of messages that a storm loses, one of them each time."""
    clock_jump_s: float = 5.0
    """How far a wall clock may be off, either way."""
    write_level: Consistency = Consistency.QUORUM
    read_level: Consistency = Consistency.QUORUM
    engine_type: type[MemoryEngine] = MemoryEngine
    """A test of the checker itself plants a bug here."""


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to."""

    seed: int
    violations: list[str]
    trace: str
    acked: int
    unknown: int
    reads: int
    crashes: int
    messages: int
    lost: int
    repairs: int
    virtual_s: float
    timeline: tuple[str, ...]
    """Faults, requests and their answers, as they happened."""


def run_scenario(seed: int, scenario: Scenario = Scenario()) -> Outcome:  # noqa: B008  # frozen
    """Run one seeded scenario to its verdict."""
    world = World(
        seed,
        machines=scenario.machines,
        zones=scenario.zones,
        partitions=scenario.partitions,
        engine_type=scenario.engine_type,
    )
    return world.run(lambda world: _Run(seed, scenario, world).outcome())


class _Run:
    def __init__(self, seed: int, scenario: Scenario, world: World) -> None:
        self._seed = seed
        self._scenario = scenario
        self._world = world
        self._loop = world.loop
        self._rng = world.rng
        self._network = world.network
        self._machines = world.machines
        self._history = History()
        self._violations: list[str] = []
        self._crashes = 0
        self._values = 0

    async def outcome(self) -> Outcome:
        for machine in self._machines:
            machine.start()
        table = await self._create_table()
        faults = self._loop.create_task(self._faults())
        clients = [self._loop.create_task(self._client(table, i)) for i in range(CLIENTS)]
        for client in clients:
            await client
        faults.cancel()
        await self._heal()
        await self._check_everything(table)
        return self._verdict()

    # -- clients

    async def _create_table(self) -> Table:
        """Two nodes create the same table at once; one wins, both then know it."""
        deadline = self._loop.time() + SETTLE_S
        attempts = []
        for number, machine in enumerate(self._machines[:2]):
            member = await self._world.up(machine)
            attempts.append(
                machine.spawn(
                    member.catalog.create_table(
                        wire="sim", name="t", n=3, definition=b"", unique_id=f"request-{number}", deadline=deadline
                    )
                )
            )
        created = []
        for attempt in attempts:
            with contextlib.suppress(TableExistsError):
                created.append(await attempt)
        if len(created) != 1:
            self._violations.append(f"{len(created)} of two requests created the table")
        return created[0]

    async def _client(self, table: Table, number: int) -> None:
        for _ in range(self._scenario.operations):
            await asyncio.sleep(self._rng.expovariate(10.0))
            machine = self._rng.choice(self._machines)
            if not machine.is_up or machine.member is None:
                continue
            key = self._key(table, number)
            if self._rng.random() < 0.4:
                await self._read(machine, table, key, self._scenario.read_level)
            else:
                await self._write(machine, table, key)

    def _key(self, table: Table, client: int) -> bytes:
        if self._rng.random() < 0.5:
            name = f"hot-{self._rng.randrange(self._scenario.hot_keys)}"
        else:
            name = f"own-{client}-{self._values}"
        return keys.row_key(table.id, token_of(name.encode()), name.encode())

    async def _write(self, machine: Machine, table: Table, key: bytes) -> None:
        self._values += 1
        value = None if self._rng.random() < 0.15 else f"value-{self._values}".encode()
        mutation = Mutation(deletes_row=True) if value is None else Mutation((CellWrite(CELL, value),))
        write = Write(key, value, self._loop.time())
        self._history.writes.append(write)
        member = _member(machine)
        deadline = self._loop.time() + REQUEST_TIMEOUT_S
        task = machine.spawn(
            member.coordinator.write(table, key, mutation, level=self._scenario.write_level, deadline=deadline)
        )
        await asyncio.wait([task], timeout=CLIENT_TIMEOUT_S)
        self._tell(machine, f"{'delete' if value is None else 'write'} {_name(key)} {value!r}", write.began_s, task)
        if not task.done():
            return  # the machine died with it
        error = task.exception()
        if error is None:
            write.timestamp = rows.newest(rows.stamp(mutation, task.result()))
            write.acked_s = self._loop.time()
        elif isinstance(error, UnavailableError):
            write.is_certainly_unwritten = True
        elif not isinstance(error, MerganserError):
            raise error

    async def _read(self, machine: Machine, table: Table, key: bytes, level: Consistency) -> bool:
        began_s = self._loop.time()
        member = _member(machine)
        task = machine.spawn(member.coordinator.read(table, key, level=level, deadline=began_s + REQUEST_TIMEOUT_S))
        await asyncio.wait([task], timeout=CLIENT_TIMEOUT_S)
        self._tell(machine, f"read {_name(key)} at {level.value}", began_s, task)
        if not task.done():
            return False
        error = task.exception()
        if isinstance(error, MerganserError):
            return False
        if error is not None:
            raise error
        row = task.result()
        self._history.reads.append(
            Read(key, _value(row), rows.newest(row) if row else BEGINNING, began_s, self._loop.time())
        )
        return True

    def _tell(self, machine: Machine, what: str, began_s: float, task: asyncio.Task[Any]) -> None:
        if not task.done():
            answer = "no answer"
        elif (error := task.exception()) is not None:
            answer = f"{type(error).__name__}: {error}"
        else:
            answer = _answer(task.result())
        self._loop.tell(f"{machine.address} since {began_s:.4f} s: {what} -> {answer}")

    # -- faults

    async def _faults(self) -> None:
        faults: list[Callable[[], None]] = [self._cut_off, self._cut_one_way, self._crash, self._storm, self._jump]
        while True:
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))
            self._rng.choice(faults)()
            await asyncio.sleep(self._rng.uniform(0.1, 1.5))
            self._network.heal()
            self._restart_all()
            self._loop.tell("the network is well, what was down starts")

    def _cut_off(self) -> None:
        lonely = self._rng.choice(self._machines)
        self._world.cut_off(lonely)
        self._loop.tell(f"{lonely.address} is cut off")

    def _cut_one_way(self) -> None:
        sender, receiver = self._rng.sample(self._machines, 2)
        self._network.cut(sender.address, receiver.address)
        self._loop.tell(f"{receiver.address} hears nothing from {sender.address}")

    def _crash(self) -> None:
        for machine in self._rng.sample(self._machines, self._rng.randint(1, len(self._machines))):
            machine.crash()
            self._crashes += 1
            self._loop.tell(f"{machine.address} loses power")

    def _storm(self) -> None:
        self._network.conditions = Conditions(
            delay_s=(0.001, self._rng.choice([0.05, 0.5])),
            loss=self._rng.choice(self._scenario.losses),
            duplication=0.1,
        )
        self._loop.tell(f"storm: {self._network.conditions}")

    def _jump(self) -> None:
        jump_us = int(self._scenario.clock_jump_s * 1e6)
        machine = self._rng.choice(self._machines)
        machine.skew_us = self._rng.randint(-jump_us, jump_us)
        self._loop.tell(f"the clock of {machine.address} is off by {machine.skew_us / 1e6:+.3f} s")

    def _restart_all(self) -> None:
        for machine in self._machines:
            if not machine.is_up:
                machine.start()

    # -- the verdict

    async def _heal(self) -> None:
        self._network.heal()
        for machine in self._machines:
            machine.skew_us = 0
        await self._world.start()
        await asyncio.sleep(self._scenario.clock_jump_s)  # what was written by a clock ahead is in the past now

    async def _check_everything(self, table: Table) -> None:
        touched = sorted({write.key for write in self._history.writes})
        for key in touched:
            for machine in self._machines:
                if not await self._read(machine, table, key, Consistency.QUORUM):
                    self._violations.append(f"{key!r} cannot be read at QUORUM on a healthy cluster")
        for key in touched:
            if not await self._read(self._machines[0], table, key, Consistency.ALL):
                self._violations.append(f"{key!r} cannot be read at ALL on a healthy cluster")
        for machine in self._machines:
            await machine.spawn(_member(machine).coordinator.repairs.idle())
        self._compare_replicas(table)
        await self._check_ranges(table, touched)
        self._compare_maps()

    def _compare_replicas(self, table: Table) -> None:
        low, high = keys.table_range(table.id)
        for key in sorted({key for machine in self._machines for key, _ in machine.engine.scan(low, high)}):
            replicas = _member(self._machines[0]).topology.replicas(table, key)
            held = [m.engine.get(key) for m in self._machines if _member(m).topology.node in replicas]
            if len(set(held)) != 1:
                self._violations.append(f"replicas of {key!r} did not converge")

    async def _check_ranges(self, table: Table, touched: list[bytes]) -> None:
        """A paged read of the whole table, either way, returns the live keys in order."""
        newest = {read.key: read.value for read in self._history.reads}
        live = [key for key in touched if newest[key] is not None]
        for reverse in (False, True):
            listed = await self._list(self._rng.choice(self._machines), table, reverse=reverse)
            if listed != (live[::-1] if reverse else live):
                self._violations.append(f"a paged read (reverse={reverse}) gave {len(listed)} keys, not {len(live)}")

    async def _list(self, machine: Machine, table: Table, *, reverse: bool) -> list[bytes]:
        member = _member(machine)
        start, end = keys.table_range(table.id)
        listed: list[bytes] = []
        while True:
            page = await machine.spawn(
                member.coordinator.read_range(
                    table,
                    start,
                    end,
                    reverse=reverse,
                    level=Consistency.QUORUM,
                    rows_max=self._rng.randint(1, 20),
                    bytes_max=self._rng.choice([1, 300, 100_000]),
                    deadline=self._loop.time() + REQUEST_TIMEOUT_S,
                )
            )
            listed += [key for key, _ in page.rows]
            if page.resume is None:
                return listed
            start, end = (start, page.resume) if reverse else (page.resume, end)

    def _compare_maps(self) -> None:
        maps = {machine.address: _member(machine).topology.map for machine in self._machines}
        epochs: dict[int, ClusterMap] = {}
        for address, current in maps.items():
            if epochs.setdefault(current.epoch, current) != current:
                self._violations.append(f"{address} knows another map of epoch {current.epoch}")

    def _verdict(self) -> Outcome:
        writes = self._history.writes
        return Outcome(
            seed=self._seed,
            violations=[
                *self._violations,
                *self._history.violations(),
                *(f"error: {error!r}" for error in self._world.errors()),
            ],
            trace=self._loop.trace,
            acked=sum(write.acked_s is not None for write in writes),
            unknown=sum(write.acked_s is None and not write.is_certainly_unwritten for write in writes),
            reads=len(self._history.reads),
            crashes=self._crashes,
            messages=self._network.sent,
            lost=self._network.lost,
            repairs=sum(_member(machine).coordinator.repairs.sent for machine in self._machines),
            virtual_s=self._loop.time(),
            timeline=tuple(self._loop.timeline),
        )


def _member(machine: Machine) -> Member:
    if machine.member is None:
        raise InvariantError(f"{machine.address} is not up")
    return machine.member


def _answer(result: Timestamp | Row | None) -> str:
    if result is None:
        return "nothing"
    if isinstance(result, Row):
        return f"{_value(result)!r} of {_answer(rows.newest(result))}"
    return f"{(result.micros - EPOCH_US) / 1e6:.6f} s by node {result.writer}"


def _name(key: bytes) -> str:
    return keys.split_row_key(key)[2].decode()


def _value(row: Row | None) -> bytes | None:
    return None if row is None else rows.live_value(row, CELL, 0)
