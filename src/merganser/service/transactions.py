"""Several items at once, read or written, by the node that took the request from the client.

A write::

    begin the record -> prepare all items at once -> commit the record -> answer -> apply all items, finish the record
                                       |                    |
                                       +-- one refuses -----+-- someone has aborted it --> clear all items -> cancelled

It has happened once the ledger says so, and not before; its items are locked from then back to their preparation.
What comes after the answer can be done by anybody (`service.transaction_recovery`, `service.ledger_sweep`).

What the client hears when something fails:

- before the commit is sent: cancelled or unavailable. Nothing has happened, nor will it, since nobody else commits.
- after that: what the ledger says, if it says anything in time, else that the outcome is unknown.

The protocol runs in a task of its own: a client that goes away leaves no locks behind.

Source: docs/internals/transactions.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from merganser.core import transaction
from merganser.core.transaction import ATTEMPT_BITS, ITEMS_MAX, Fate, Outcome, Seen
from merganser.model.cluster import Table
from merganser.model.errors import (
    MerganserError,
    OverloadedError,
    RequestError,
    TransactionCanceledError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.transaction import (
    Abort,
    Begin,
    Commit,
    Failed,
    Finish,
    Forget,
    Held,
    LedgerStep,
    Prepare,
    PrepareAnswer,
    Ready,
    Reason,
    ReasonKind,
)
from merganser.service.admission import UnderWay
from merganser.service.ledger import ID_SIZE, Chosen, Items, Ledger
from merganser.service.steps import TRANSACTIONS
from merganser.service.transaction_records import PAUSE_S, TRY_S, Opened, Records
from merganser.service.transaction_recovery import Place, Recovery, ended_all

TRANSACTIONS_MAX: Final = 1024
"""Coordinated at once: with a hundred items each they may hold a hundred thousand locks."""
FINISHING_MAX: Final = 1024
"""Whose items are being applied or cleared after the answer; beyond that the sweep does it."""

PREPARE_S: Final = 3.0
"""Longer than an election takes; all items stay locked meanwhile."""
FINISH_S: Final = 10.0
"""How long the coordinator goes on after the answer, before it leaves the rest to the sweep."""
CLOSE_S: Final = 0.5
"""When a node stops: else items of committed transactions would stay locked until the sweep comes."""
ROUNDS_MAX: Final = 8
"""Of reads, until two that follow one another are the same. Each takes a few milliseconds, and so does a write."""
ATTEMPTS_MAX: Final = 3
"""As long as nothing but other transactions is in the way; the second and third wait for their first item."""
WAIT_S: Final = 1.0
"""As long as some twenty transactions take, one after the other."""
CHOICES_MAX: Final = 3
"""Of a ledger for its record: each is by a newer map."""
_POLL_S: Final = (0.005, 0.025)


class TransactItem(msgspec.Struct, frozen=True):
    """What a transaction does to one item."""

    table: Table
    key: bytes
    payload: bytes
    """In the words of the wire."""
    is_check: bool = False
    """Only the condition counts."""


class _Attempt(msgspec.Struct, frozen=True):
    """One attempt of a transaction that this node coordinates."""

    id: bytes
    number: int
    items: tuple[TransactItem, ...]
    is_kept: bool

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple((item.table.id, item.key) for item in self.items)


class Transactions:
    """This node as coordinator of transactions; see the module's docstring."""

    def __init__(
        self,
        ledger: Ledger,
        recovery: Recovery,
        items: Items,
        *,
        rng: random.Random,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Keep records in ``ledger`` and change ``items``; ``on_error`` is told of bugs met after an answer."""
        self.under_way = UnderWay("transactions through this node", TRANSACTIONS_MAX)
        self.recovery = recovery
        self._ledger = ledger
        self._records = Records(ledger, recovery, rng=rng)
        self._items = items
        self._rng = rng
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[Any], None] = {}
        self._finishing: dict[asyncio.Task[Any], None] = {}
        self.committed = 0
        self.cancelled = 0

    async def write(
        self, items: Sequence[TransactItem], *, token: bytes | None = None, digest: bytes = b"", deadline: float
    ) -> list[bytes]:
        """Do what ``items`` say, all of it or nothing; returns what the wire's steps answered.

        Args:
            items: 1 to `ITEMS_MAX`, no item twice, all of leader-based tables.
            token: of the client, and of nobody else: repeated within ten minutes it is done once, and then answered
                with empty answers. It is forgotten earlier if every table of its transaction is dropped.
            digest: of the request and the ids of its tables, to tell a repeated one from another one under the token.
            deadline: loop time.

        Raises:
            TransactionCanceledError: an item kept it from happening; it has not happened and will not.
            TransactionInProgressError: one with that token is under way.
            IdempotentParameterMismatchError: the token is that of another request.
            RequestError: it makes no sense; nothing has happened.
            UnavailableError: nothing has happened, and nothing will.
            UnknownOutcomeError: all of it may have happened, or nothing.
        """
        _check(tuple(items))
        work = self._write(tuple(items), token, digest, deadline)
        return await asyncio.shield(self._spawn(work, self._running))

    async def get(self, places: Sequence[tuple[Table, bytes]], *, deadline: float) -> list[bytes | None]:
        """Return the values of items as they are at one instant between the call and its end.

        Args:
            places: table and key of each, 1 to `ITEMS_MAX`, none twice.
            deadline: loop time.

        Raises:
            TransactionCanceledError: they change so fast that no such instant was found.
            RequestError: a table is gone, or not leader-based.
            UnavailableError: they could not all be read by ``deadline``.
        """
        _check_places([(table, key) for table, key in places])
        with self.under_way:
            seen = await self._read_all(places, deadline)
            for _ in range(ROUNDS_MAX - 1 if len(places) > 1 else 0):
                again = await self._read_all(places, deadline)
                moved = transaction.moved(seen, again)
                if not any(moved):
                    break
                seen = again
            else:
                if len(places) > 1:
                    raise TransactionCanceledError(
                        "items were written while they were read, again and again; try again",
                        [Reason(ReasonKind.CONFLICT) if has_moved else None for has_moved in moved],
                    )
            return [item.value for item in seen]

    async def close(self) -> None:
        """Stop, after a moment for what is under way; what is left then is ended by others."""
        tasks = [*self._running, *self._finishing]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in (tasks := [*self._running, *self._finishing]):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def idle(self) -> None:
        """Return once nothing goes on after answers any more."""
        while self._running or self._finishing:
            await asyncio.wait([*self._running, *self._finishing])

    async def _write(
        self, items: tuple[TransactItem, ...], token: bytes | None, digest: bytes, deadline: float
    ) -> list[bytes]:
        with self.under_way:
            transaction_id = self._rng.randbytes(ID_SIZE) if token is None else _id_of(token)
            for _ in range(CHOICES_MAX):
                chosen = self._ledger.chosen(transaction_id, [item.table for item in items])
                if token is not None and not await self._records.bar(chosen, digest, deadline=deadline):
                    return [b""] * len(items)
                answers = await self._write_by(chosen, items, digest, deadline, is_kept=token is not None)
                if answers is not None:
                    return answers
                await self._ledger.look_for_news()
            raise UnavailableError("the policy of a table has changed, which this node does not know yet: try again")

    async def _write_by(
        self, chosen: Chosen, items: tuple[TransactItem, ...], digest: bytes, deadline: float, *, is_kept: bool
    ) -> list[bytes] | None:
        """Do it, with a record where it is by one map; None if there is a newer one, by which it is elsewhere."""
        for number in range(ATTEMPTS_MAX):
            attempt = _Attempt(chosen.id, 1 + self._rng.getrandbits(ATTEMPT_BITS), items, is_kept=is_kept)
            opened = await self._begin(attempt, digest, chosen.epoch, deadline)
            if opened is Opened.BARRED:
                return None
            if opened is Opened.HAPPENED:
                return [b""] * len(items)
            answers, wrong = await self._prepare_all(attempt, deadline, is_patient=number > 0)
            outcome = transaction.outcome(answers)
            if outcome is Outcome.COMMIT:
                told = [answer.answer for answer in answers if isinstance(answer, Ready)]
                await self._commit(attempt, told, deadline)
                return told
            await self._abort(attempt, answers, deadline)
            if outcome is not Outcome.COLLIDE or wrong or self._loop.time() + WAIT_S > deadline:
                break
        raise self._failure(outcome, answers, wrong)

    async def _begin(self, attempt: _Attempt, digest: bytes, epoch: int, deadline: float) -> Opened:
        """Open the record, chosen by the map of ``epoch``."""
        begin = Begin(attempt.id, attempt.number, digest, attempt.places, attempt.is_kept, epoch)
        try:
            opened = await self._records.open(begin, deadline=deadline)
        except UnknownOutcomeError as error:
            self._leave(self._end(attempt))
            raise UnavailableError(f"the transaction was not begun for certain, and is given up: {error}") from None
        if opened is Opened.OVERTAKEN:
            raise self._overtaken(attempt)
        return opened

    async def _prepare_all(
        self, attempt: _Attempt, deadline: float, *, is_patient: bool
    ) -> tuple[list[PrepareAnswer | None], list[MerganserError]]:
        """Return what the items answered, None for those that did not, and what was wrong with those.

        A patient attempt locks the first item in the order of keys before all others, and waits for it: of several
        transactions on the same items one goes on, as none holds what another waits for.
        """
        items, told = attempt.items, list[PrepareAnswer | MerganserError | None]([None] * len(attempt.items))
        left = list(range(len(items)))
        if is_patient:
            first = min(left, key=lambda place: (items[place].table.id, items[place].key))
            left.remove(first)
            told[first] = await self._prepare_first(attempt, items[first], deadline)
            if isinstance(told[first], Held):
                left = []
        within = min(deadline, self._loop.time() + PREPARE_S)
        ended = await ended_all(self._prepare(attempt, items[place], within) for place in left)
        for place, answer in zip(left, ended, strict=True):
            told[place] = answer
        return (
            [None if isinstance(answer, MerganserError) else answer for answer in told],
            [answer for answer in told if isinstance(answer, MerganserError)],
        )

    async def _prepare_first(
        self, attempt: _Attempt, item: TransactItem, deadline: float
    ) -> PrepareAnswer | MerganserError:
        """Prepare an item as soon as nobody else holds it; nothing is locked meanwhile."""
        give_up_at = min(deadline, self._loop.time() + WAIT_S)
        while True:
            within = min(deadline, self._loop.time() + PREPARE_S)
            (answer,) = await ended_all([self._prepare(attempt, item, within)])
            if not isinstance(answer, Held) or self._loop.time() >= give_up_at:
                return answer
            await asyncio.sleep(self._rng.uniform(*_POLL_S))

    async def _prepare(self, attempt: _Attempt, item: TransactItem, deadline: float) -> PrepareAnswer:
        step = Prepare(attempt.id, attempt.number, item.payload, item.is_check)
        answer = await self._prepare_once(item, step, deadline)
        if not isinstance(answer, Held):
            return answer
        fate = await self.recovery.pressed(answer.transaction, answer.attempt, deadline=deadline)
        if fate is Fate.PENDING:
            return answer
        await self.recovery.settle(item.table, item.key, answer.transaction, answer.attempt, fate, deadline=deadline)
        return await self._prepare_once(item, step, deadline)

    async def _prepare_once(self, item: TransactItem, step: Prepare, deadline: float) -> PrepareAnswer:
        """Send Prepare. It is never sent again unless the item was certainly not locked: it could come a second time
        after all was applied, and lock the item for what has already happened."""
        changed = await self._items.change(
            item.table, item.key, TRANSACTIONS, transaction.payload_of(step), deadline=deadline
        )
        return transaction.prepare_answer_in(changed.answer)

    async def _commit(self, attempt: _Attempt, answers: Sequence[bytes], deadline: float) -> None:
        """Return once the transaction has happened."""
        try:
            told, was_unknown = await self._records.insist(attempt.id, Commit(attempt.number), deadline=deadline)
        except (UnavailableError, UnknownOutcomeError):
            self._leave(self._end(attempt))
            raise
        if not told.is_rejected:
            self.committed += 1
            self._leave(self._settle(attempt, attempt.places, Fate.COMMITTED))
            return
        if told.record is None and was_unknown:  # decided, finished and forgotten since then
            raise UnknownOutcomeError("the ledger has no record of the transaction any more: it may have happened")
        raise self._overtaken(attempt, answers)

    async def _abort(self, attempt: _Attempt, answers: Sequence[PrepareAnswer | None], deadline: float) -> None:
        """Return once it is certain, for everybody, that the transaction has not happened."""
        try:
            await self._records.insist(attempt.id, Abort(attempt.number), deadline=deadline)
        except (UnavailableError, UnknownOutcomeError) as error:
            self._leave(self._end(attempt))
            raise UnavailableError(f"nothing was written, but the transaction could not be ended: {error}") from None
        locked = [
            place
            for place, answer in zip(attempt.places, answers, strict=True)
            if not isinstance(answer, Failed | Held)
        ]
        self._leave(self._settle(attempt, locked, Fate.ABORTED))

    def _failure(
        self, outcome: Outcome, answers: Sequence[PrepareAnswer | None], wrong: Sequence[MerganserError]
    ) -> MerganserError:
        """Return what the client hears of a transaction that was aborted because of its items."""
        for error in wrong:
            if isinstance(error, RequestError):
                return error
        if outcome is not Outcome.GIVE_UP:
            self.cancelled += 1
            told = [answer.answer if isinstance(answer, Ready) else None for answer in answers]
            return TransactionCanceledError(
                "items kept the transaction from happening", transaction.reasons(answers), told
            )
        for error in wrong:
            if isinstance(error, OverloadedError):
                return error
        return UnavailableError(f"the transaction was given up, nothing was written: {wrong[0]}")

    def _overtaken(self, attempt: _Attempt, answers: Sequence[bytes] | None = None) -> TransactionCanceledError:
        """Return what the client hears if someone who needed an item has aborted the transaction."""
        self.cancelled += 1
        return TransactionCanceledError(
            "another request needed its items before the transaction was decided",
            [Reason(ReasonKind.CONFLICT)] * len(attempt.items),
            answers,
        )

    async def _end(self, attempt: _Attempt) -> None:
        """End an attempt that nobody waits for any more, one way or the other: abort it unless it is committed."""
        try:
            abort, until = Abort(attempt.number), self._loop.time() + FINISH_S
            told, _ = await self._records.insist(attempt.id, abort, deadline=until)
        except (UnavailableError, UnknownOutcomeError):
            return  # whoever meets it goes on
        fate = transaction.fate(told.record, attempt.number)
        if fate is not Fate.VOID:
            await self._settle(attempt, attempt.places, fate)

    async def _settle(self, attempt: _Attempt, places: Sequence[Place], fate: Fate) -> None:
        """Apply or clear everywhere, then finish or remove the record; what fails is left to the sweep."""
        give_up_at = self._loop.time() + FINISH_S
        pause_s = PAUSE_S[0]
        while places:
            deadline = self._loop.time() + TRY_S
            places = await self.recovery.settle_all(places, attempt.id, attempt.number, fate, deadline=deadline)
            if self._loop.time() > give_up_at:
                return
            if places:
                await asyncio.sleep(self._rng.uniform(pause_s / 2, pause_s))
                pause_s = min(pause_s * 2, PAUSE_S[1])
        last: LedgerStep = Forget(attempt.number)
        if attempt.is_kept and fate is Fate.COMMITTED:
            last = Finish(attempt.number)
        try:
            await self._ledger.change(attempt.id, last, deadline=self._loop.time() + TRY_S)
        except (UnavailableError, UnknownOutcomeError):
            return

    async def _read_all(self, places: Sequence[tuple[Table, bytes]], deadline: float) -> list[Seen]:
        found = await ended_all(
            self._items.read(table, key, is_consistent=True, deadline=deadline) for table, key in places
        )
        seen = []
        for led in found:
            if isinstance(led, MerganserError):
                raise led
            seen.append(Seen(led.version, led.value))
        return seen

    def _leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` after the answer, if there is room for it."""
        if len(self._finishing) >= FINISHING_MAX:
            work.close()
        else:
            self._spawn(work, self._finishing).add_done_callback(self._report)

    def _spawn(self, work: Coroutine[Any, Any, Any], among: dict[asyncio.Task[Any], None]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        among[task] = None
        task.add_done_callback(lambda ended: _note_end(ended, among))
        return task

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)


def _note_end(task: asyncio.Task[Any], among: dict[asyncio.Task[Any], None]) -> None:
    del among[task]
    if not task.cancelled():
        task.exception()  # the client may have gone; if not it gets the error itself


def _check(items: tuple[TransactItem, ...]) -> None:
    _check_places([(item.table, item.key) for item in items])


def _check_places(places: Sequence[tuple[Table, bytes]]) -> None:
    assert 1 <= len(places) <= ITEMS_MAX, "the wire checks how many items its client asked for"
    assert len({(table.id, key) for table, key in places}) == len(places), "the wire refuses an item named twice"
    for table, _ in places:
        if not table.has_leaders:
            raise RequestError(f"table {table.name} is leaderless: transactions need tables that have leaders")


def _id_of(token: bytes) -> bytes:
    return hashlib.blake2b(token, digest_size=ID_SIZE, person=b"transaction").digest()
