"""Put what is damaged on this node's disk right, from what all other replicas hold: `core.healing`, carried out.

Whoever meets damage says so and goes on; the row stays refused meanwhile. There are two kinds of it::

    a row whose checksum does not hold --+
                                         +--> waiting --ripe--> ask all others --> put, durable --> forgotten
    a stretch that the engine cannot     |      ^                    |
    read (a block of its files) ---------+      +---- back off ------+

A stretch is healed row by row, as far as the others name its rows: what is put lies in a newer place of the engine
and hides the damaged one from `get`, so that reads and writes of each key work again. Ranges over it do not, because
the engine cannot pass the block; the stretch stays on the list, with the reason, until the database is made anew.

Bounded: so many wounds wait, each once; what does not fit is counted, and met again by the next scrub.

Source: docs/internals/healing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import msgspec

from merganser.core import healing
from merganser.core.hint_policy import backoff_s
from merganser.core.horizon import Standing
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, UnavailableError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import Found, Read, ReadRange, Reply, Request, Rows
from merganser.model.row import Row
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, error_of
from merganser.service.hash_trees import Change, HashTrees
from merganser.service.horizons import Horizons
from merganser.service.range_merge import merge_pages
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.values import decode_row, encode_row

WAITING_MAX = 10_000  # 2 MiB of keys; more at a time is no rot but a lost disk
AT_ONCE = 16
ANSWER_TIMEOUT_S = 5.0
PAGE_ROWS = 256
PAGE_BYTES = 1024 * 1024
HOPELESS_S = 3600.0  # a stretch that only a new database can put right is looked at again now and then


class Wound(msgspec.Struct):
    """A damaged row, or a stretch of keys that the engine cannot read."""

    table: TableId
    start: bytes
    """The key of the row, or where the stretch begins."""
    end: bytes | None
    """Where the stretch ends; None: a row."""
    found_at: float
    """Loop time."""
    due_at: float
    """When it is to be tried next; never before it is ripe."""
    tries: int = 0
    problem: str = "found just now: what was under way with it may yet end"


class Healing:
    """What is damaged on this node, and the work of healing it; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        horizons: Horizons,
        engine: Engine,
        trees: HashTrees,
        *,
        in_flight_s: float = healing.IN_FLIGHT_S,
        admit: Callable[[], Awaitable[None]] | None = None,
        on_damage: Callable[[str], None] = lambda _what: None,
    ) -> None:
        """Know of no damage.

        Args:
            in_flight_s: longer than any coordinator of the cluster waits for an answer.
            admit: waits while clients need this node more.
            on_damage: told of each wound when it is met first.
        """
        self._topology = topology
        self._asker = asker
        self._horizons = horizons
        self._engine = engine
        self._trees = trees
        self._in_flight_s = in_flight_s
        self._admit = admit
        self._on_damage = on_damage
        self._loop = asyncio.get_running_loop()
        self._wounds: dict[bytes, Wound] = {}
        self._work = asyncio.Event()
        self._tried = asyncio.Condition()
        self._suspects: dict[TableId, tuple[bytes, bytes]] = {}
        self._suspected = asyncio.Event()
        self.found = 0
        self.healed = 0
        """Wounds that are no more."""
        self.rows_put = 0
        """Rows that were replaced or removed for it."""
        self.overlooked = 0
        """Wounds that were not taken in, because too many wait."""

    @property
    def waiting(self) -> Sequence[Wound]:
        """What is damaged, oldest first."""
        return list(self._wounds.values())

    def met_row(self, table: TableId, key: bytes) -> None:
        """Take note that what is stored under ``key`` is damaged."""
        if key not in self._wounds:
            self._take(Wound(table, key, None, self._loop.time(), self._loop.time() + self._in_flight_s))

    def met_stretch(self, table: TableId, start: bytes, end: bytes) -> None:
        """Take note that the engine cannot read from ``start`` up to ``end``, in one partition."""
        known = self._wounds.get(start)
        if known is None:
            self._take(Wound(table, start, end, self._loop.time(), self._loop.time() + self._in_flight_s))
        elif known.end is not None and known.end < end:
            known.end = end

    def met_somewhere(self, table: TableId, start: bytes, end: bytes) -> None:
        """Take note that the engine could not read somewhere in a range, for the scrub to look there soon."""
        known_start, known_end = self._suspects.get(table, (start, end))
        self._suspects[table] = min(start, known_start), max(end, known_end)
        self._suspected.set()

    async def suspected(self) -> tuple[TableId, bytes, bytes]:
        """Wait for a range in which something cannot be read; it counts as looked at."""
        while not self._suspects:
            self._suspected.clear()
            await self._suspected.wait()
        table, (start, end) = self._suspects.popitem()
        return table, start, end

    def in_partition(self, table: Table, partition: PartitionId) -> list[Wound]:
        """Return the wounds of one partition."""
        start, end = self._topology.partition_range(table, partition, partition)
        return [wound for wound in self._wounds.values() if start <= wound.start < end]

    async def run(self) -> None:
        """Heal what is ripe, for as long as the node lives."""
        while True:
            now = self._loop.time()
            due = [wound for wound in self._wounds.values() if wound.due_at <= now][:AT_ONCE]
            if due:
                if self._admit is not None:
                    await self._admit()
                await asyncio.gather(*map(self._try, due))
                async with self._tried:
                    self._tried.notify_all()
            else:
                await self._rest()

    async def attempted(self, table: Table, partition: PartitionId, *, deadline: float) -> list[Wound]:
        """Try what is damaged in a partition as soon as it is ripe; return what is left once each was tried.

        Args:
            deadline: loop time; what was not tried by then is returned as it is.
        """
        before = {wound.start: wound.tries for wound in self.in_partition(table, partition)}
        for wound in self.in_partition(table, partition):
            wound.due_at = wound.found_at + self._in_flight_s
        self._work.set()

        def is_over() -> bool:
            return all(wound.tries > before.get(wound.start, wound.tries) for wound in self._left(before))

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline), self._tried:
                await self._tried.wait_for(is_over)
        return self.in_partition(table, partition)

    def _left(self, starts: Mapping[bytes, int]) -> list[Wound]:
        return [wound for start in starts if (wound := self._wounds.get(start)) is not None]

    def _take(self, wound: Wound) -> None:
        if len(self._wounds) >= WAITING_MAX:
            self.overlooked += 1
            return
        self._wounds[wound.start] = wound
        self.found += 1
        self._work.set()
        what = "row" if wound.end is None else "stretch that cannot be read"
        self._on_damage(f"table {wound.table}: damaged {what} at {wound.start[: keys.TOKEN_END + 32].hex()}")

    async def _rest(self) -> None:
        """Return when something is due, or was met."""
        self._work.clear()
        next_at = min((wound.due_at for wound in self._wounds.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(next_at):
                await self._work.wait()

    async def _try(self, wound: Wound) -> None:
        try:
            problem = await self._heal(wound)
        except InvariantError:
            raise
        except MerganserError as error:
            problem = str(error)
        if problem is None:
            self._wounds.pop(wound.start, None)
            self.healed += 1
            return
        wound.tries += 1
        wound.problem = problem
        wound.due_at = max(wound.due_at, self._loop.time() + backoff_s(wound.tries))

    async def _heal(self, wound: Wound) -> str | None:
        """Heal what is there to be healed; returns why it is not, None if it is."""
        table = self._topology.table(wound.table)
        if table is None or not self._holds(table, wound.start):
            return None  # its table was dropped, or its partition is another's
        if wound.end is not None:
            return await self._heal_stretch(table, wound, wound.end)
        if not self._is_damaged(wound.start):
            return None
        return await self._heal_row(table, wound.start)

    async def _heal_row(self, table: Table, key: bytes) -> str | None:
        place = (table.id, self._partition_of(key))
        standing, epoch = self._horizons.of(*place), self._topology.map.epoch
        answers = await self._ask_others(table, key, Read(epoch, table.id, key))
        others = [_heard(key, cast("Found", answer)) for answer in answers.values()]
        return await self._put(table, {key: others}, standing, epoch)

    async def _heal_stretch(self, table: Table, wound: Wound, end: bytes) -> str | None:
        """Put in place what the others hold of a stretch, page by page, as far as it cannot be read here."""
        position: bytes | None = wound.start
        while position is not None and not self._is_readable(position, end):
            standing, epoch = self._horizons.of(table.id, self._partition_of(position)), self._topology.map.epoch
            question = ReadRange(epoch, table.id, position, end, False, PAGE_ROWS, PAGE_BYTES)
            answers = await self._ask_others(table, position, question)
            pages = {node: cast("Rows", answer) for node, answer in answers.items()}
            merged = merge_pages(pages, reverse=False)
            damaged = {
                key: [_read(key, held[node], pages[node]) for node in pages]
                for key, held in merged.answers
                if self._is_damaged(key)
            }
            problem = await self._put(table, damaged, standing, epoch) if damaged else None
            if problem is not None:
                return problem
            position = merged.resume
            if self._admit is not None:
                await self._admit()
        if self._is_readable(wound.start, end):
            return None
        wound.due_at = self._loop.time() + HOPELESS_S
        return (
            "each row can be read and written again, but ranges cannot, as a block of the database is damaged: "
            "start the node with --rebuild"
        )

    async def _put(
        self,
        table: Table,
        damaged: Mapping[bytes, Sequence[tuple[Row | None, int]]],
        standing: Standing,
        epoch: int,
    ) -> str | None:
        """Put in place of damaged rows of one partition what the others said; None when it is durable."""
        partition = self._partition_of(next(iter(damaged)))
        if self._horizons.of(table.id, partition) != standing or self._topology.map.epoch != epoch:
            return "the partition changed while the other replicas were asked"
        floor_us = self._horizons.floor_us(table.id, partition)
        changes: list[Change] = []
        for key, others in damaged.items():
            healed = healing.healed(others, standing, floor_us=floor_us)
            if healed is None:
                return "the partition is being compared with another replica"
            if healed.is_distrusted:
                await self._horizons.distrust(table.id, partition)
                return (
                    "the horizons of the replicas differ: the partition is compared with them before it answers again"
                )
            if self._is_damaged(key):
                row = None if healed.row is None else encode_row(key, healed.row)
                changes.append((table.id, key, self._damaged_bytes(key), row))
        if changes:
            await self._replace(table.id, partition, changes)
        return None

    async def _replace(self, table: TableId, partition: PartitionId, changes: Sequence[Change]) -> None:
        """Change rows, count their leaves, as the trees cannot know what of damaged rows they had counted; durably."""
        self._trees.write(changes)
        for leaf in {self._trees.leaf_of(table, partition, key) for _, key, _, _ in changes}:
            with contextlib.suppress(CorruptionError):  # a block of it cannot be read: it stays on the list
                self._trees.recount(table, partition, leaf)
        self.rows_put += len(changes)
        await self._engine.durable()

    async def _ask_others(self, table: Table, key: bytes, question: Request) -> dict[NodeId, Reply]:
        """Return what all other replicas answer.

        Raises:
            MerganserError: one of them did not, or there is none.
        """
        others = [node for node in self._topology.replicas(table, key) if node != self._topology.node]
        if not others:
            raise UnavailableError("no other replica holds it: it can only come back from a backup")
        futures = {
            node: self._asker.ask(node, question, timeout_s=ANSWER_TIMEOUT_S, traffic=Traffic.BULK) for node in others
        }
        await asyncio.wait(futures.values())
        for node, future in futures.items():
            error = error_of(future)
            if isinstance(error, MerganserError):
                raise UnavailableError(f"{node}, which holds it too, does not tell: {error}") from error
            if error is not None:
                raise error
        return {node: future.result() for node, future in futures.items()}

    def _holds(self, table: Table, key: bytes) -> bool:
        return self._topology.ring.holds(self._topology.node, self._partition_of(key), table.n)

    def _partition_of(self, key: bytes) -> PartitionId:
        return self._topology.ring.partition_of(keys.token_in(key))

    def _is_damaged(self, key: bytes) -> bool:
        try:
            stored = self._engine.get(key)
            if stored is not None:
                decode_row(key, stored)
        except CorruptionError:
            return True
        return False

    def _damaged_bytes(self, key: bytes) -> bytes | None:
        """Return what is stored, None if the engine cannot read it."""
        try:
            return self._engine.get(key)
        except CorruptionError:
            return None

    def _is_readable(self, start: bytes, end: bytes) -> bool:
        try:
            for _ in self._engine.scan(start, end):
                pass
        except CorruptionError:
            return False
        return True


def _heard(key: bytes, answer: Found) -> tuple[Row | None, int]:
    return None if answer.row is None else decode_row(key, answer.row), answer.horizon_us


def _read(key: bytes, stored: bytes | None, page: Rows) -> tuple[Row | None, int]:
    return None if stored is None else decode_row(key, stored), page.horizons[0] if page.horizons else 0
