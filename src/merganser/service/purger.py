"""Raise horizons and drop what lies behind them: the rounds of `core.horizon`, and the purge that follows.

Every node goes through the partitions it holds once per interval and leads a round (`service.purge_round`) where one is
due. Rounds of several leaders for one partition do each other no harm. A round that does not come to its end in
time changes nothing but seals; the next one tries again. With a node of the cluster away no round completes, and
nothing is purged, however long it lasts: what that node holds may be all there is of a write.

A purge goes through a partition in slices, at a bounded rate, yielding to the loop between them.

Source: design §4; docs/internals/tombstones.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from merganser.core import rows, snapshots
from merganser.core.horizon import is_due
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, RefusedError, StorageFailedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import Complete, Done, Level, Seal, Sealed
from merganser.service.asking import Asker
from merganser.service.damage import Damage
from merganser.service.hash_trees import Change
from merganser.service.horizons import Horizons
from merganser.service.partition_gate import PartitionGate
from merganser.service.purge_round import PurgeRound, Synchronise
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.values import can_end, decode_row, encode_row

PURGE_INTERVAL_S = 86_400.0
MARGIN_US = 60_000_000  # as far apart as clocks may be: a round seals nobody's present
ROUND_TIMEOUT_S = (
    120.0  # a partition of a million equal rows is compared in seconds; hints may have to be delivered first
)
RETRY_S = 5.0  # between two attempts to become whole
LOOK_S = 60.0  # between two looks at a cluster without tables
SLICE_ROWS = 256  # decoded between two turns of the loop: about a millisecond
PURGE_ROWS_PER_S = 20_000  # some 5 µs each when they have to be decoded: a tenth of a core

SEAL_AHEAD = "seal_ahead"


class Rounded(msgspec.Struct, frozen=True):
    """What came of a round."""

    horizon_us: int
    """What the round was for; this node's horizon, if that was as far already."""
    problem: str | None
    """Why not all replicas have that horizon now; None if all have."""


