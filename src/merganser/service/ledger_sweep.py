"""End what coordinators have left behind: the leaders of the ledger's partitions look after its records.

A leader notices the transactions whose records it opens, and goes through the records of a partition when it begins to
lead it and now and then later. Those that are not finished some seconds after it has noticed them are ended: an
undecided one is aborted, then all items are applied or cleared, and the record is marked as finished. Finished
ones are removed when nobody can ask for them any more.

How long a record has been finished it tells by its own monotonic clock (`core.version_ages`), and not by wall clocks:
one that is wrong by ten minutes must not make the ledger forget what a client is about to repeat.

It decides nothing by what it sees on its own disk, which may be old: each step is one on the record, at its leader.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from merganser.core import transaction
from merganser.core.transaction import KEPT_S, Fate
from merganser.core.version_ages import VersionAges
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, MerganserError
from merganser.model.leadership import Epoch, Group
from merganser.model.register import Version
from merganser.model.transaction import Finish, Forget, Record, State
from merganser.service.ledger import Ledger, id_in, key_of
from merganser.service.topology import Topology
from merganser.service.transaction_recovery import Recovery, ended_all
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register

T = TypeVar("T")

LEFT_BEHIND_S: Final = 5.0
"""A transaction takes milliseconds; whoever needs its items earlier ends it himself."""
LOOK_S: Final = 1.0
SCAN_S: Final = 60.0
"""Records that are kept for tokens are removed two minutes late at most; looking at 10,000 of them takes 0.1 s."""
_SLICE_ROWS: Final = 200  # some milliseconds
_AT_ONCE: Final = 8
_WATCHED_MAX: Final = 100_000  # what is beyond is found by the next scan
_TIMEOUT_S: Final = 5.0


class Term(Protocol):
    """A term of this node as a leader."""

    @property
    def group(self) -> Group:
        """Of which replicas."""

    @property
    def epoch(self) -> Epoch:
        """Which term."""

    @property
    def sequence(self) -> int:
        """Of the latest write."""


class _Visits:
    """When a term's partition is to be gone through again, and how old its records are."""

    __slots__ = ("ages", "next_s")

    def __init__(self, now_s: float) -> None:
        self.next_s = now_s
        self.ages = VersionAges(most_s=KEPT_S)


