"""What the clients of a run can do to keys of a key-value table; all they ask and hear goes into the history.

Each client keeps the context it was given last for each key, and what that has seen by its own account: the history
then tells what a put may have replaced without a look into any context.
"""

from __future__ import annotations

import msgspec

from merganser.core.token import token_of
from merganser.model.consistency import Consistency, Need
from merganser.model.contents import Condition, Content, Tag
from merganser.model.errors import MerganserError, PreconditionFailedError, RequestError, UnavailableError
from merganser.service.shortfall import OUTRANKED
from merganser.sim.clients import REQUEST_TIMEOUT_S, Clients, member_of, name_of
from merganser.sim.history import Failure, KeyList, TagQuery, ValuePut, ValuesRead
from merganser.sim.machine import Machine
from merganser.storage import keys

TAG = "t"
"""Name of the tags of values that have any."""
PAGE = 3
"""Rows of a query, so that most take several pages."""


class Known(msgspec.Struct, frozen=True):
    """What a client knows of a key."""

    context: bytes = b""
    seen: frozenset[bytes] = frozenset()
    """The values, and deletes, that the context has seen."""
    values: frozenset[bytes] = frozenset()
    """What it read last, or put itself since."""
    as_of_s: float = 0.0
    """What began later it cannot have seen, but for its own puts."""


NOTHING_KNOWN = Known()


