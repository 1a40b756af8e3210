"""Put what is damaged on this node's disk right, from what all other replicas hold: `core.healing`, carried out.

Whoever meets damage notes it (`service.damage`) and goes on; the row stays refused meanwhile. There are two kinds::

    a row whose checksum does not hold --+
                                         +--> waiting --ripe--> ask all others --> put, durable --> forgotten
    a stretch that the engine cannot     |      ^                    |
    read (a block of its files) ---------+      +---- back off ------+

A stretch is healed row by row, as far as the others name its rows: what is put lies in a newer place of the engine
and hides the damaged one from `get`, so that reads and writes of each key work again. Ranges over it do not, because
the engine cannot pass the block; the stretch stays on the list, with the reason, until the database is made anew.

Source: docs/internals/healing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from merganser.core import healing
from merganser.core.hint_policy import backoff_s
from merganser.core.horizon import Standing
from merganser.core.wholeness import LOST
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, RefusedError, UnavailableError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import Found, Read, ReadRange, Reply, Request, Rows
from merganser.model.row import Row
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, error_of
from merganser.service.damage import Damage, Wound
from merganser.service.hash_trees import Change, HashTrees
from merganser.service.horizons import Horizons
from merganser.service.range_merge import merge_pages
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register
from merganser.storage.values import decode_row, encode_row

AT_ONCE = 16
ANSWER_TIMEOUT_S = 5.0
PAGE_ROWS = 256
PAGE_BYTES = 1024 * 1024
KEYS_AT_ONCE = 64  # of registers, that a leader may have to ask for one by one
HOPELESS_S = 3600.0  # a stretch that only a new database can put right is looked at again now and then

Settle = Callable[[Table, PartitionId, Sequence[bytes]], Awaitable[int]]


class Healing:
    """The work of healing; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        horizons: Horizons,
        engine: Engine,
        trees: HashTrees,
        damage: Damage,
        *,
        admit: Callable[[], Awaitable[None]],
    ) -> None:
        """Work off ``damage``; ``admit`` waits while clients need this node more."""
        self._topology = topology
        self._asker = asker
        self._horizons = horizons
        self._engine = engine
        self._trees = trees
        self._damage = damage
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._tried = asyncio.Condition()
        self.settle: Settle = _nobody_settles
        """Makes damaged registers right, on leader-based tables."""
        self.healed = 0
        """Wounds that are no more."""
        self.rows_put = 0
        """Rows that were replaced or removed for it."""

    async def run(self) -> None:
        """Heal what is ripe, for as long as the node lives."""
        while True:
            now = self._loop.time()
            due = [wound for wound in self._damage.wounds.values() if wound.due_at <= now][:AT_ONCE]
            if due:
                await self._admit()
                await asyncio.gather(*map(self._try, due))
                async with self._tried:
                    self._tried.notify_all()
            else:
                await self._rest()

    async def attempted(self, table: Table, partition: PartitionId, *, deadline: float) -> list[Wound]:
        """Try what is damaged in a partition as soon as it is ripe; return what is left once each was tried.

        Args:
            table: known here.
            partition: held here.
            deadline: loop time; what was not tried by then is returned as it is.
        """
        range_ = self._topology.partition_range(table, partition, partition)
        before = {wound.start: wound.tries for wound in self._damage.within(*range_)}
        for wound in self._damage.within(*range_):
            wound.due_at = wound.ripe_at
        self._damage.news.set()

        def is_over() -> bool:
            wounds = self._damage.wounds
            return all(wounds[start].tries > tries for start, tries in before.items() if start in wounds)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline), self._tried:
                await self._tried.wait_for(is_over)
        return self._damage.within(*range_)

    async def _rest(self) -> None:
        """Return when something is due, or was met."""
        self._damage.news.clear()
        next_at = min((wound.due_at for wound in self._damage.wounds.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(next_at):
                await self._damage.news.wait()

    async def _try(self, wound: Wound) -> None:
        try:
            problem = await self._heal(wound)
        except InvariantError:
            raise
        except MerganserError as error:
            problem = str(error)
        if problem is None:
            self._damage.forget(wound)
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
        if not self._is_damaged(table, wound.start):
            return None
        if table.has_leaders:
            return await self._heal_registers(table, [wound.start])
        return await self._heal_row(table, wound)

    async def _heal_row(self, table: Table, wound: Wound) -> str | None:
        key = wound.start
        place = (table.id, self._partition_of(key))
        standing, epoch = self._horizons.of(*place), self._topology.map.epoch
        answers = await self._ask_others(table, key, Read(epoch, table.id, key), wound)
        others = [_heard(key, cast("Found", answer)) for answer in answers.values()]
        return await self._put(table, {key: others}, standing, epoch)

    async def _heal_stretch(self, table: Table, wound: Wound, end: bytes) -> str | None:
        """Put in place what the others hold of a stretch, page by page, as far as it cannot be read here."""
        position: bytes | None = wound.start
        while position is not None and not self._is_readable(position, end):
            standing, epoch = self._horizons.of(table.id, self._partition_of(position)), self._topology.map.epoch
            _, beyond = self._topology.partition_range(table, place := self._partition_of(position), place)
            question = ReadRange(epoch, table.id, position, min(end, beyond), False, PAGE_ROWS, PAGE_BYTES)
            answers = await self._ask_others(table, position, question, wound)
            pages = {node: cast("Rows", answer) for node, answer in answers.items()}
            merged = merge_pages(pages, reverse=False)
            damaged = {key: held for key, held in merged.answers if self._is_damaged(table, key)}
            if table.has_leaders:
                problem = await self._heal_registers(table, list(damaged))
            else:
                rows = {key: [_read(key, held[node], pages[node]) for node in pages] for key, held in damaged.items()}
                problem = await self._put(table, rows, standing, epoch) if rows else None
            if problem is not None:
                return problem
            position = merged.resume or (beyond if beyond < end else None)
            await self._admit()
        if self._is_readable(wound.start, end):
            return None
        wound.due_at = self._loop.time() + HOPELESS_S
        return (
            "each row can be read and written again, but ranges cannot, as a block of the database is damaged: "
            "start the node with --rebuild"
        )

    async def _heal_registers(self, table: Table, damaged: Sequence[bytes]) -> str | None:
        """Have the leader make registers of one partition right: what the others hold is not this node's to judge."""
        for at in range(0, len(damaged), KEYS_AT_ONCE):
            wanted = damaged[at : at + KEYS_AT_ONCE]
            self.rows_put += await self.settle(table, self._partition_of(wanted[0]), wanted)
        return None

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
            if self._is_damaged(table, key):
                row = None if healed.row is None else encode_row(key, healed.row)
                changes.append((table.id, key, self._damaged_bytes(key), row))
        if changes:
            await self._replace(table.id, partition, changes)
        return None

    async def _replace(self, table: TableId, partition: PartitionId, changes: Sequence[Change]) -> None:
        """Change damaged rows, durably."""
        self._trees.replace(table, partition, changes)
        self.rows_put += len(changes)
        await self._engine.durable()

    async def _ask_others(self, table: Table, key: bytes, question: Request, wound: Wound) -> dict[NodeId, Reply]:
        """Return what all other replicas answer, but for those that have lost rows and do not become whole.

        Such a one waits for this replica to be well, and this one would wait for it. What it had left it has given
        to the others by then (`core.healing`, 7), as it tries again and again to become equal to each of them.

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
        if not any(_has_lost_rows(error_of(future)) for future in futures.values()):
            wound.lost_since = None
        for node, future in futures.items():
            error = error_of(future)
            if _has_lost_rows(error) and self._is_given_up(wound):
                others.remove(node)
                continue
            if isinstance(error, MerganserError):
                raise UnavailableError(f"{node}, which holds it too, does not tell: {error}") from error
            if error is not None:
                raise error
        if not others:
            raise UnavailableError("the other replicas have all lost rows: start one of them with --accept-loss")
        return {node: futures[node].result() for node in others}

    def _is_given_up(self, wound: Wound) -> bool:
        """Tell whether a replica that has lost rows has been waited for long enough."""
        if wound.lost_since is None:
            wound.lost_since = self._loop.time()
        return healing.is_given_up(lost_since_s=wound.lost_since, now_s=self._loop.time())

    def _holds(self, table: Table, key: bytes) -> bool:
        return self._topology.ring.holds(self._topology.node, self._partition_of(key), table.rule)

    def _partition_of(self, key: bytes) -> PartitionId:
        return self._topology.ring.partition_of(keys.token_in(key))

    def _is_damaged(self, table: Table, key: bytes) -> bool:
        try:
            stored = self._engine.get(key)
            if stored is not None:
                (decode_register if table.has_leaders else decode_row)(key, stored)
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


async def _nobody_settles(_table: Table, _partition: PartitionId, _keys: Sequence[bytes]) -> int:
    raise UnavailableError("this node knows no leaders to ask")


def _has_lost_rows(error: BaseException | None) -> bool:
    return isinstance(error, RefusedError) and error.code == LOST


def _heard(key: bytes, answer: Found) -> tuple[Row | None, int]:
    return None if answer.row is None else decode_row(key, answer.row), answer.horizon_us


def _read(key: bytes, stored: bytes | None, page: Rows) -> tuple[Row | None, int]:
    return None if stored is None else decode_row(key, stored), page.horizons[0] if page.horizons else 0