class Purger:
    """Leads rounds, answers those of others, and purges; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        horizons: Horizons,
        engine: Engine,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        synchronise: Synchronise,
        rewrite: Callable[[Iterable[Change]], None],
        has_hints: Callable[..., bool] = lambda *_, **__: False,
        damage: Damage | None = None,
        admit: Callable[[], Awaitable[None]] | None = None,
        interval_s: float = PURGE_INTERVAL_S,
        margin_us: int = MARGIN_US,
    ) -> None:
        """Work on the partitions that this node holds.

        Args:
            synchronise: this node and a peer.
            rewrite: changes rows, all together; the old bytes have been read in the same turn of the loop.
            has_hints: (table, first_token, last_token, *, until_us): whether this node keeps a hint from before.
            damage: what a purge meets is noted there.
            admit: waits while clients need this node more.
        """
        self._topology = topology
        self._asker = asker
        self._horizons = horizons
        self._engine = engine
        self._wall_us = wall_us
        self._rng = rng
        self._catch_up = catch_up
        self._gate = PartitionGate(topology, catch_up=catch_up)
        self.synchronise = synchronise
        self._has_hints = has_hints
        self._damage = damage
        self._admit = admit
        self._rewrite = rewrite
        self.interval_s = interval_s
        """May be set at any time; pauses that have begun stay as long as they were."""
        self._margin_us = margin_us
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._work.set()
        horizons.when_changed(self._work.set)
        self.purged_rows = 0
        self.rounds_completed = 0
        self.rounds_given_up = 0
        self.last_problem: str | None = None

    # Leading a round

    async def round(self, table: Table, partition: PartitionId, *, deadline: float) -> Rounded:
        """Raise the horizon of every replica of a partition that this node holds to a minute ago.

        Args:
            deadline: loop time.
        """
        self._gate.leaderless(self._gate.held(self._topology.map.epoch, table.id, partition))
        horizon_us = self._wall_us() - self._margin_us
        if horizon_us <= self._horizons.horizon_us(table.id, partition):
            return Rounded(self._horizons.horizon_us(table.id, partition), None)
        problem = await _problem_of(self._leading(table, partition, horizon_us, deadline).run(), deadline)
        self.rounds_completed += problem is None
        self.rounds_given_up += problem is not None
        self.last_problem = problem
        return Rounded(horizon_us, problem)

    async def recover(self, table: Table, partition: PartitionId, *, deadline: float) -> str | None:
        """Become whole again after rows may have vanished, by comparing with all other replicas.

        Returns:
            what is in the way, None if nothing was.
        """
        asking = self._leading(table, partition, 0, deadline)

        async def recover() -> str | None:
            await asking.seal(asking.replicas)
            return await asking.level_only(self._topology.node)

        return await _problem_of(recover(), deadline)

    def _leading(self, table: Table, partition: PartitionId, horizon_us: int, deadline: float) -> PurgeRound:
        return PurgeRound(
            self._topology,
            self._asker,
            table,
            partition,
            horizon_us,
            deadline=deadline,
            catch_up=self._catch_up,
            synchronise=self.synchronise,
        )

    # Answering those of others

    async def seal(self, sender: NodeId, request: Seal) -> Sealed:
        """Promise, durably, to take no client write from before the seal.

        Raises:
            RefusedError: another epoch, no such table, a leader-based one, or the seal lies in this node's future.
        """
        self._gate.leaderless(await self._gate.admit(sender, request.map_epoch, request.table))
        if request.horizon_us > self._wall_us():
            raise RefusedError(SEAL_AHEAD, "the seal lies ahead of this node's clock: check the clocks of the nodes")
        await self._horizons.seal(request.table, request.partition, request.horizon_us)
        return self._sealed(request.table, request.partition, request.horizon_us)

    async def complete(self, sender: NodeId, request: Complete) -> Done:
        """Take over the horizon of a completed round, durably.

        Raises:
            RefusedError: the round cannot have counted on this node.
        """
        table = await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)
        self._gate.leaderless(table)
        await self._horizons.complete(request.table, request.partition, request.horizon_us, vow=request.vow)
        return Done()

    async def level(self, sender: NodeId, request: Level) -> Sealed:
        """Synchronise with others that are further, and adopt their horizon.

        Raises:
            RefusedError: not a replica, or another one does the same just now.
            MerganserError: whatever kept it from synchronising; nothing is adopted.
        """
        table = await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)
        self._gate.leaderless(table)
        place, deadline = (table.id, request.partition), self._loop.time() + request.timeout_ms / 1000
        vow = self._horizons.vow(*place)
        await self._horizons.seal(*place, request.horizon_us)
        with self._horizons.adopting(*place, request.horizon_us):
            await self._learn_from(table, request.partition, request.teachers, deadline=deadline)
            await self._horizons.adopt(*place, request.horizon_us, vow=vow)
        return self._sealed(*place, request.horizon_us)

    async def _learn_from(
        self, table: Table, partition: PartitionId, teachers: Sequence[NodeId], *, deadline: float
    ) -> None:
        """Synchronise with each of ``teachers``, with the others too if one cannot.

        Else one damaged row on the first would keep from the last what only this node has left, and the damage could
        not be healed from there.

        Raises:
            MerganserError: one of them could not; the first reason.
        """
        reasons: list[MerganserError] = []
        for teacher in teachers:
            try:
                await self.synchronise(table, partition, teacher, deadline=deadline)
            except InvariantError:
                raise
            except MerganserError as error:
                reasons.append(error)
        if reasons:
            raise reasons[0]

    def _sealed(self, table: TableId, partition: PartitionId, until_us: int) -> Sealed:
        standing = self._horizons.of(table, partition)
        first, last = self._topology.ring.token_range(partition)
        return Sealed(
            horizon_us=standing.horizon_us,
            is_whole=standing.is_whole,
            has_hints=self._has_hints(table, first, last, until_us=until_us),
            vow=self._horizons.vow(table, partition),
        )

    # In the background

    async def run(self) -> None:
        """Lead the rounds that are due, for as long as the node lives."""
        while True:
            held = self._held()
            self._rng.shuffle(held)
            epoch = self._topology.map.epoch
            if not held:
                await asyncio.sleep(min(LOOK_S, self.interval_s))
            for table, partition in held:
                await asyncio.sleep(self.interval_s / len(held) * self._rng.uniform(0.8, 1.2))
                if self._topology.map.epoch != epoch:
                    break
                if self._is_due(table, partition):
                    await self.round(table, partition, deadline=self._loop.time() + ROUND_TIMEOUT_S)

    async def work_off(self) -> None:
        """Recover and purge wherever there is something to, for as long as the node lives."""
        while True:
            await self._work.wait()
            self._work.clear()
            if self._engine.failure is not None:
                return
            is_well = True
            for table_id, partition in self._horizons.doubted():
                table = self._topology.table(table_id)
                if table is not None and self._engine.lost is None:  # else it is for service.wholeness
                    deadline = self._loop.time() + ROUND_TIMEOUT_S
                    is_well &= await self.recover(table, partition, deadline=deadline) is None
            try:
                for table_id, partition in self._horizons.unpurged():
                    await self.purge(table_id, partition)
            except StorageFailedError:  # the engine has told whoever is to know
                return
            if not is_well:
                self._loop.call_later(RETRY_S, self._work.set)

    async def purge(self, table: TableId, partition: PartitionId) -> int:
        """Drop what is over in a partition up to this node's horizon; returns how many rows changed.

        Rows that are damaged stay as they are. A block that the engine cannot read ends the purge; a later one goes on.
        """
        horizon_us, changed, ring = self._horizons.horizon_us(table, partition), 0, self._topology.ring.partitions
        first, last = self._topology.ring.token_range(partition)
        position, end = keys.token_range(table, first, last)
        while horizon_us > 0 and self._horizons.horizon_us(table, partition) >= horizon_us:
            if self._topology.ring.partitions != ring:  # this is another partition by now
                return changed
            try:
                rows_read = list(islice(self._engine.scan(position, end), SLICE_ROWS))
            except CorruptionError:
                if self._damage is not None:
                    self._damage.met_somewhere(table, position, end)
                return changed
            changes = self._purged_of(table, rows_read, horizon_us)
            if changes:
                self._rewrite(changes)
                changed += len(changes)
                self.purged_rows += len(changes)
            if len(rows_read) < SLICE_ROWS:
                await self._horizons.note_purged(table, partition, horizon_us)
                break
            position = keys.after(rows_read[-1][0])
            await asyncio.sleep(SLICE_ROWS / PURGE_ROWS_PER_S)
            if self._admit is not None:
                await self._admit()
        return changed

    def _purged_of(self, table: TableId, rows_read: Iterable[tuple[bytes, bytes]], horizon_us: int) -> list[Change]:
        changes: list[Change] = []
        for key, stored in rows_read:
            try:
                change = _purged(table, key, stored, horizon_us)
            except CorruptionError:
                if self._damage is not None:
                    self._damage.met_row(table, key)
                continue  # it stays as it is until it is healed
            if change is not None:
                changes.append(change)
        return changes

    def oldest_horizon_us(self, table: Table) -> int | None:
        """Return the lowest horizon of the partitions of ``table`` that this node holds; None if it holds none."""
        held = self._topology.held()
        return min((self._horizons.horizon_us(t.id, p) for t, p in held if t.id == table.id), default=None)

    def _held(self) -> list[tuple[Table, PartitionId]]:
        """Return where there are horizons to raise.

        Leader-based tables have none. What is restored comes from before any horizon, so none is raised before all is
        there.
        """
        return [
            (table, partition)
            for table, partition in self._topology.held()
            if not table.has_leaders and not snapshots.is_hidden(table)
        ]

    def _is_due(self, table: Table, partition: PartitionId) -> bool:
        replicas = self._topology.ring.preference_list(partition, table.rule)
        is_everyone_there = all(self._asker.is_reachable(node.id) for node in self._topology.map.nodes)
        return is_everyone_there and is_due(
            age_us=self._wall_us() - self._horizons.horizon_us(table.id, partition),
            interval_us=int(self.interval_s * 1e6),
            rank=replicas.index(self._topology.node),
        )


async def _problem_of(work: Coroutine[Any, Any, str | None], deadline: float) -> str | None:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        return "it took too long"
    except InvariantError:
        raise
    except MerganserError as error:
        return str(error)


def _purged(table: TableId, key: bytes, stored: bytes, horizon_us: int) -> Change | None:
    if not can_end(stored):
        return None
    row = decode_row(key, stored)
    left = rows.purged(row, horizon_us)
    if left is row:
        return None
    return table, key, stored, None if left is None else encode_row(key, left)
