"""Coordinate reads and writes of leaderless tables; any node does it for any key.

A write gets its timestamp here, goes to all N replicas of its key at once and is answered at W acks. If
one of those replicas held something newer, this node's clock is behind that of another: the clock
learns, and the write is sent again with a timestamp that counts. So with W + W > N a write outranks every
write that was acknowledged before it began, whatever the clocks show.

A read asks R replicas, nearest first and one more when they are slow, merges what they hold, answers,
and repairs those that had less. With R + W > N a read meets every write acknowledged before it began. Where one
of them has purged tombstones, `core.horizon` says what the others may still add.

Source: DeCandia 2007 §4.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import msgspec

from merganser.core import rows
from merganser.core.quorum import Verdict
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency
from merganser.model.errors import (
    ClockSkewError,
    RefusedError,
    RequestError,
    StorageFailedError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Found, Read, ReadRange, Reply, Rows
from merganser.model.row import Mutation, Row
from merganser.model.timestamp import Timestamp
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, Reading, Writing
from merganser.service.range_merge import merge_pages
from merganser.service.read_repair import ReadRepair, reconcile
from merganser.service.replica import NO_SUCH_TABLE
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.values import encode_row

HEDGE_S = 0.1  # a replica on a healthy network answers within a few milliseconds
REPAIR_TIMEOUT_S = 5.0
RANGE_READS_MAX = 4  # pages decoded between two turns of the loop; 64 at once kept each put waiting for 300 ms

_OUTRANKED = "the write is stored under a newer one and may never be seen"


class RangePage(msgspec.Struct, frozen=True):
    """Some rows of a range, in the order asked for."""

    rows: list[tuple[bytes, Row]]
    """Key and merged row; only rows with a live cell."""
    resume: bytes | None
    """Where the next page starts (its exclusive end, when reversed); None when nothing is left."""


class Coordinator:
    """This node as coordinator; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        timestamps: Timestamps,
        *,
        wall_us: Callable[[], int],
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Coordinate requests over the replicas that ``topology`` names; ``catch_up`` fetches a newer map."""
        self._catch_up = catch_up
        self._topology = topology
        self._asker = asker
        self._timestamps = timestamps
        self.wall_us = wall_us
        self.repairs = ReadRepair(lambda node, apply: asker.ask(node, apply, timeout_s=REPAIR_TIMEOUT_S))
        self._range_reads = asyncio.Semaphore(RANGE_READS_MAX)
        self._loop = asyncio.get_running_loop()

    async def write(
        self, table: Table, key: bytes, mutation: Mutation, *, level: Consistency, deadline: float
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
        replicas = self._topology.replicas(table, key)
        required = self._required(table, level, replicas)
        timestamp = await self._first_timestamp(deadline)
        outranked_by = await self._replicate(table, key, rows.stamp(mutation, timestamp), required, deadline)
        while outranked_by is not None:
            timestamp = await self._timestamp_after(outranked_by, deadline)
            try:
                outranked_by = await self._replicate(table, key, rows.stamp(mutation, timestamp), required, deadline)
            except (TableNotFoundError, UnavailableError) as error:  # the earlier attempt is stored all the same
                raise UnknownOutcomeError(f"{_OUTRANKED}: {error}") from None
        return timestamp

    async def read(self, table: Table, key: bytes, *, level: Consistency, deadline: float) -> Row | None:
        """Return the row under ``key`` as ``level`` sees it, tombstones included; None if never written.

        Raises:
            RequestError: the level asks for more replicas than the table has.
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: too few replicas answered by ``deadline``.
            CorruptionError: an answer is damaged.
        """
        read = Read(self._topology.map.epoch, table.id, key)
        replicas = self._asker.nearest_first(self._topology.replicas(table, key))
        reading = await self._ask_replicas(
            table, replicas, level, deadline, lambda node, timeout_s: self._asker.ask(node, read, timeout_s=timeout_s)
        )
        found = {node: cast("Found", reply) for node, reply in reading.quorum.replies.items()}
        answers = {node: reply.row for node, reply in found.items()}
        return self._reconcile(table, key, answers, lambda: {node: reply.horizon_us for node, reply in found.items()})

    async def read_range(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool = False,
        level: Consistency,
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
        try:
            async with asyncio.timeout_at(deadline):
                await self._range_reads.acquire()
        except TimeoutError:
            raise UnavailableError(
                f"{RANGE_READS_MAX} range reads are under way through this node, try again"
            ) from None
        try:
            return await self._read_run(
                table,
                start,
                end,
                reverse=reverse,
                level=level,
                rows_max=rows_max,
                bytes_max=bytes_max,
                deadline=deadline,
            )
        finally:
            self._range_reads.release()

    async def _read_run(
        self,
        table: Table,
        start: bytes,
        end: bytes,
        *,
        reverse: bool,
        level: Consistency,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> RangePage:
        run = self._run(table, start, end, reverse=reverse)
        if run is None:
            return RangePage([], None)
        low, high, replicas = run
        question = ReadRange(self._topology.map.epoch, table.id, low, high, reverse, rows_max, bytes_max)
        reading = await self._ask_replicas(
            table,
            self._asker.nearest_first(replicas),
            level,
            deadline,
            lambda node, timeout_s: self._asker.ask(node, question, timeout_s=timeout_s, traffic=Traffic.BULK),
        )
        pages = {node: cast("Rows", reply) for node, reply in reading.quorum.replies.items()}
        merged = merge_pages(pages, reverse=reverse)
        found: list[tuple[bytes, Row]] = []
        now_s = self.wall_us() // 1_000_000
        for key, answers in merged.answers:
            row = self._reconcile(table, key, answers, partial(self._horizons_at, key, low, pages))
            if row is not None and not rows.is_tombstone(row, now_s):
                found.append((key, row))
        resume = merged.resume
        if resume is None:
            resume = low if reverse and low > start else high if not reverse and high < end else None
        return RangePage(found, resume)

    async def _replicate(self, table: Table, key: bytes, row: Row, required: int, deadline: float) -> Timestamp | None:
        """Send ``row`` to all replicas; returns at W acks what outranks it there, None if nothing does."""
        replicas = self._topology.replicas(table, key)
        writing = Writing(replicas, required=required)
        apply = Apply(self._topology.map.epoch, table.id, key, encode_row(key, row))
        timeout_s = deadline - self._loop.time()
        for replica in replicas:
            writing.watch(replica, self._asker.ask(replica, apply, timeout_s=timeout_s))
        if await writing.settled(deadline) is not Verdict.SUCCEEDED:
            raise await self._write_failure(table, writing, apply.map_epoch)
        return writing.outranked_by

    async def _first_timestamp(self, deadline: float) -> Timestamp:
        try:
            return await self._timestamps.mint(deadline)
        except (ClockSkewError, TimeoutError, StorageFailedError) as error:
            raise UnavailableError(f"this node cannot mint a timestamp ({error}); nothing was written") from None

    async def _timestamp_after(self, outranked_by: Timestamp, deadline: float) -> Timestamp:
        try:
            self._timestamps.observe(outranked_by)
            return await self._timestamps.mint(deadline)
        except (ClockSkewError, TimeoutError, StorageFailedError) as error:
            raise UnknownOutcomeError(f"{_OUTRANKED}: {error}; check the clocks of the nodes") from None

    def _run(
        self, table: Table, start: bytes, end: bytes, *, reverse: bool
    ) -> tuple[bytes, bytes, tuple[NodeId, ...]] | None:
        """The longest stretch from where the read begins that one set of replicas holds."""
        partitions = self._topology.partitions_between(table, start, end)
        if not partitions:
            return None
        ring = self._topology.ring
        ordered = partitions[::-1] if reverse else partitions
        replicas = ring.preference_list(ordered[0], table.n)
        last = ordered[0]
        for partition in ordered[1:]:
            if set(ring.preference_list(partition, table.n)) != set(replicas):
                break
            last = partition
        first_key, end_key = self._topology.partition_range(table, min(ordered[0], last), max(ordered[0], last))
        return max(start, first_key), min(end, end_key), replicas

    async def _ask_replicas(
        self,
        table: Table,
        replicas: list[NodeId],
        level: Consistency,
        deadline: float,
        ask: Callable[[NodeId, float], asyncio.Future[Reply]],
    ) -> Reading:
        required = self._required(table, level, replicas)
        map_epoch = self._topology.map.epoch
        reading = Reading(
            replicas,
            required=required,
            ask=lambda node: ask(node, deadline - self._loop.time()),
            hedge_s=HEDGE_S,
            note_silence=self._asker.note_silence,
        )
        if await reading.settled(deadline) is not Verdict.SUCCEEDED:
            await self._raise_if_dropped(table, reading.errors, map_epoch)
            raise UnavailableError(
                f"{len(reading.quorum.replies)} of {required} replicas answered in time: {_reasons(reading.errors)}"
            )
        return reading

    def _reconcile(
        self, table: Table, key: bytes, answers: dict[NodeId, bytes | None], horizons: Callable[[], dict[NodeId, int]]
    ) -> Row | None:
        """Say what the replicas hold together, and repair those that had less; ``horizons`` is asked if they differ."""
        is_one = len(set(answers.values())) == 1
        found = reconcile(key, answers, {} if is_one else horizons())
        if found.row is not None and found.stale:
            repair = Apply(
                self._topology.map.epoch, table.id, key, encode_row(key, found.row), vouched_us=found.vouched_us
            )
            for node in found.stale:
                self.repairs.repair(node, repair)
        return found.row

    def _horizons_at(self, key: bytes, low: bytes, pages: dict[NodeId, Rows]) -> dict[NodeId, int]:
        """The horizon of each replica for the partition of ``key``, a row of the range that begins at ``low``."""
        ring = self._topology.ring
        place = ring.partition_of(keys.token_in(key)) - ring.partition_of(keys.token_in(low))
        return {node: page.horizons[place] if page.horizons else 0 for node, page in pages.items()}

    def _required(self, table: Table, level: Consistency, replicas: tuple[NodeId, ...] | list[NodeId]) -> int:
        try:
            required = level.required(table.n)
        except ValueError as error:
            raise RequestError(str(error)) from None
        reachable = sum(map(self._asker.is_reachable, replicas))
        if reachable < required:
            raise UnavailableError(
                f"{level.value} needs {required} of {table.n} replicas and {reachable} can be reached; "
                "none was asked, try again or ask for a lower consistency"
            )
        return required

    async def _write_failure(self, table: Table, writing: Writing, map_epoch: int) -> Exception:
        await self._raise_if_dropped(table, writing.errors, map_epoch)
        told = (
            f"{writing.quorum.acks} of {writing.required} replicas acknowledged the write: {_reasons(writing.errors)}"
        )
        if writing.is_certainly_unwritten:
            return UnavailableError(f"{told}; nothing was written, try again")
        return UnknownOutcomeError(f"{told}; it is unknown whether the write will be seen, read the item or try again")

    async def _raise_if_dropped(self, table: Table, errors: dict[NodeId, BaseException], map_epoch: int) -> None:
        """Believe a replica that misses the table unless it has yet to reach the epoch of the question.

        This node has the newer map when it raises, so whoever looks the name up again finds what is there now.
        """
        for node, error in errors.items():
            if isinstance(error, RefusedError) and error.code == NO_SUCH_TABLE and error.map_epoch >= map_epoch:
                if error.map_epoch > self._topology.map.epoch:
                    await self._catch_up(node)
                raise TableNotFoundError(f"table {table.name} was dropped")


def _reasons(errors: dict[NodeId, BaseException]) -> str:
    if not errors:
        return "no answer by the deadline"
    return "; ".join(f"{node}: {error}" for node, error in sorted(errors.items()))
