"""Snapshots of simulated clusters: taken while clients write and things go wrong, judged by what was acknowledged.

One client writes each key, so what a snapshot may hold of it is known: what was acknowledged last when it began, or
something of unknown outcome, or anything that was begun afterwards. Pairs are written by transactions: one that is
whole has the same number in both.

Checkpoints are taken far apart, so that whatever takes away what was acknowledged has time to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from merganser.core import reshaping, rows, snapshots
from merganser.core.index_tables import is_index
from merganser.model.cluster import ClusterMap, Table
from merganser.model.consistency import WriteQuorums
from merganser.model.errors import CorruptionError, MerganserError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.register import Register
from merganser.model.snapshot import WantedTable
from merganser.service.copies import Copies, Counted
from merganser.service.steps import WIRES
from merganser.service.topology import load_map
from merganser.service.transactions import TransactItem
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.steps import Put, payload_of
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import decode_row, seal, unseal
from service.plays import CELL, get, key_of, member, now_s, put

KEYS = tuple(b"k%d" % number for number in range(5))
SLOPPY = tuple(b"s%d" % number for number in range(3))
"""Keys that are acknowledged by any one node, perhaps with a hint only. Promised where no clock has leapt."""
PAIRS = tuple((b"a%d" % number, b"b%d" % number) for number in range(3))
PARTITIONS = 4
RUN_S = 15.0
APART_S = 3.0
"""Between the first checkpoint of a snapshot and the last."""
PATIENCE_S = 4.0  # of a client; a request through a machine that dies is never answered
STANDSTILL_S = 20.0


class Image(NamedTuple):
    """What a disk held, read like an engine."""

    rows: Mapping[bytes, bytes]

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(((key, row) for key, row in self.rows.items() if start <= key < end), reverse=reverse))


class Taken(NamedTuple):
    """A snapshot, and what it may hold."""

    map: ClusterMap
    images: dict[NodeId, Image]
    is_complete: bool
    allowed: dict[tuple[str, bytes], set[bytes | None]]


class Known:
    """What is known of one key."""

    def __init__(self) -> None:
        self.possible: set[bytes | None] = {None}
        self.unknown: set[bytes | None] = set()
        self.begun: list[bytes | None] = []

    async def write(self, value: bytes | None, work: Awaitable[object]) -> None:
        self.possible.add(value)
        self.begun.append(value)
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if task.done() and not task.cancelled() and task.exception() is None:
            self.possible = {value, *self.unknown}
        else:
            task.cancel()
            self.unknown.add(value)


class Hunt:
    """One cluster, one seed; ``moves``: partitions change hands all the time."""

    def __init__(self, seed: int, *, moves: bool = False) -> None:
        self._moves = moves
        self.torn = 0
        """Snapshots that were refused because checkpoints were of several placements."""
        self.rng = random.Random(seed)
        self.world = World(seed, machines=self.rng.choice((3, 3, 4, 5)), partitions=PARTITIONS)
        self.cuts, self.crashes = self.rng.choice(((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.5, 0.5)))
        self.known: dict[tuple[str, bytes], Known] = {}
        self.snapshots: list[Taken] = []
        self.refused = 0
        self.violations: list[str] = []
        self.has_crashed = False
        self._is_over = False

    def run(self) -> list[str]:
        """Return what was wrong with the snapshots of one run."""
        self.world.run(self._play)
        self.violations += [str(error) for error in self.world.errors()]
        return self.violations

    async def _play(self, world: World) -> None:
        for machine in world.machines:
            machine.purge_interval_s, machine.purge_margin_us, machine.repair_interval_s = 1.0, 200_000, 0.5
        await world.start()
        self.loose = await world.table("loose")
        self.led = await world.table("led", replication="leader")
        await asyncio.sleep(3.0)
        clients = [self._client(self._loose_write, "loose", key) for key in KEYS]
        clients += [self._client(self._sloppy_write, "loose", key) for key in SLOPPY]
        clients += [self._client(self._led_write, "led", key) for key in KEYS]
        clients += [self._client(self._pair_write, "led", *pair) for pair in PAIRS]
        background = [self._trouble(), self._snapshots(), *([self._move_partitions()] if self._moves else [])]
        work = [asyncio.ensure_future(one) for one in (*clients, *background)]
        await asyncio.sleep(RUN_S)
        self._is_over = True
        for ended in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    # Clients

    async def _client(self, write: Callable[..., Awaitable[None]], table: str, *names: bytes) -> None:
        for name in names:
            self.known[table, name] = Known()
        number, pause_s = 0, self.rng.choice((0.1, 1.0, 4.0))
        while not self._is_over:
            await asyncio.sleep(self.rng.expovariate(1 / pause_s))
            machine = self._any_machine()
            if machine is not None:
                number += 1
                value = None if self.rng.random() < 0.4 else b"%d" % number
                await write(machine, value, *names)

    async def _loose_write(self, machine: Machine, value: bytes | None, name: bytes) -> None:
        await self.known["loose", name].write(value, put(machine, self.loose, name, value))

    async def _sloppy_write(self, machine: Machine, value: bytes | None, name: bytes) -> None:
        await self.known["loose", name].write(value, put(machine, self.loose, name, value, level=WriteQuorums(w=1)))

    async def _led_write(self, machine: Machine, value: bytes | None, name: bytes) -> None:
        change = member(machine).leader_tables.leader_based.change(
            self.led, key_of(self.led, name), WIRES, payload_of(Put(value)), deadline=now_s() + 2.0
        )
        await self.known["led", name].write(value, machine.spawn(change))

    async def _pair_write(self, machine: Machine, value: bytes | None, one: bytes, other: bytes) -> None:
        items = [TransactItem(self.led, key_of(self.led, name), payload_of(Put(value))) for name in (one, other)]
        task = machine.spawn(member(machine).leader_tables.transactions.write(items, deadline=now_s() + 2.0))
        await asyncio.gather(*(self.known["led", name].write(value, asyncio.shield(task)) for name in (one, other)))

    # Faults

    def _any_machine(self) -> Machine | None:
        up = [machine for machine in self.world.machines if machine.is_up and machine.member is not None]
        return self.rng.choice(up) if up else None

    async def _trouble(self) -> None:
        while self.cuts + self.crashes > 0 and not self._is_over:
            await asyncio.sleep(self.rng.uniform(0.2, 2.0))
            victim = self.rng.choice(self.world.machines)
            if self.rng.random() < self.cuts:
                self.world.cut_off(victim)
                await asyncio.sleep(self.rng.uniform(0.5, 3.0))
                self.world.network.heal()
            else:
                self.has_crashed = True  # and begins again with a clock that is ahead
                victim.crash()
                await asyncio.sleep(self.rng.uniform(0.1, 3.0))
                victim.start()
                await self.world.up(victim)
        self.world.network.heal()

    async def _move_partitions(self) -> None:
        """Give nodes other weights, again and again; what is under way ends first."""
        while not self._is_over:
            await asyncio.sleep(self.rng.uniform(0.05, 0.3))
            machine = self._any_machine()
            if machine is None or member(machine).topology.map.operation is not None:
                continue
            weights = {node.id: self.rng.choice((0.3, 1.0, 2.0)) for node in member(machine).topology.map.nodes}
            name = f"{self.rng.getrandbits(32):08x}"

            def begun(newest: ClusterMap, weights: dict[NodeId, float] = weights, name: str = name) -> ClusterMap:
                plan = reshaping.planned(newest, "weights", operation_id=name, now_us=EPOCH_US, weights=weights)
                return reshaping.begun(newest, plan.operation, plan.weights)

            asked = machine.spawn(member(machine).catalog.change(begun, deadline=now_s() + 2.0))
            await asyncio.wait({asked}, timeout=3.0)
            if asked.done() and not asked.cancelled() and not isinstance(asked.exception(), MerganserError | None):
                raise asked.exception() or AssertionError

    # Snapshots, as the command takes them

    async def _snapshots(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self.rng.uniform(0.2, 1.5))
            await self._snapshot()

    async def _snapshot(self) -> None:
        known = self.known
        began = {place: (set(one.possible), len(one.begun)) for place, one in known.items()}
        images = await self._checkpoints()
        maps = [found for image in images.values() if (found := load_map(image)) is not None]
        if maps and not snapshots.are_of_one_ring(maps):
            self.torn += 1
            return
        if not maps or not is_enough(snapshots.newest(maps), images):
            self.refused += 1
            return
        allowed = {place: before | set(known[place].begun[at:]) for place, (before, at) in began.items()}
        is_complete = len(images) == len(self.world.machines)
        taken = Taken(snapshots.newest(maps), images, is_complete, allowed)
        self.snapshots.append(taken)
        self._judge(taken)

    async def _checkpoints(self) -> dict[NodeId, Image]:
        token = f"{self.rng.getrandbits(32):08x}"
        standing = [machine for machine in self.world.machines if machine.is_up and machine.member is not None]
        if self.rng.random() < 0.2:
            standing = [machine for machine in standing if self.rng.random() < 0.6]  # whom the command reaches
        for machine in standing:
            if not member(machine).horizons.doubted():
                begin_standstill(machine, token)
        taken = await asyncio.gather(*(self._checkpoint(machine, token) for machine in standing))
        for machine in standing:
            if machine.member is not None:
                machine.member.standstill.end(token)
        return {machine.node: image for machine, image in zip(standing, taken, strict=True) if image is not None}

    async def _checkpoint(self, machine: Machine, token: str) -> Image | None:
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, APART_S))))
        if machine.member is None or not machine.member.standstill.is_of(token):
            return None
        try:
            task = machine.spawn(machine.engine.durable())
            await asyncio.wait({task}, timeout=PATIENCE_S)
            is_whole = task.done() and task.exception() is None and machine.member is not None
            return Image(machine.image()) if is_whole and machine.member.standstill.is_of(token) else None
        except MerganserError:
            return None

    def _judge(self, taken: Taken) -> None:
        try:
            found = contents(taken)
        except CorruptionError as error:
            self.violations.append(f"{now_s():.1f} s: a snapshot that is enough cannot be read: {error}")
            return
        delicate = {name for pair in PAIRS for name in pair}
        lenient = set(SLOPPY) if self.has_crashed else set()
        for (table, name), allowed in taken.allowed.items():
            value = found[table].get(name)
            is_promised = name not in lenient and (taken.is_complete or name not in {*delicate, *SLOPPY})
            if value not in allowed and is_promised:
                self.violations.append(f"{now_s():.1f} s: {table} {name!r} is {value!r}, none of {allowed}")
        for one, other in PAIRS:
            if taken.is_complete and found["led"].get(one) != found["led"].get(other):
                self.violations.append(
                    f"{now_s():.1f} s: {one!r} is {found['led'].get(one)!r} and {other!r} {found['led'].get(other)!r}"
                )


def begin_standstill(machine: Machine, token: str) -> None:
    """Have a machine stand still."""
    member(machine).standstill.begin(token, STANDSTILL_S)


def is_enough(current: ClusterMap, images: Mapping[NodeId, Image]) -> bool:
    """Tell whether a snapshot may be made of these."""
    return not snapshots.short_of_replicas(current, images) and not snapshots.lacks_voters(current, images)


def tables_of(taken: Taken) -> list[Table]:
    """Return the tables of clients."""
    return snapshots.clients_tables(taken.map, systems=("system",))


def contents(taken: Taken) -> dict[str, dict[bytes, bytes | None]]:
    """Return what a snapshot holds, by table and name."""
    return contents_of(taken.map, taken.images, PARTITIONS)


def contents_of(
    current: ClusterMap, images: Mapping[NodeId, Image], partitions: int
) -> dict[str, dict[bytes, bytes | None]]:
    """Return what checkpoints hold together, by table and name."""
    copies = Copies(current, images, now_s=0)
    found: dict[str, dict[bytes, bytes | None]] = {}
    for table in snapshots.clients_tables(current, systems=("system",)):
        here = found[table.name] = {}
        for partition in range(partitions):
            for key, content in copies.of(table, PartitionId(partition), Counted()):
                here[keys.split_row_key(key)[2]] = value_of(key, content)
    return found


def value_of(key: bytes, content: Register | bytes) -> bytes | None:
    """Return what a client would read."""
    return content.value if isinstance(content, Register) else rows.live_value(decode_row(key, content), CELL, 0)


class Restore:
    """A cluster of another size into which a snapshot is restored, with a crash on the way."""

    def __init__(self, seed: int, taken: Taken) -> None:
        self.rng = random.Random(seed)
        self.taken = taken
        self.world = World(seed, machines=self.rng.choice((2, 4)), partitions=self.rng.choice((8, 16)))
        self.violations: list[str] = []

    def run(self) -> list[str]:
        """Return what is not as the snapshot has it."""
        self.world.run(self._play)
        return [*self.violations, *(str(error) for error in self.world.errors())]

    async def _play(self, world: World) -> None:
        await world.start()
        wanted = [
            WantedTable("sim", table.name, snapshots.hidden_name("0" * 64, table.name), 3, table.replication, b"")
            for table in tables_of(self.taken)
        ]
        trouble = asyncio.ensure_future(self._crash())
        ids = await self._insist(lambda one: one.restored_rows.make(wanted, ["u", "v"], deadline=now_s() + 5.0))
        tables = [TableId(table.id) for table in ids]
        copies = Copies(self.taken.map, self.taken.images, now_s=0)
        for old, new in zip(tables_of(self.taken), tables, strict=True):
            for partition in range(PARTITIONS):
                chunk = list(moved(copies.of(old, PartitionId(partition), Counted()), new))
                await self._insist(
                    lambda one: one.restored_rows.put(new, chunk, deadline=now_s() + 5.0)  # noqa: B023
                )
        assert all(member(machine).catalog.tables("sim") == [] for machine in world.machines if machine.member)
        names = {new: one.name for new, one in zip(tables, wanted, strict=True)}
        await self._insist(lambda one: one.restored_rows.reveal(names, deadline=now_s() + 5.0))
        await trouble
        await asyncio.sleep(5.0)
        await self._compare({one.name: one for one in member(world.machines[0]).catalog.tables("sim")})

    async def _compare(self, tables: Mapping[str, Table]) -> None:
        for name, expected in contents(self.taken).items():
            table = tables[name]
            assert not is_index(table)
            for key in {known for where, known in self.taken.allowed if where == name}:
                machine = self.rng.choice(self.world.machines)
                value = await (self._led(machine, table, key) if table.has_leaders else get(machine, table, key))
                if value != expected.get(key):
                    self.violations.append(f"{name} {key!r} was restored as {value!r}, not {expected.get(key)!r}")
                before = value
                await self._overwrite(machine, table, key)
                value = await (self._led(machine, table, key) if table.has_leaders else get(machine, table, key))
                if value != b"later":
                    self.violations.append(f"{name} {key!r} is {value!r} after a write, and was {before!r}")

    async def _overwrite(self, machine: Machine, table: Table, name: bytes) -> None:
        if not table.has_leaders:
            await put(machine, table, name, b"later")
            return
        step, key = payload_of(Put(b"later")), key_of(table, name)
        based = member(machine).leader_tables.leader_based
        await machine.spawn(based.change(table, key, WIRES, step, deadline=now_s() + 5.0))

    async def _led(self, machine: Machine, table: Table, name: bytes) -> bytes | None:
        based = member(machine).leader_tables.leader_based
        read = based.read(table, key_of(table, name), is_consistent=True, deadline=now_s() + 5.0)
        return (await machine.spawn(read)).value

    async def _crash(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 0.2))
        victim = self.rng.choice(self.world.machines)
        victim.crash()
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))
        victim.start()
        await self.world.up(victim)

    async def _insist(self, work: Callable[[Any], Any]) -> Any:
        """Do it through one machine after another until it is done, as the command does."""
        for _ in range(60):
            machine = self.rng.choice(self.world.machines)
            if machine.member is not None:
                task = machine.spawn(work(machine.member))
                await asyncio.wait({task}, timeout=8.0)  # what runs on a machine that dies never ends
                if task.done() and task.exception() is None:
                    return task.result()
            await asyncio.sleep(0.3)
        raise AssertionError("it could not be done in time")


def moved(rows_of: Iterator[tuple[bytes, Register | bytes]], new: TableId) -> Iterator[tuple[bytes, bytes]]:
    """Yield rows under the keys that they have in another table."""
    for key, content in rows_of:
        there = new.to_bytes(4, "big") + key[4:]
        yield there, (content.value or b"") if isinstance(content, Register) else seal(there, unseal(key, content))


def hunt(seeds: Sequence[int]) -> list[str]:
    """Return what was wrong in the first run in which anything was."""
    for seed in seeds:
        wrong = Hunt(seed).run()
        if wrong:
            return [f"seed {seed}: {one}" for one in wrong]
    return []