class LedgerSweep:
    """Looks after the records that this node leads; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        ledger: Ledger,
        recovery: Recovery,
        *,
        leading: Callable[[], Sequence[Term]],
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        left_behind_s: float = LEFT_BEHIND_S,
    ) -> None:
        """Look at the records in ``engine`` of those that ``leading`` names.

        Args:
            leading: the terms in which this node leads now.
            admit: waits while clients need this node more.
            left_behind_s: how long a transaction is left to its coordinator.
        """
        self._topology = topology
        self._engine = engine
        self._ledger = ledger
        self._recovery = recovery
        self._leading = leading
        self._rng = rng
        self._admit = admit
        self._left_behind_s = left_behind_s
        self._loop = asyncio.get_running_loop()
        self._watched: dict[bytes, float] = {}
        """When to look at a transaction; ascending, as each is put at the end."""
        self._visits: dict[tuple[Group, Epoch], _Visits] = {}
        """Of the terms in which this node leads."""
        self.ended = 0
        """Transactions that it has brought to their end."""

    def notice(self, transaction_id: bytes) -> None:
        """Look at a transaction after some seconds: its record may be opened now."""
        if transaction_id not in self._watched and len(self._watched) < _WATCHED_MAX:
            self._watched[transaction_id] = self._loop.time() + self._left_behind_s

    async def run(self) -> None:
        """Look after the records for as long as the node lives."""
        while True:
            await asyncio.sleep(LOOK_S * self._rng.uniform(0.8, 1.2))
            try:
                await self._scan()
                await self._look()
            except CorruptionError:  # of the disk, which others take care of
                continue

    async def _scan(self) -> None:
        """Go through the partitions that were not gone through lately, or not in this term."""
        now = self._loop.time()
        tables = self._ledger.tables()
        led = [(table, term) for term in self._leading() for table in tables if table.rule == term.group.rule]
        terms = [(term.group, term.epoch) for _, term in led]
        self._visits = {term: self._visits.get(term) or _Visits(now) for term in terms}
        for table, term in led:
            visits = self._visits[term.group, term.epoch]
            if visits.next_s <= now:
                visits.ages.mark(Version(*term.epoch, term.sequence), self._loop.time())
                await self._scan_partition(table, term, visits.ages)
                visits.next_s = now + SCAN_S * self._rng.uniform(0.8, 1.2)

    async def _scan_partition(self, table: Table, term: Term, ages: VersionAges) -> None:
        start, end = self._topology.partition_range(table, term.group.partition, term.group.partition)
        expired: list[tuple[bytes, int]] = []
        while True:
            await self._admit()
            rows = list(itertools.islice(self._engine.scan(start, end), _SLICE_ROWS))
            now = self._loop.time()
            for key, version, record in _records(rows):
                if not record.is_finished:
                    self.notice(id_in(key))
                elif transaction.has_expired(record, age_s=ages.age_s(version, now)):
                    expired.append((id_in(key), record.attempt))
            await self._forget(expired)
            expired.clear()
            if len(rows) < _SLICE_ROWS:
                return
            start = keys.after(rows[-1][0])

    async def _forget(self, expired: Sequence[tuple[bytes, int]]) -> None:
        for some in _slices(expired, _AT_ONCE):
            deadline = self._loop.time() + _TIMEOUT_S
            await ended_all(
                self._ledger.change(transaction_id, Forget(attempt), deadline=deadline)
                for transaction_id, attempt in some
            )

    async def _look(self) -> None:
        """Look at all that is due, a few at a time."""
        due: list[bytes] = []
        for transaction_id, at in self._watched.items():
            if at > self._loop.time():
                break
            due.append(transaction_id)
        for some in _slices(due, _SLICE_ROWS):  # nearly all of them are finished
            await self._admit()
            led = {term.group for term in self._leading()}
            for transaction_id in some:
                del self._watched[transaction_id]
            await self._end_all([one for one in some if self._is_left_behind(one, led)])

    async def _end_all(self, left: Sequence[bytes]) -> None:
        for some in _slices(left, _AT_ONCE):
            deadline = self._loop.time() + _TIMEOUT_S
            ended = await ended_all(self._end(one, deadline) for one in some)
            for transaction_id, problem in zip(some, ended, strict=True):
                if isinstance(problem, MerganserError):
                    self.notice(transaction_id)

    def _is_left_behind(self, transaction_id: bytes, led: set[Group]) -> bool:
        """Tell whether this node leads the record of a transaction, and it does not seem to be finished."""
        table = self._ledger.known(transaction_id)
        if table is None:
            return False
        key = key_of(table, transaction_id)
        group = Group(table.rule, self._topology.ring.partition_of(keys.token_in(key)))
        stored = self._engine.get(key) if group in led else None
        return stored is not None and any(not record.is_finished for _, _, record in _records([(key, stored)]))

    async def _end(self, transaction_id: bytes, deadline: float) -> None:
        """Decide a transaction, apply or clear its items, and note that it is finished.

        Raises:
            MerganserError: some of that failed; it can be done again.
        """
        record = await self._ledger.read(transaction_id, deadline=deadline)  # the disk may tell what was never chosen
        if record is None:
            return
        attempt = record.attempt
        fate = transaction.fate(record, attempt)
        if record.state is State.BEGUN:
            fate = await self._recovery.abort(transaction_id, attempt, deadline=deadline)
        if fate is Fate.VOID:
            return
        left = await self._recovery.settle_all(record.items, transaction_id, attempt, fate, deadline=deadline)
        if left:
            raise MerganserError(f"{len(left)} items of a transaction could not be reached")
        await self._ledger.change(transaction_id, Finish(attempt), deadline=deadline)
        self.ended += 1


def _records(rows: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, Version, Record]]:
    """Yield the records among stored rows, with their keys and versions; damaged ones are healed elsewhere."""
    for key, stored in rows:
        try:
            register = decode_register(key, stored)
            record = transaction.record_in(register.value)
        except CorruptionError:
            continue
        if record is not None:
            yield key, register.version, record


def _slices(these: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(these), most):
        yield these[at : at + most]
