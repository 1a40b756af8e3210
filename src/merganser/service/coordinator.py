"""Coordinate reads and writes of leaderless tables; any node does it for any key.

A write gets its timestamp here, goes to all N replicas of its key at once and is answered at W acks; who does
not ack gets a hint (`service.hinting`). If one of those replicas held something newer, this node's clock is
behind that of another: the clock learns, and the write is sent again with a timestamp that counts. So with
W + W > N a write outranks every write that was acknowledged before it began, whatever the clocks show.

A read asks R replicas, nearest first and one more when they are slow (where one is enough, and this node is one, it
answers out of what it holds, in the turn of the loop in which it is asked), merges what they hold, repairs those
that had less (`service.read_repair`), and answers. With R + W > N a read meets every write acknowledged before
it began, and everything that an earlier read of such a level returned. Where one of them has purged tombstones,
`core.horizon` says what the others may still add.

That holds for named levels, which count primaries only. Explicit numbers count fallbacks as well (model.consistency).

Source: DeCandia 2007 §4.5, §4.6.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import cast

from merganser.core import levels, rows
from merganser.core.quorum import ReadQuorum, Verdict
from merganser.model.cluster import Table
from merganser.model.consistency import Need, ReadLevel, WriteLevel
from merganser.model.errors import (
    ClockSkewError,
    StorageFailedError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Found, Read, ReadHint, ReadRange, Reply, Request, Rows
from merganser.model.row import Mutation, Row
from merganser.model.timestamp import Timestamp
from merganser.net.transport import Traffic
from merganser.service.admission import UnderWay, counted, timed
from merganser.service.asking import Asker, Reading
from merganser.service.hedging import Hedging
from merganser.service.hinting import HintedWriting, Hinting
from merganser.service.needs import Needs
from merganser.service.range_merge import RangePage, Run, merge_pages
from merganser.service.read_repair import ReadRepair, Reconciled, reconcile
from merganser.service.shortfall import OUTRANKED, Shortfall
from merganser.service.staleness import Staleness
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology
from merganser.service.turns import Turns
from merganser.storage.values import decode_row, encode_row

LOOK_CHANCE = 0.01  # costs 2 % of the reads at ONE, and finds what was missed on every item read some hundred times
REPAIR_TIMEOUT_S = 5.0
RANGE_READS_MAX = 4  # pages decoded between two turns of the loop; 64 at once kept each put waiting for 300 ms


class Coordinator:
    """This node as coordinator; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        timestamps: Timestamps,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        under_way: UnderWay,
        probe_s: float = 0.0,
    ) -> None:
        """Coordinate requests over the replicas that ``topology`` names; ``catch_up`` fetches a newer map.

        Each read and write takes a place in ``under_way``, and is an OverloadedError if there is none. Every
        ``probe_s`` each peer is asked what its clock shows (`service.staleness`); 0: never.
        """
        self.under_way = under_way
        self._topology = topology
        self._asker = asker
        self._shortfall = Shortfall(topology, asker, catch_up=catch_up)
        self.needs = Needs(topology, asker, self._shortfall)
        self._timestamps = timestamps
        self._rng = rng
        self.hedging = Hedging(asker.node)
        self.wall_us = wall_us
        self.hinting = Hinting(topology, asker)
        self.staleness = Staleness(topology, asker, rng=rng, probe_s=probe_s)
        self.hinting.time_write = self.staleness.write
        self.repairs = ReadRepair(lambda node, request: asker.ask(node, request, timeout_s=REPAIR_TIMEOUT_S))
        self.range_turns = Turns("range reads", RANGE_READS_MAX)
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Stop what goes on after the answers."""
        self.hinting.close()
        await self.repairs.close()

    @timed
    async def write(
        self, table: Table, key: bytes, mutation: Mutation, *, level: WriteLevel, deadline: float
    ) -> Timestamp:
        """Apply ``mutation`` to the row under ``key``; returns its timestamp once ``level`` is met.

        Args:
            deadline: loop time.

        Raises:
            RequestError: the level asks for more replicas than the table has.
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: too few replicas, or no timestamp in time; nothing was written.
            UnknownOutcomeError: too few acks by ``deadline``; some replicas may have it.
        """
        return await self.write_row(table, key, partial(rows.stamp, mutation), level=level, deadline=deadline)

    async def write_row(
        self, table: Table, key: bytes, stamped: Callable[[Timestamp], Row], *, level: WriteLevel, deadline: float
    ) -> Timestamp:
        """Write the row that ``stamped`` makes with a timestamp, and again with a later one if that was outranked.

        Raises:
            as `write`.
        """
        need = self.needs.to_write(table, key, level)
        timestamp = await self._first_timestamp(deadline)
        writing = await self._replicate(table, key, stamped(timestamp), need, level, deadline)
        while writing.outranked_by is not None:
            timestamp = await self._timestamp_after(writing, writing.outranked_by, deadline)
            try:
                writing = await self._replicate(
                    table, key, stamped(timestamp), need, level, deadline, instead_of=writing
                )
            except (TableNotFoundError, UnavailableError) as error:  # the earlier attempt is stored all the same
                raise UnknownOutcomeError(f"{OUTRANKED}: {error}") from None
        writing.keep_hints()
        return timestamp

    async def read(self, table: Table, key: bytes, *, level: ReadLevel, deadline: float) -> Row | None:
        """Return the row under ``key`` as ``level`` sees it, tombstones included; None if never written.

        Raises:
            RequestError: the level asks for more replicas than the table has.
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: too few replicas answered, or took what others of them had, by ``deadline``.
            CorruptionError: an answer is damaged.
        """
        found = self.at_once(table, key, level=level)
        if found is not None:
            return None if found.row is None else decode_row(key, found.row)
        return await self._read_asking(table, key, level, deadline)

    def at_once(self, table: Table, key: bytes, *, level: ReadLevel) -> Found | None:
        """Return what this node holds under ``key``, if that is what `read` would return; None if that has to ask.

        It is so if one replica is enough for ``level``, this node is one, and what it holds is intact and durable.

        Raises:
            RequestError: the table cannot give that level.
        """
        holders = self._topology.holders(table, key)
        need = self.needs.to_read(table, holders, level)
        replicas = levels.askable(holders, need)
        if need.nodes > 1 or self._asker.node not in replicas:
            return None
        read = Read(self._topology.map.epoch, table.id, key)
        found = cast("Found | None", self._asker.at_once(read))
        if found is None:
            return None
        self.under_way.ended += 1
        self.staleness.read(table.id, answers=1, behind=0)
        if self._rng.random() < LOOK_CHANCE:
            me = self._asker.node
            unasked = [node for node in replicas if node != me]
            row = None if found.row is None else decode_row(key, found.row)
            self.repairs.look(read, row, holders=[me], unasked=unasked, vouched_us=found.horizon_us)
        return found

    @timed
    async def _read_asking(self, table: Table, key: bytes, level: ReadLevel, deadline: float) -> Row | None:
        while True:
            try:
                return await self._read(table, key, level, deadline)
            except _MovedError:
                continue

    async def _read(self, table: Table, key: bytes, level: ReadLevel, deadline: float) -> Row | None:
        """As `read`, by the map of now.

        Raises:
            _MovedError: others hold the key by now.
        """
        holders = self._topology.holders(table, key)
        need = self.needs.to_read(table, holders, level)
        replicas, epoch = levels.askable(holders, need), self._topology.map.epoch
        read = Read(epoch, table.id, key)
        hint = None if need.is_strict else ReadHint(epoch, table.id, key)

        def ask(node: NodeId, timeout_s: float) -> asyncio.Future[Reply]:
            question = read if hint is None or node in replicas else hint
            return self._asker.ask(node, question, timeout_s=timeout_s)

        fallbacks = () if need.is_strict else self.needs.fallbacks(table, key)
        reading = await self._ask_replicas(table, replicas, fallbacks, need, level, deadline, ask)
        replies = {node: cast("Found", reply) for node, reply in reading.quorum.replies.items()}
        answers = {node: reply.row for node, reply in replies.items()}
        found = reconcile(key, answers, lambda node: replies[node].horizon_us)
        self.staleness.read(table.id, answers=len(answers), behind=len(found.stale))
        if found.stale:
            await self._bring_up(table, key, found, answers, replicas, need, deadline)
        if found.stale or self._rng.random() < LOOK_CHANCE:
            answered = [node for node in replicas if node in answers]
            unasked = [node for node in replicas if node not in answers]
            vouched_us = max(reply.horizon_us for reply in replies.values())
            self.repairs.look(read, found.row, holders=answered, unasked=unasked, vouched_us=vouched_us)
        return found.row

    @counted
    async def read_range(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool = False,
        level: ReadLevel,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> RangePage:
        """Return a page of the live rows of ``start <= key < end``.

        The page may hold fewer rows than asked for, even none, and still name where to resume: it ends
        where the replicas change, or where one of them stopped.

        Args:
            rows_max: rows a replica sends at most; tombstones count.
            bytes_max: stored bytes after which a replica stops.

        Raises:
            as `read`; UnavailableError also when too many such reads are under way until ``deadline``.
        """
        async with self.range_turns.one(deadline):
            run = await self.ask_run(
                table,
                start,
                end,
                reverse=reverse,
                level=level,
                deadline=deadline,
                make=lambda epoch, low, high: ReadRange(epoch, table.id, low, high, reverse, rows_max, bytes_max),
            )
            return RangePage([], None) if run is None else await self._merged(table, start, end, run, reverse, deadline)

    async def ask_run(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool = False,
        level: ReadLevel,
        deadline: float,
        make: Callable[[int, bytes, bytes], Request],
    ) -> Run | None:
        """Ask replicas of the first partitions of ``start <= key < end`` that have the same; None: the range is empty.

        Args:
            table: without leaders.
            start: where it begins.
            end: where it ends, exclusive.
            reverse: the first ones are the last.
            level: how many replicas are to be asked.
            deadline: loop time.
            make: the question, answered by `Rows`, for the range from one key to another, by the map of an epoch.

        Raises:
            as `read`.
        """
        while True:
            found = self._topology.run(table, start, end, reverse=reverse)
            if found is None:
                return None
            low, high, holders = found
            need = self.needs.to_read(table, holders, level)
            need = Need(need.nodes, need.nodes, need.parts)  # fallbacks hold hints by key and target, not ranges
            replicas, question = levels.askable(holders, need), make(self._topology.map.epoch, low, high)
            ask = partial(self._ask_page, question)
            try:
                reading = await self._ask_replicas(table, replicas, (), need, level, deadline, ask)
            except _MovedError:
                continue
            pages = {node: cast("Rows", reply) for node, reply in reading.quorum.replies.items()}
            return Run(low, high, replicas, need, pages)

    def _ask_page(self, question: Request, node: NodeId, timeout_s: float) -> asyncio.Future[Reply]:
        return self._asker.ask(node, question, timeout_s=timeout_s, traffic=Traffic.BULK)

    async def _merged(
        self, table: Table, start: bytes, end: bytes, run: Run, reverse: bool, deadline: float
    ) -> RangePage:
        """Return what replicas say of a run together, once those that had less are repaired."""
        low, high, ring = run.low, run.high, self._topology.ring
        merged = merge_pages(run.pages, reverse=reverse)
        found: list[tuple[bytes, Row]] = []
        repairs: list[Awaitable[None]] = []
        now_s = self.wall_us() // 1_000_000
        for key, answers in merged.answers:
            one = reconcile(key, answers, partial(run.horizon_at, ring, key))
            if one.stale:
                repairs.append(self._bring_up(table, key, one, answers, run.replicas, run.need, deadline))
            if one.row is not None and not rows.is_tombstone(one.row, now_s):
                found.append((key, one.row))
        if repairs:
            await asyncio.gather(*repairs)
        resume = merged.resume
        if resume is None:
            resume = low if reverse and low > start else high if not reverse and high < end else None
        return RangePage(found, resume)

    async def _replicate(
        self,
        table: Table,
        key: bytes,
        row: Row,
        need: Need,
        level: WriteLevel,
        deadline: float,
        *,
        instead_of: HintedWriting | None = None,
    ) -> HintedWriting:
        """Send ``row`` to all replicas; returns when ``need``, which is what ``level`` comes to, is met.

        The hints are left to the caller. ``instead_of`` is an earlier attempt, whose hints are of no use any more.
        """
        is_unwritten = True
        while True:
            writing = await self._attempt(table, key, row, need, deadline, instead_of=instead_of)
            if writing.quorum.verdict is Verdict.SUCCEEDED:
                return writing
            map_epoch = writing.apply.map_epoch
            if not await self._shortfall.has_moved(writing.errors, map_epoch):
                error = await self._shortfall.of_write(table, writing, need, map_epoch=map_epoch)
                raise error if is_unwritten else _unknown(error)
            is_unwritten = is_unwritten and writing.is_certainly_unwritten
            instead_of = writing
            try:
                need = self.needs.to_write(table, key, level)
            except UnavailableError as error:
                raise error if is_unwritten else _unknown(error) from None

    async def _attempt(
        self,
        table: Table,
        key: bytes,
        row: Row,
        need: Need,
        deadline: float,
        *,
        instead_of: HintedWriting | None,
    ) -> HintedWriting:
        """Send ``row`` to all replicas by the map of now; returns when ``need`` is met, or cannot be."""
        if instead_of is not None:
            instead_of.forget()
        apply = Apply(self._topology.map.epoch, table.id, key, encode_row(key, row))
        replicas = self._topology.replicas(table, key)
        writing = self.hinting.write(table, apply, need, replicas=replicas, deadline=deadline)
        verdict = Verdict.OPEN
        try:
            verdict = await writing.settled(deadline)
            if verdict is Verdict.HOPELESS:
                await writing.hear_the_rest(deadline)
        finally:
            if verdict is not Verdict.SUCCEEDED:
                if instead_of is None and writing.is_certainly_unwritten:
                    writing.forget()
                else:
                    writing.keep_hints()
        return writing

    async def _first_timestamp(self, deadline: float) -> Timestamp:
        try:
            return await self._timestamps.mint(deadline)
        except (ClockSkewError, TimeoutError, StorageFailedError) as error:
            raise UnavailableError(f"this node cannot mint a timestamp ({error}); nothing was written") from None

    async def _timestamp_after(self, writing: HintedWriting, outranked_by: Timestamp, deadline: float) -> Timestamp:
        try:
            self._timestamps.observe(outranked_by)
            return await self._timestamps.mint(deadline)
        except (ClockSkewError, TimeoutError, StorageFailedError) as error:
            writing.keep_hints()
            raise UnknownOutcomeError(f"{OUTRANKED}: {error}; check the clocks of the nodes") from None

    async def _ask_replicas(
        self,
        table: Table,
        replicas: tuple[NodeId, ...],
        fallbacks: Sequence[NodeId],
        need: Need,
        level: ReadLevel,
        deadline: float,
        ask: Callable[[NodeId, float], asyncio.Future[Reply]],
    ) -> Reading:
        self._shortfall.check_reachable(table, need, level, replicas=replicas, fallbacks=fallbacks)
        map_epoch = self._topology.map.epoch
        quorum = self._read_quorum(self._asker.nearest_first(replicas), fallbacks, need)
        reading = Reading(
            quorum,
            ask=lambda node: ask(node, deadline - self._loop.time()),
            hedge_s=self.hedging.after_s(quorum.first()),
            note_silence=self._asker.note_silence,
            note_latency=self.hedging.sample(),
        )
        if await reading.settled(deadline) is not Verdict.SUCCEEDED:
            if await self._shortfall.has_moved(reading.errors, map_epoch):
                raise _MovedError
            raise await self._shortfall.of_read(table, reading, need, map_epoch=map_epoch)
        return reading

    def _read_quorum(self, replicas: list[NodeId], fallbacks: Sequence[NodeId], need: Need) -> ReadQuorum[Reply]:
        """Fallbacks come after the primaries that answer and before those that do not."""
        if need.is_strict:
            return ReadQuorum(replicas, required=need.nodes, parts=need.parts if len(need.parts) > 1 else ())
        answering = [node for node in replicas if self._asker.is_responsive(node)]
        away = [node for node in replicas if node not in answering]
        return ReadQuorum(
            (*answering, *fallbacks, *away),
            required=need.nodes,
            primaries=replicas,
            required_primaries=need.primaries,
        )

    async def _bring_up(
        self,
        table: Table,
        key: bytes,
        found: Reconciled,
        answers: Mapping[NodeId, bytes | None],
        replicas: tuple[NodeId, ...],
        need: Need,
        deadline: float,
    ) -> None:
        """Return once as many primaries hold what was found as had to be read."""
        assert found.row is not None
        row = encode_row(key, found.row)
        newest = Apply(self._topology.map.epoch, table.id, key, row, vouched_us=found.vouched_us)
        await self.repairs.bring_up(newest, found.stale, answers.keys(), replicas, need, deadline)


class _MovedError(Exception):
    """A read was refused by an old placement, and this node knows the new one."""


def _unknown(error: Exception) -> UnknownOutcomeError:
    """Return what a write comes to that ended with ``error`` after an attempt that some may have taken."""
    return UnknownOutcomeError(f"{error}; an attempt before that may have been written, read the item or try again")
