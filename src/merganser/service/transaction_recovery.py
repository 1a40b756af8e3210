"""What to do about a transaction whose coordinator is not at hand: find out how it ended, or end it.

Whoever meets an intent, a leader on behalf of a change or a read, a coordinator on behalf of its own transaction, or
the sweep of the ledger, asks the ledger and follows (`core.transaction`). Nobody waits for a lock: while the
transaction is undecided a change is refused, and a read gets the old value. One that stays undecided for `PATIENCE_S`
is aborted by whoever needs its item, so that no lock outlives its coordinator by more.

Why the answers of reads are right. Let the register be read at t1, and the ledger after that, at t2.

- COMMITTED: the new value was the item's at t1, or from the commit on, which lies between.
- ABORTED: the old one was, at t1, as an aborted attempt was never committed.
- Undecided at t2: it was so at t1, too, and the old one was the item's value.
- Else nothing is known of t1, and the reader looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from merganser.core import transaction
from merganser.core.transaction import Fate
from merganser.model.cluster import Table
from merganser.model.errors import (
    InvariantError,
    MerganserError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import TableId
from merganser.model.register import Intent, Register
from merganser.model.transaction import Abort
from merganser.service.intents import GONE, Gone
from merganser.service.ledger import Items, Ledger
from merganser.service.steps import TRANSACTIONS
from merganser.service.topology import Topology

T = TypeVar("T")

PATIENCE_S: Final = 2.0
"""A transaction takes some milliseconds, during an election about a second: after two its coordinator is gone."""
_MET_MAX: Final = 10_000  # undecided transactions that this node remembers having met

Place = tuple[TableId, bytes]
"""Table and key of an item."""


class Recovery:
    """The `Resolver` of leaders, and what it has in common with coordinators and the sweep."""

    def __init__(self, topology: Topology, ledger: Ledger, items: Items, *, patience_s: float = PATIENCE_S) -> None:
        """Look records up in ``ledger``, and apply or clear through ``items``."""
        self._topology = topology
        self._ledger = ledger
        self._items = items
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._met: dict[tuple[bytes, int], float] = {}
        """Since when this node knows that an attempt is undecided."""
        self.aborted = 0
        """How many it has given up on."""

    async def for_change(self, table: Table, key: bytes, register: Register, *, deadline: float) -> None:
        """See `Resolver`."""
        intent = _intent_of(register)
        try:
            fate = await self.pressed(intent.transaction, intent.attempt, deadline=deadline)
            if fate is not Fate.PENDING:
                await self.settle(table, key, intent.transaction, intent.attempt, fate, deadline=deadline)
                return
        except UnknownOutcomeError as error:  # of what was done for the transaction; the change was not begun
            raise UnavailableError(f"the item is locked by a transaction that could not be ended: {error}") from None
        raise TransactionConflictError("another transaction that is under way holds the item, try again")

    async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> bytes | Gone | None:
        """See `Resolver`."""
        intent = _intent_of(register)
        record = await self._ledger.read(intent.transaction, deadline=deadline)
        fate = transaction.fate(record, intent.attempt)
        if fate is not Fate.VOID:
            return transaction.value_seen(register.content, fate)
        try:
            await self.settle(table, key, intent.transaction, intent.attempt, fate, deadline=deadline)
        except UnknownOutcomeError as error:
            raise UnavailableError(f"an intent that counts for nothing could not be removed: {error}") from None
        return GONE

    async def pressed(self, transaction_id: bytes, attempt: int, *, deadline: float) -> Fate:
        """Return the fate of an attempt by someone who needs its item: PENDING only while there is patience with it.

        Raises:
            UnavailableError: the ledger does not say by ``deadline``.
            UnknownOutcomeError: it may be aborted.
        """
        fate = transaction.fate(await self._ledger.read(transaction_id, deadline=deadline), attempt)
        if fate is not Fate.PENDING or self._is_patient_with(transaction_id, attempt):
            return fate
        return await self.abort(transaction_id, attempt, deadline=deadline)

    async def abort(self, transaction_id: bytes, attempt: int, *, deadline: float) -> Fate:
        """Decide, unless it is decided, that an attempt has not happened; return what it has come to.

        Raises:
            UnavailableError: nothing was decided.
            UnknownOutcomeError: it may be aborted, now or later.
        """
        told = await self._ledger.change(transaction_id, Abort(attempt), deadline=deadline)
        self._met.pop((transaction_id, attempt), None)
        if not told.is_rejected:
            self.aborted += 1
        return transaction.fate(told.record, attempt)

    async def settle(
        self, table: Table, key: bytes, transaction_id: bytes, attempt: int, fate: Fate, *, deadline: float
    ) -> None:
        """Apply or clear the intent of an attempt, if the item has it.

        Raises:
            MerganserError: as `LeaderBased.change`.
        """
        payload = transaction.payload_of(transaction.settling(transaction_id, attempt, fate))
        await self._items.change(table, key, TRANSACTIONS, payload, deadline=deadline)

    async def settle_all(
        self, places: Sequence[Place], transaction_id: bytes, attempt: int, fate: Fate, *, deadline: float
    ) -> list[Place]:
        """Apply or clear the intents of an attempt on ``places``, at once; return those where that failed."""
        ended = await ended_all(
            self._settle_place(place, transaction_id, attempt, fate, deadline=deadline) for place in places
        )
        return [place for place, error in zip(places, ended, strict=True) if error is not None]

    def is_dropped(self, table: TableId) -> bool:
        """Tell whether a table was dropped, and its items with it; one that is not known here yet was not."""
        return self._topology.table(table) is None and table < self._topology.map.next_table_id

    async def _settle_place(
        self, place: Place, transaction_id: bytes, attempt: int, fate: Fate, *, deadline: float
    ) -> None:
        table_id, key = place
        if self.is_dropped(table_id):
            return
        table = self._topology.table(table_id)
        if table is None:
            raise UnavailableError(f"this node does not know table {table_id} yet")
        await self.settle(table, key, transaction_id, attempt, fate, deadline=deadline)

    def _is_patient_with(self, transaction_id: bytes, attempt: int) -> bool:
        now = self._loop.time()
        since = self._met.setdefault((transaction_id, attempt), now)
        if len(self._met) > _MET_MAX:
            del self._met[next(iter(self._met))]
        return now - since < self._patience_s


async def ended_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T | MerganserError]:
    """Run all at once; return what each returned, or how it failed.

    Raises:
        InvariantError: one of them met a bug of ours; so for everything that is no MerganserError.
    """
    ended = await asyncio.gather(*work, return_exceptions=True)
    results: list[T | MerganserError] = []
    for result in ended:
        if isinstance(result, BaseException) and not _is_ordinary(result):
            raise result
        results.append(result)  # type: ignore[arg-type]  # all other errors were raised
    return results


def _is_ordinary(error: BaseException) -> bool:
    return isinstance(error, MerganserError) and not isinstance(error, InvariantError)


def _intent_of(register: Register) -> Intent:
    intent = register.content.intent
    assert intent is not None, "only an item that a transaction holds is resolved"
    return intent