class ValueClients:
    """The clients of one run on one key-value table; see the module's docstring."""

    def __init__(self, clients: Clients) -> None:
        """Ask through ``clients``."""
        self.clients = clients
        self.rng = clients.rng
        self.puts: dict[bytes, ValuePut] = {}
        """By value."""
        self._history = clients.history
        self._loop = clients.world.loop
        self._known: dict[tuple[int, bytes], Known] = {}

    def known(self, client: int, key: bytes) -> Known:
        """Return what ``client`` knows of ``key``."""
        return self._known.get((client, key), NOTHING_KNOWN)

    async def get(
        self, machine: Machine, key: bytes, *, client: int, level: Consistency = Consistency.QUORUM
    ) -> Known | None:
        """Read a key at QUORUM, or more; None if there was no answer."""
        began_s = self._loop.time()
        work = member_of(machine).key_values.get(
            self.clients.table, key, level=level, deadline=began_s + REQUEST_TIMEOUT_S
        )
        what = f"get {name_of(key)} at {level.value}"
        task = await self.clients.ask(machine, work, what, client)
        error = task.exception() if task.done() else None
        is_answered = task.done() and error is None
        self._note_failure(what, key, machine, began_s, level, is_answered=is_answered)
        if error is not None and not isinstance(error, MerganserError):
            raise error
        if not task.done() or error is not None:
            return None
        values = frozenset(sibling.value for sibling in task.result().siblings)
        self._history.value_reads.append(ValuesRead(key, values, began_s, self._loop.time(), client))
        return self.learn(client, key, task.result().context, values)

    async def put(
        self,
        machine: Machine,
        key: bytes,
        *,
        client: int,
        knowing: Known,
        is_delete: bool = False,
        items: frozenset[str] = frozenset(),
        tags: frozenset[int] = frozenset(),
        only_if: Condition | None = None,
    ) -> ValuePut:
        """Put a new value (or delete) in the place of what was seen with ``knowing``, if ``only_if`` is so."""
        began_s = self._loop.time()
        value = self.clients.new_value()
        put = ValuePut(
            key,
            value,
            is_delete,
            knowing.seen,
            began_s,
            client=client,
            items=items,
            tags=tags,
            only_if=only_if,
            as_of_s=knowing.as_of_s,
        )
        self._history.value_puts.append(put)
        self.puts[value] = put
        values, table = member_of(machine).key_values, self.clients.table
        level, deadline = Consistency.QUORUM, began_s + REQUEST_TIMEOUT_S
        if is_delete:
            work = values.delete(table, key, context=knowing.context, only_if=only_if, level=level, deadline=deadline)
        else:
            content = Content(value, tags=tuple(Tag(TAG, tag) for tag in sorted(tags)))
            work = values.put(
                table, key, content, context=knowing.context, only_if=only_if, level=level, deadline=deadline
            )
        what = f"{'delete' if is_delete else 'put'} {name_of(key)} {value!r} in the place of {sorted(knowing.seen)}"
        what += "" if only_if is None else f" if {only_if.value}"
        task = await self.clients.ask(machine, work, what, client)
        put.ended_s = self._loop.time()
        error = task.exception() if task.done() else None
        is_answered = task.done() and error is None
        # a put that was made by a clock far behind is not made again under a later dot: enough replicas have answered
        is_sealed = error is not None and OUTRANKED in str(error)
        put.is_refused = isinstance(error, PreconditionFailedError)
        is_answered = is_answered or is_sealed or put.is_refused
        self._note_failure(what, key, machine, began_s, level, is_answered=is_answered, is_of_one=only_if is not None)
        if not task.done():
            return put
        if error is None:
            put.acked_s = self._loop.time()
            self.wrote(client, put, knowing, task.result())
        elif isinstance(error, UnavailableError | RequestError):
            put.is_certainly_unwritten = True
        elif not isinstance(error, MerganserError):
            raise error
        return put

    def learn(self, client: int, key: bytes, context: bytes, values: frozenset[bytes]) -> Known:
        """Note what ``client`` has read; returns what it knows then."""
        known = self._known[client, key] = Known(context, self._seen_with(values), values, self._loop.time())
        return known

    def wrote(self, client: int, put: ValuePut, knowing: Known, context: bytes) -> None:
        """Note that a put of ``client`` was acknowledged, with the context to go on with."""
        mine = frozenset() if put.is_delete else frozenset({put.value})
        # where the last write wins, a context of this write is later than all that ended before it
        as_of_s = self._loop.time() if self._history.last_write_wins else knowing.as_of_s
        self._known[client, put.key] = Known(context, knowing.seen | {put.value}, mine, as_of_s)

    async def find(self, machine: Machine, low: int, high: int, *, client: int) -> bool:
        """Query for tags from ``low`` to ``high``, page by page, at QUORUM; returns whether all was answered."""
        began_s, resume = self._loop.time(), None
        found: list[tuple[int, bytes]] = []
        table = self.clients.table
        what = f"find tags {low} to {high}"
        while True:
            work = member_of(machine).tag_queries.find(
                table,
                TAG,
                low=low,
                high=high,
                is_integer=True,
                resume=resume,
                most=PAGE,
                level=Consistency.QUORUM,
                deadline=self._loop.time() + REQUEST_TIMEOUT_S,
            )
            task = await self.clients.ask(machine, work, what, client)
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, MerganserError):
                raise error
            if not task.done() or error is not None or machine.member is None:
                return False
            page = task.result()
            found += [
                (value, keys.row_key(table.id, token_of(key), key))
                for value, key in page.found
                if isinstance(value, int)
            ]
            resume = page.resume
            if resume is None:
                break
        self._history.tag_queries.append(TagQuery(low, high, tuple(found), began_s, self._loop.time(), client))
        return True

    async def list_keys(self, machine: Machine, *, client: int) -> bool:
        """List all keys, page by page, at QUORUM; returns whether all was answered."""
        began_s, resume = self._loop.time(), None
        found: list[bytes] = []
        table = self.clients.table
        while True:
            deadline = self._loop.time() + REQUEST_TIMEOUT_S
            work = member_of(machine).key_lists.page(
                table, resume=resume, most=PAGE, level=Consistency.QUORUM, deadline=deadline
            )
            task = await self.clients.ask(machine, work, "list keys", client)
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, MerganserError):
                raise error
            if not task.done() or error is not None or machine.member is None:
                return False
            page = task.result()
            found += [keys.row_key(table.id, token_of(key), key) for key in page.keys]
            resume = page.resume
            if resume is None:
                break
        self._history.key_lists.append(KeyList(tuple(found), began_s, self._loop.time(), client))
        return True

    def _seen_with(self, values: frozenset[bytes]) -> frozenset[bytes]:
        """Return what a reader of ``values`` has seen for sure: these, and what those who put them had seen."""
        return values.union(*(self.puts[value].seen for value in values if value in self.puts))

    def _note_failure(
        self,
        what: str,
        key: bytes,
        machine: Machine,
        began_s: float,
        level: Consistency,
        *,
        is_answered: bool,
        is_of_one: bool = False,
    ) -> None:
        """Note what was not answered; ``is_of_one``: one replica alone could do it, as a leader does."""
        if not is_answered:
            required = level.required(self.clients.table.n)
            self._history.failures.append(
                Failure(
                    what,
                    key,
                    machine.node,
                    Need(required, required),
                    began_s,
                    self._loop.time(),
                    is_of_leader=is_of_one,
                )
            )
