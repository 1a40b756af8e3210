"""The record of a transaction, as its coordinator opens and decides it.

A step on a record may be repeated, so it is insisted upon: an election of the record's leader is over in a second.

Under the token of a client a record is opened only if the same request has not happened already, nor is under way::

    Begin --rejected, COMMITTED, same request--> it has happened
          --rejected, BEGUN--> under way; aborted once nobody has patience with it any more, then Begin again
          --rejected, of another request--> refused, unless all tables of that are gone; then it is forgotten
          --rejected, barred--> this node does not know of a change of a table's policy, and chose the wrong ledger

If the policy of a table has changed lately, the record may be in another ledger, from before, or be opened there by a
node that does not know of the change. So those ledgers are barred first, in the same manner.
"""

from __future__ import annotations

import asyncio
import enum
import random
from typing import Final

from merganser.core.transaction import ATTEMPT_BITS, Fate
from merganser.model.errors import (
    IdempotentParameterMismatchError,
    InvariantError,
    MerganserError,
    OverloadedError,
    RequestError,
    TransactionInProgressError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.transaction import Bar, Begin, Forget, LedgerStep, Record, State
from merganser.service.ledger import Chosen, Ledger, Told
from merganser.service.transaction_recovery import Recovery

TRY_S: Final = 1.0
"""After so long a step on the ledger is sent again: an election is over, or soon will be."""
PAUSE_S: Final = (0.02, 0.2)  # least and most between two tries


class Opened(enum.Enum):
    """What came of opening a record."""

    BEGUN = "begun"
    HAPPENED = "happened"
    """The same request, under the same token, has happened already."""
    OVERTAKEN = "overtaken"
    """It was opened, and somebody has decided it by now."""
    BARRED = "barred"
    """By a newer map it is to be opened in another ledger."""


class Records:
    """The records of transactions that this node coordinates; see the module's docstring."""

    def __init__(self, ledger: Ledger, recovery: Recovery, *, rng: random.Random) -> None:
        """Keep records in ``ledger``; who is in the way is asked after through ``recovery``."""
        self._ledger = ledger
        self._recovery = recovery
        self._rng = rng
        self._loop = asyncio.get_running_loop()

    async def open(self, begin: Begin, *, deadline: float) -> Opened:
        """Open a record.

        Raises:
            IdempotentParameterMismatchError: the token is that of another request.
            TransactionInProgressError: one with that token is under way.
            UnavailableError: it is not opened.
            UnknownOutcomeError: it may be open, now or later.
        """
        while True:
            told, _ = await self.insist(begin.transaction, begin, deadline=deadline)
            record = told.record
            if record is None:
                raise InvariantError("the ledger opened a record and had none")
            if not told.is_rejected:
                return Opened.BEGUN if record.state is State.BEGUN else Opened.OVERTAKEN
            if record.barred > begin.epoch:
                return Opened.BARRED
            if await self._has_happened(begin.transaction, record, begin.digest, deadline):
                return Opened.HAPPENED

    async def bar(self, chosen: Chosen, digest: bytes, *, deadline: float) -> bool:
        """Have nobody open the record in a ledger of before; False if the same request has happened by one there.

        Raises:
            UnavailableError: not all are barred, and nothing is opened.
            and as `open`.
        """
        for former in chosen.former:
            if not await self._bar(
                former, Bar(1 + self._rng.getrandbits(ATTEMPT_BITS), chosen.epoch), digest, deadline
            ):
                return False
        return True

    async def _bar(self, transaction_id: bytes, bar: Bar, digest: bytes, deadline: float) -> bool:
        while True:
            try:
                told, _ = await self.insist(transaction_id, bar, deadline=deadline)
            except UnknownOutcomeError as error:
                raise UnavailableError(f"whether this has happened already cannot be found out: {error}") from None
            if not told.is_rejected:
                return True
            if told.record is None:
                raise InvariantError("the ledger refused to bar a record and had none")
            if await self._has_happened(transaction_id, told.record, digest, deadline):
                return False

    async def _has_happened(self, transaction_id: bytes, record: Record, digest: bytes, deadline: float) -> bool:
        """Tell whether the request of ``digest`` is the one whose record is there; if not, that is out of the way."""
        if record.digest != digest and not await self._is_of_dropped_tables(transaction_id, deadline):
            raise IdempotentParameterMismatchError("the token is that of another transaction: choose a new one")
        if record.state is State.BEGUN:
            if await self._pressed(transaction_id, record.attempt, deadline) is Fate.PENDING:
                raise TransactionInProgressError("a transaction with this token is under way, try again")
        elif record.digest == digest:
            return True
        else:
            await self._forget(transaction_id, record.attempt, deadline)
        return False

    async def _is_of_dropped_tables(self, transaction_id: bytes, deadline: float) -> bool:
        """Tell whether the record has nothing to say any more: every table that it wrote to is gone, or it is."""
        record = await self._ledger.read(transaction_id, deadline=deadline)
        return record is None or all(self._recovery.is_dropped(table) for table, _ in record.items)

    async def _forget(self, transaction_id: bytes, attempt: int, deadline: float) -> None:
        """Remove the record of an attempt whose items are gone."""
        try:
            await self.insist(transaction_id, Forget(attempt), deadline=deadline)
        except UnknownOutcomeError as error:
            raise UnavailableError(f"an earlier transaction with this token could not be forgotten: {error}") from None

    async def _pressed(self, transaction_id: bytes, attempt: int, deadline: float) -> Fate:
        try:
            return await self._recovery.pressed(transaction_id, attempt, deadline=deadline)
        except UnknownOutcomeError as error:
            raise UnavailableError(f"an earlier transaction with this token could not be ended: {error}") from None

    async def insist(self, transaction_id: bytes, step: LedgerStep, *, deadline: float) -> tuple[Told, bool]:
        """Do a step on a record, which may be repeated, until it is done or the time is up.

        Returns:
            the answer to the last try, and whether an earlier one may have been done.

        Raises:
            UnavailableError: it was certainly not done.
            UnknownOutcomeError: it may be done, now or later.
        """
        was_unknown, pause_s = False, PAUSE_S[0]
        while True:
            try:
                deadline_of_try = min(deadline, self._loop.time() + TRY_S)
                return await self._ledger.change(transaction_id, step, deadline=deadline_of_try), was_unknown
            except InvariantError:
                raise
            except MerganserError as problem:
                if isinstance(problem, OverloadedError) and not was_unknown:
                    raise
                was_unknown = was_unknown or not isinstance(problem, RequestError | UnavailableError)
                error = str(problem)
            pause_s = min(pause_s * 2, PAUSE_S[1])
            if self._loop.time() + pause_s >= deadline:
                raise UnknownOutcomeError(error) if was_unknown else UnavailableError(error)
            await asyncio.sleep(self._rng.uniform(pause_s / 2, pause_s))
