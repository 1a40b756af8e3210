"""What the clients of a run can do to items of its leader-based table; all they ask and hear goes into the history.

Requests go through `LeaderBased` and `Transactions` of a machine's member, by way of `Clients.ask`: they run on the
machine they are sent to and die with it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from merganser.model.cluster import Table
from merganser.model.consistency import Need
from merganser.model.errors import (
    IdempotentParameterMismatchError,
    InvariantError,
    MerganserError,
    RequestError,
    TransactionCanceledError,
    UnavailableError,
)
from merganser.model.ids import TableId
from merganser.service.steps import WIRES
from merganser.service.transactions import TransactItem
from merganser.sim.checkers.linearizable import Action, Add, CompareAndSet, Operation, Put, Read
from merganser.sim.checkers.serializable import Appended, Ending, Listed, Transaction
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, name_of
from merganser.sim.history import Failure
from merganser.sim.item_history import Glimpse, Heard, IndexLook, Page, QueryPage
from merganser.sim.local_keys import BY_END
from merganser.sim.machine import Machine
from merganser.sim.steps import Add as AddStep
from merganser.sim.steps import Append, Check, Step, elements_in, evaluate, payload_of, value_in
from merganser.sim.steps import CompareAndSet as CompareAndSetStep
from merganser.sim.steps import Put as PutStep
from merganser.storage import keys

TOKEN_BYTES = 16
_DENIALS = (TransactionCanceledError, IdempotentParameterMismatchError)


class Ended(enum.Enum):
    """What a client knows of a step it asked for."""

    DONE = "done"
    REJECTED = "rejected"
    UNDONE = "undone"
    """Certainly."""
    UNKNOWN = "unknown"


class Answer(msgspec.Struct, frozen=True):
    """What came of a step."""

    ended: Ended
    was: bytes | None = None
    """What the item was before it; if it was done or rejected."""


class ItemClients:
    """The clients of one run on one leader-based table; see the module's docstring."""

    def __init__(self, clients: Clients) -> None:
        """Ask through ``clients``."""
        self.clients = clients
        self.rng = clients.rng
        self._table = clients.table
        self._history = clients.history
        self._loop = clients.world.loop

    async def change(self, machine: Machine, key: bytes, step: Step, *, client: int, is_noted: bool = True) -> Answer:
        """Do one step on one item; ``is_noted`` as one of the operations on it that happen one at a time."""
        if machine.member is None:
            return Answer(Ended.UNDONE)
        began_s = self._loop.time()
        work = machine.member.leader_tables.leader_based.change(
            self._table, key, WIRES, payload_of(step), deadline=began_s + REQUEST_TIMEOUT_S
        )
        what = f"{name_of(key)}: {step}"
        task = await self.clients.ask(machine, work, what, client)
        ended = _ended(task)
        self._note_failure(task, what, key, machine, began_s)
        answer = Answer(ended)
        if ended is Ended.DONE:
            changed = task.result()
            answer = Answer(Ended.REJECTED if changed.is_rejected else Ended.DONE, value_in(changed.answer))
            becomes = evaluate(self._table, payload_of(step), answer.was).content
            value = answer.was if becomes is None else becomes.value
            self._history.items.heard.append(
                Heard(key, value, changed.version, becomes is not None, began_s, self._loop.time())
            )
        if is_noted:
            self._note(key, step, answer, began_s)
        else:
            self._history.items.has_others = True
        return answer

    async def read(self, machine: Machine, key: bytes, *, client: int) -> Read | None:
        """Read an item consistently; None if there was no answer."""
        began_s = self._loop.time()
        led = await self._read(machine, key, is_consistent=True, client=client)
        if led is None:
            return None
        self._history.items.heard.append(Heard(key, led.value, led.version, False, began_s, self._loop.time()))
        return Read(led.value)

    async def glance(self, machine: Machine, key: bytes, *, client: int) -> None:
        """Read an item with eventual consistency."""
        began_s = self._loop.time()
        led = await self._read(machine, key, is_consistent=False, client=client)
        if led is not None:
            self._history.items.glimpses.append(Glimpse(key, led.value, began_s, self._loop.time()))

    async def read_item(self, machine: Machine, key: bytes, *, client: int) -> Read | None:
        """Read an item consistently, as one of the operations on it that happen one at a time."""
        began_s = self._loop.time()
        read = await self.read(machine, key, client=client)
        if read is not None:
            self._history.items.operations.append(Operation(key, read, began_s, self._loop.time()))
        return read

    async def read_list(self, machine: Machine, key: bytes, *, client: int) -> tuple[bytes, ...] | None:
        """Read a list consistently, as one of the transactions that happen one at a time."""
        began_s = self._loop.time()
        read = await self.read(machine, key, client=client)
        if read is None:
            return None
        elements = elements_in(read.value)
        self._history.items.transactions.append(Transaction((Listed(key, elements),), began_s, self._loop.time()))
        return elements

    async def scan(self, *, client: int, is_reverse: bool, is_consistent: bool, is_hasty: bool = False) -> bool:
        """Read the whole table page by page, each page through a drawn node; False as soon as one is not answered."""
        start, end = keys.table_range(self._table.id)
        while start < end:
            if not is_hasty:
                await self.clients.think()
            machine = self.clients.any_node()
            if machine is None or machine.member is None:
                return False
            began_s = self._loop.time()
            work = machine.member.leader_tables.leader_based.read_range(
                self._table,
                start,
                end,
                reverse=is_reverse,
                is_consistent=is_consistent,
                rows_max=self.rng.randint(1, 20),
                bytes_max=self.rng.choice((1, 300, 100_000)),
                deadline=began_s + REQUEST_TIMEOUT_S,
            )
            what = f"{'consistent' if is_consistent else 'eventual'} page {'back' if is_reverse else 'forth'}"
            task = await self.clients.ask(machine, work, what, client)
            self._note_failure(task, what, None, machine, began_s)
            if _ended(task) is not Ended.DONE:
                return False
            page = task.result()
            low, high = start, end
            if page.resume is not None:
                low, high = (page.resume, end) if is_reverse else (start, page.resume)
            self._history.items.pages.append(
                Page(low, high, is_reverse, is_consistent, page.rows, began_s, self._loop.time())
            )
            if page.resume is None:
                break
            start, end = (start, page.resume) if is_reverse else (page.resume, end)
        return True

    async def query(
        self, machine: Machine, whole: bytes, *, client: int, is_reverse: bool, is_consistent: bool
    ) -> bool:
        """Read the items of a partition key in the order of a local index, to the end; False if one page is missing.

        Args:
            machine: asked for all pages.
            whole: what the keys of the items begin with.
        """
        start = keys.entry_prefix(whole, BY_END)
        end = keys.prefix_end(start)
        rows_max, is_first = self.rng.choice((1, 3, 100)), True
        while machine.member is not None:
            began_s = self._loop.time()
            work = machine.member.leader_tables.leader_based.read_range(
                self._table,
                start,
                end,
                reverse=is_reverse,
                is_consistent=is_consistent,
                rows_max=rows_max,
                bytes_max=100_000,
                deadline=began_s + REQUEST_TIMEOUT_S,
                index=BY_END,
            )
            what = f"{'consistent' if is_consistent else 'eventual'} query {'back' if is_reverse else 'forth'}"
            task = await self.clients.ask(machine, work, what, client)
            self._note_failure(task, what, whole, machine, began_s, is_of_leader=is_consistent)
            if _ended(task) is not Ended.DONE:
                return False
            page = task.result()
            low, high = start, end
            if page.resume is not None:
                low, high = (page.resume, end) if is_reverse else (start, page.resume)
            told_of = whole if is_first and page.resume is None else None
            self._history.items.queries.append(
                QueryPage(low, high, is_reverse, is_consistent, page.rows, told_of, began_s, self._loop.time())
            )
            if page.resume is None:
                return True
            start, end = (start, page.resume) if is_reverse else (page.resume, end)
            is_first = False
        return False

    async def put_together(
        self, machine: Machine, values: Sequence[tuple[bytes, bytes | None]], *, client: int
    ) -> None:
        """Put several items in one transaction, which for each of them is a put like any other."""
        began_s = self._loop.time()
        ended = await self.transact(machine, [(key, PutStep(value)) for key, value in values], client=client)
        if ended in (Ended.DONE, Ended.UNKNOWN):
            ended_s = self._loop.time() if ended is Ended.DONE else inf
            self._history.items.operations += [Operation(key, Put(value), began_s, ended_s) for key, value in values]

    async def look_at_index(self, machine: Machine, base: Table, index: TableId, *, client: int) -> None:
        """Read one page of an index of ``base``, one way or the other."""
        table = None if machine.member is None else machine.member.topology.table(index)
        if machine.member is None or table is None:
            return
        start, end = keys.table_range(index)
        began_s = self._loop.time()
        work = machine.member.leader_tables.leader_based.read_index(
            table,
            start,
            end,
            reverse=self.rng.random() < 0.5,
            rows_max=self.rng.randint(1, 20),
            bytes_max=100_000,
            deadline=began_s + REQUEST_TIMEOUT_S,
        )
        what = f"page of index {table.name}"
        task = await self.clients.ask(machine, work, what, client)
        self._note_failure(task, what, None, machine, began_s, is_of_leader=False)
        if _ended(task) is Ended.DONE:
            self._history.items.index_looks.append(IndexLook(base, task.result().rows, began_s, self._loop.time()))

    async def transact(
        self,
        machine: Machine,
        steps: Sequence[tuple[bytes, Step]],
        *,
        client: int,
        token: bytes | None = None,
        has_happened: bool = False,
    ) -> Ended:
        """Do steps on several items at once; of these, all are done or none is.

        Args:
            machine: asked for it.
            steps: of keys.
            client: who asks.
            token: that repeated requests share.
            has_happened: it was done under that token already, less than ten minutes ago.
        """
        if machine.member is None:
            return Ended.UNDONE
        began_s = self._loop.time()
        self._history.items.has_transactions = True
        items = [TransactItem(self._table, key, payload_of(step), isinstance(step, Check)) for key, step in steps]
        digest = b"".join(item.key + item.payload for item in items)
        work = machine.member.leader_tables.transactions.write(
            items, token=token, digest=digest, deadline=began_s + REQUEST_TIMEOUT_S
        )
        what = f"transaction {', '.join(f'{name_of(key)}: {step}' for key, step in steps)}"
        task = await self.clients.ask(machine, work, what, client)
        self._note_failure(task, what, None, machine, began_s)
        ended = _ended(task)
        if has_happened and task.done() and isinstance(task.exception(), _DENIALS):
            self._history.items.denied.append(f"{what}: {task.exception()!r}")
        self._history.items.committed += ended is Ended.DONE
        self._history.items.undecided += ended is Ended.UNKNOWN
        return ended

    async def snapshot(self, machine: Machine, names: Sequence[bytes], *, client: int) -> list[bytes | None] | None:
        """Read several items at one instant; None if there was no answer."""
        if machine.member is None:
            return None
        began_s = self._loop.time()
        work = machine.member.leader_tables.transactions.get(
            [(self._table, key) for key in names], deadline=began_s + REQUEST_TIMEOUT_S
        )
        what = f"snapshot of {', '.join(map(name_of, names))}"
        task = await self.clients.ask(machine, work, what, client)
        self._note_failure(task, what, None, machine, began_s)
        return list(task.result()) if _ended(task) is Ended.DONE else None

    def new_token(self) -> bytes:
        """Return what no other transaction of the run goes by."""
        return self.rng.randbytes(TOKEN_BYTES)

    def note_transaction(self, actions: tuple[Listed | Appended, ...], ended: Ended, began_s: float) -> None:
        """Note what a transaction over lists came to."""
        if ended is Ended.UNKNOWN:
            transaction = Transaction(actions, began_s, ending=Ending.UNKNOWN)
        else:
            ending = Ending.COMMITTED if ended is Ended.DONE else Ending.ABORTED
            transaction = Transaction(actions, began_s, self._loop.time(), ending)
        self._history.items.transactions.append(transaction)

    async def _read(self, machine: Machine, key: bytes, *, is_consistent: bool, client: int) -> Any:
        if machine.member is None:
            return None
        began_s = self._loop.time()
        work = machine.member.leader_tables.leader_based.read(
            self._table, key, is_consistent=is_consistent, deadline=began_s + REQUEST_TIMEOUT_S
        )
        what = f"{'consistent' if is_consistent else 'eventual'} read of {name_of(key)}"
        task = await self.clients.ask(machine, work, what, client)
        self._note_failure(task, what, key, machine, began_s, is_of_leader=is_consistent)
        return task.result() if _ended(task) is Ended.DONE else None

    def _note(self, key: bytes, step: Step, answer: Answer, began_s: float) -> None:
        ended_s = self._loop.time()
        if isinstance(step, Append):
            self._note_append(key, step, answer, began_s)
        elif answer.ended is Ended.REJECTED:
            self._history.items.operations.append(Operation(key, Read(answer.was), began_s, ended_s))
        elif answer.ended is Ended.DONE:
            becomes = evaluate(self._table, payload_of(step), answer.was).content
            action = Read(answer.was) if becomes is None else CompareAndSet(answer.was, becomes.value)
            self._history.items.operations.append(Operation(key, action, began_s, ended_s))
        elif answer.ended is Ended.UNKNOWN:
            self._history.items.operations.append(Operation(key, _if_done(step), began_s))

    def _note_append(self, key: bytes, step: Append, answer: Answer, began_s: float) -> None:
        appended = Appended(key, step.element)
        if answer.ended is Ended.DONE:
            self.note_transaction((Listed(key, elements_in(answer.was)), appended), Ended.DONE, began_s)
        elif answer.ended is Ended.REJECTED:
            self.note_transaction((Listed(key, elements_in(answer.was)),), Ended.DONE, began_s)
        else:
            self.note_transaction(actions_of([(key, step)]), answer.ended, began_s)

    def _note_failure(
        self,
        task: asyncio.Task[Any],
        what: str,
        key: bytes | None,
        machine: Machine,
        began_s: float,
        *,
        is_of_leader: bool = True,
    ) -> None:
        """Note a request that was not answered, if only with what keeps it from being done."""
        error = task.exception() if task.done() else None
        if not task.done() or (error is not None and not isinstance(error, RequestError)):
            some = self._table.n // 2 + 1 if is_of_leader else 1
            self._history.failures.append(
                Failure(what, key, machine.node, Need(some, some), began_s, self._loop.time(), is_of_leader)
            )


def actions_of(steps: Sequence[tuple[bytes, Step]]) -> tuple[Listed | Appended, ...]:
    """Return what checks and appends have seen and done if they are done; checks come first."""
    seen: list[Listed | Appended] = []
    for key, step in steps:
        if isinstance(step, Check):
            seen.append(Listed(key, elements_in(step.expected)))
        elif isinstance(step, Append) and step.expected is not None:
            seen.append(Listed(key, step.expected))
    return (*seen, *(Appended(key, step.element) for key, step in steps if isinstance(step, Append)))


def _if_done(step: Step) -> Action:
    """Return what a step of unknown outcome does to its item, if it is done."""
    match step:
        case PutStep(value):
            return Put(value)
        case CompareAndSetStep(expected, value):
            return CompareAndSet(expected, value)
        case AddStep(amount, 0, None):
            return Add(amount)
    raise InvariantError(f"no checker knows what {step} does")


def _ended(task: asyncio.Task[Any]) -> Ended:
    if not task.done():
        return Ended.UNKNOWN
    error = task.exception()
    if error is None:
        return Ended.DONE
    if isinstance(error, UnavailableError | RequestError):
        return Ended.UNDONE
    if isinstance(error, MerganserError):
        return Ended.UNKNOWN
    raise error
