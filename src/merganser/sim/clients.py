"""What the clients of a run can do; everything they ask and hear goes into its history.

A request runs on the machine it is sent to and dies with it; its client then never hears, and the
outcome stays unknown. Every answer is told to the timeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from merganser.core import rows
from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, Need, Part, ReadLevel, WriteLevel, needed_to_read, needed_to_write
from merganser.model.consistency import name_of as name_of_level
from merganser.model.errors import InvariantError, MerganserError, RequestError, UnavailableError
from merganser.model.row import CellWrite, Mutation, Row
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.service.member import Member
from merganser.service.range_merge import RangePage
from merganser.sim.history import Failure, History, Read, Scan, Write
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys

CELL = b"value"
REQUEST_TIMEOUT_S = 2.0
CLIENT_TIMEOUT_S = 3.0  # beyond its deadline a coordinator may still have to mint a timestamp
PAGE_ATTEMPTS = 5

T = TypeVar("T")


class Clients:
    """The clients of one run on one table; see the module's docstring."""

    def __init__(self, world: World, table: Table, history: History, *, think_s: float) -> None:
        """Ask the machines of ``world``, pausing ``think_s`` on average between requests."""
        self.world = world
        self.table = table
        self.history = history
        self.rng = world.rng
        self._loop = world.loop
        self._think_s = think_s
        self._values = 0
        self.is_admission_asked = False
        """Half of the requests go through the gate that the wires go through, the others come on top, as further items
        of a batch do; refusals are expected."""

    def now_s(self) -> float:
        """Return the virtual time."""
        return self._loop.time()

    async def think(self) -> None:
        """Pause as a client does between two requests."""
        await asyncio.sleep(self.rng.expovariate(1 / self._think_s))

    def any_node(self) -> Machine | None:
        """Return a machine to talk to; None if the one drawn does not answer the phone."""
        machine = self.rng.choice(self.world.machines)
        return machine if machine.is_up and machine.member is not None else None

    async def turns(self, operations: int) -> AsyncIterator[Machine]:
        """Yield a machine to talk to for each of so many operations, after a pause; who does not answer is left out."""
        for _ in range(operations):
            await self.think()
            machine = self.any_node()
            if machine is not None:
                yield machine

    def key(self, name: str, sort_key: str = "") -> bytes:
        """Return the key of a row of the table."""
        return keys.row_key(self.table.id, token_of(name.encode()), name.encode(), sort_key.encode())

    def new_value(self) -> bytes:
        """Return a value that no other write carries."""
        self._values += 1
        return f"value-{self._values}".encode()

    async def write(
        self,
        machine: Machine,
        key: bytes,
        value: bytes | None,
        *,
        client: int,
        level: WriteLevel = Consistency.QUORUM,
        lives_s: int | None = None,
        table: Table | None = None,
    ) -> Write:
        """Write ``value`` (None deletes), to expire ``lives_s`` from now on the machine's clock."""
        table = table or self.table
        expires_at_s = None if lives_s is None else machine.wall_us() // 1_000_000 + lives_s
        write = Write(key, value, self._loop.time(), client=client, expires_at_s=expires_at_s)
        need = self._by_data_center(machine, level)
        write.places = self._places(need)
        need = need or needed_to_write(level, min(table.n, len(self.world.machines)))
        write.replicas, write.nodes = need.primaries, need.nodes
        self.history.writes.append(write)
        mutation = _mutation(value, expires_at_s, replaces=self.rng.random() < 0.2)
        work = member_of(machine).coordinator.write(table, key, mutation, level=level, deadline=self._deadline())
        what = f"{'delete' if value is None else 'write'} {name_of(key)} {value!r} at {name_of_level(level)}"
        task = await self.ask(machine, work, what, client)
        self._note_failure(task, Failure(what, key, machine.node, need, write.began_s, self._loop.time()))
        if not task.done():
            return write
        error = task.exception()
        if error is None:
            write.minted = task.result()
            write.timestamp = rows.newest(rows.stamp(mutation, write.minted))
            write.acked_s = self._loop.time()
        elif isinstance(error, UnavailableError | RequestError):
            write.is_certainly_unwritten = True
        elif not isinstance(error, MerganserError):
            raise error
        return write

    async def read(
        self,
        machine: Machine,
        key: bytes,
        *,
        client: int,
        level: ReadLevel = Consistency.QUORUM,
        table: Table | None = None,
    ) -> Read | None:
        """Read a row; None if there was no answer."""
        began_s = self._loop.time()
        work = member_of(machine).coordinator.read(table or self.table, key, level=level, deadline=self._deadline())
        what = f"read {name_of(key)} at {name_of_level(level)}"
        task = await self.ask(machine, work, what, client)
        need = self._by_data_center(machine, level) or needed_to_read(level, self.table.n)
        self._note_failure(task, Failure(what, key, machine.node, need, began_s, self._loop.time()))
        if not task.done() or _failed(task):
            return None
        return self._note_read(machine, key, task.result(), began_s, client, level)

    async def scan(self, *, client: int, is_reverse: bool) -> Scan:
        """Read the whole table page by page, each page through a drawn node, as far as it goes."""
        start, end = keys.table_range(self.table.id)
        scan = Scan(start, end, is_reverse, [], self._loop.time(), 0.0)
        failures = 0
        while failures < PAGE_ATTEMPTS:
            machine = self.any_node()
            page = None if machine is None else await self._page(machine, start, end, is_reverse, client)
            if page is None:
                failures += 1
                await self.think()
                continue
            scan.keys += [key for key, _ in page.rows]
            if page.resume is None:
                break
            start, end = (start, page.resume) if is_reverse else (page.resume, end)
        else:  # it stopped half way: what lies before is covered
            scan.low, scan.high = (end, scan.high) if is_reverse else (scan.low, start)
        scan.ended_s = self._loop.time()
        self.history.scans.append(scan)
        return scan

    async def ask(self, machine: Machine, work: Coroutine[Any, Any, T], what: str, client: int) -> asyncio.Task[T]:
        """Run ``work`` on ``machine`` and wait for it as long as a client would."""
        began_s = self._loop.time()
        if self.is_admission_asked and self.rng.random() < 0.5:
            work = _admitted(member_of(machine), work)
        task = machine.spawn(work)
        task.add_done_callback(_heed)  # what comes after its client has gone is nobody's
        await asyncio.wait([task], timeout=CLIENT_TIMEOUT_S)
        self._loop.tell(f"client {client} to {machine.address} at {began_s:.4f} s: {what} -> {_answer(task)}")
        return task

    async def _page(
        self, machine: Machine, start: bytes, end: bytes, is_reverse: bool, client: int
    ) -> RangePage | None:
        began_s = self._loop.time()
        work = member_of(machine).coordinator.read_range(
            self.table,
            start,
            end,
            reverse=is_reverse,
            level=Consistency.QUORUM,
            rows_max=self.rng.randint(1, 20),
            bytes_max=self.rng.choice((1, 300, 100_000)),
            deadline=self._deadline(),
        )
        what = f"scan {'back' if is_reverse else 'forth'}"
        task = await self.ask(machine, work, what, client)
        need = needed_to_read(Consistency.QUORUM, self.table.n)
        self._note_failure(task, Failure(what, None, machine.node, need, began_s, self._loop.time()))
        if not task.done() or _failed(task):
            return None
        page = task.result()
        for key, row in page.rows:
            self._note_read(machine, key, row, began_s, client, Consistency.QUORUM)
        return page

    def _note_read(
        self, machine: Machine, key: bytes, row: Row | None, began_s: float, client: int, level: ReadLevel
    ) -> Read:
        wall_us = machine.wall_us()
        value = None if row is None else rows.live_value(row, CELL, wall_us // 1_000_000)
        read = Read(key, value, rows.newest(row) if row else BEGINNING, began_s, self._loop.time(), client)
        need = self._by_data_center(machine, level)
        read.places = self._places(need)
        read.replicas, read.wall_s = (need or needed_to_read(level, self.table.n)).primaries, wall_us / 1e6
        self.history.reads.append(read)
        return read

    def _by_data_center(self, machine: Machine, level: WriteLevel | ReadLevel) -> Need | None:
        """Return what a level that counts by data centre needs through ``machine``, None if it is another level."""
        if not isinstance(level, Consistency) or not level.is_by_data_center:
            return None
        counts = self.history.n_in
        names = [machine.data_center] if level is not Consistency.EACH_QUORUM else list(counts)
        parts = tuple(
            Part(
                tuple(other.node for other in self.world.machines if other.data_center == name),
                level.required(counts.get(name, 1)),
            )
            for name in names
        )
        total = sum(part.required for part in parts)
        return Need(total, total, parts)

    def _places(self, need: Need | None) -> dict[str, int]:
        homes = {machine.node: machine.data_center for machine in self.world.machines}
        return {} if need is None else {homes[part.members[0]]: part.required for part in need.parts if part.members}

    def _note_failure(self, task: asyncio.Task[Any], failure: Failure) -> None:
        """Note ``failure`` unless ``task`` was answered, if only with what is wrong with the request."""
        error = task.exception() if task.done() else None
        if self.is_admission_asked and task.done():  # refused here, or by so many replicas that nobody knows
            return
        if not task.done() or (error is not None and not isinstance(error, RequestError)):
            self.history.failures.append(failure)

    def _deadline(self) -> float:
        return self._loop.time() + REQUEST_TIMEOUT_S


def member_of(machine: Machine) -> Member:
    """Return the member that runs on ``machine``.

    Raises:
        InvariantError: none does.
    """
    if machine.member is None:
        raise InvariantError(f"{machine.address} is not up")
    return machine.member


def name_of(key: bytes) -> str:
    """Return a key as people read it."""
    _, _, partition_key, sort_key = keys.split_row_key(key)
    return partition_key.decode() + ("/" + sort_key.decode() if sort_key else "")


async def _admitted(member: Member, work: Coroutine[Any, Any, T]) -> T:
    is_begun = False
    try:
        async with member.admission.requests:
            is_begun = True
            return await work
    finally:
        if not is_begun:  # a compiled coroutine that has ended must not be closed
            work.close()


def _mutation(value: bytes | None, expires_at_s: int | None, *, replaces: bool) -> Mutation:
    if value is None:
        return Mutation(deletes_row=True)
    return Mutation((CellWrite(CELL, value, expires_at_s),), deletes_row=replaces)


def _heed(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _failed(task: asyncio.Task[Any]) -> bool:
    error = task.exception()
    if error is not None and not isinstance(error, MerganserError):
        raise error
    return error is not None


def _answer(task: asyncio.Task[Any]) -> str:
    if not task.done():
        return "no answer"
    error = task.exception()
    return f"{type(error).__name__}: {error}" if error is not None else _told(task.result())


def _told(result: object) -> str:
    if result is None:
        return "nothing"
    if isinstance(result, RangePage):
        return f"{len(result.rows)} rows, {'the end' if result.resume is None else 'to be resumed'}"
    if isinstance(result, Row):
        return f"{rows.live_value(result, CELL, 0)!r} of {_told(rows.newest(result))}"
    if isinstance(result, Timestamp):
        return f"{(result.micros - EPOCH_US) / 1e6:.6f} s by node {result.writer}"
    return str(result)
