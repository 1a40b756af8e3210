"""Tables of values that merge themselves (`core.crdt`): get and update, through any node.

An update reads what the key holds, makes a delta of that and of its operations, and writes the delta as any row: all
N replicas merge it, hints are kept for those that are away::

    client --update--> any node --Read--> R replicas
                       any node --Mint--> a replica       dots for the cells of the delta
                       any node --Apply(delta)--> N replicas

Who counts does so under a session. A client that wants an update made once, however often it has to send it, opens
one (`open_session`), and gives each update of a key a number: such updates are read and written at QUORUM or more, so
that each attempt, through whatever node, meets what the ones before have left behind. Other updates count under a
session of this node for that key, which this node continues from memory, one update after another, without having to
read; once it does not know what has become of one, it begins another session. Sent again by a client, such an update
counts again.

Source: Almeida, Shoker, Baquero 2018, "Delta State Replicated Data Types"; design §4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from merganser.core import causal_rows, causality, rows
from merganser.core.crdt import counters, reading, types, updates
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, ReadLevel, WriteLevel
from merganser.model.crdt import Operation, OperationId, Session, Shown
from merganser.model.errors import RequestError, SessionError
from merganser.model.row import Context, Row
from merganser.model.timestamp import BEGINNING
from merganser.service.admission import timed
from merganser.service.coordinator import Coordinator
from merganser.service.key_values import KeyValues
from merganser.service.sent_once import SentOnce
from merganser.service.topology import Topology
from merganser.service.turns import KeyedTurns

SESSION_S: Final = 3600
"""Of a session that a client opens without saying for how long; what it leaves behind in a key is folded after that."""
OWN_SESSION_US: Final = 600_000_000
LEFT_US: Final = 60_000_000
"""This node counts under no session of its own that ends sooner: more than an update takes."""
CHAINS_MAX: Final = 16_384
"""Keys that this node remembers what it has counted of: a key that it forgets gets another session."""
_EXACT: Final = (Consistency.QUORUM, Consistency.ALL)


class CrdtFound(msgspec.Struct, frozen=True):
    """What a key reads as."""

    values: list[Shown]
    """One, or none, or one of each type that clients made of the key at once."""
    context: bytes
    """What this read has seen: an update that is sent along with it removes nothing else."""


class CrdtValues:
    """This node's side of tables of values that merge themselves; see the module's docstring."""

    def __init__(self, topology: Topology, coordinator: Coordinator, key_values: KeyValues) -> None:
        """Serve clients through ``coordinator``, with dots from where ``key_values`` has them from."""
        self.under_way = coordinator.under_way
        self._topology = topology
        self._coordinator = coordinator
        self._key_values = key_values
        self._chains: OrderedDict[bytes, _Chain] = OrderedDict()
        self._turns = KeyedTurns("other updates that count")

    async def get(self, table: Table, key: bytes, *, level: ReadLevel, deadline: float) -> CrdtFound:
        """Return what a key reads as.

        Raises:
            as `Coordinator.read`; RequestError also if the values of the table do not merge themselves.
        """
        check_kind(table)
        row = await self._coordinator.read(table, key, level=level, deadline=deadline)
        return CrdtFound(reading.values(row), causality.encode(key, () if row is None else row.context))

    async def open_session(self, table: Table, key: bytes, *, life_s: int = SESSION_S, deadline: float) -> Session:
        """Return a session to number updates under, of any keys, for ``life_s`` seconds.

        Raises:
            RequestError: that is too long.
            UnavailableError: there is no timestamp by ``deadline``.
        """
        check_kind(table)
        if not 1 <= life_s <= counters.SESSION_S_MAX:
            raise RequestError(f"a session lasts 1 to {counters.SESSION_S_MAX:,} seconds, not {life_s:,}")
        return await self._session(key, life_s * 1_000_000, deadline)

    async def update(
        self,
        table: Table,
        key: bytes,
        operations: Sequence[Operation],
        *,
        update: OperationId | None = None,
        context: bytes | None = None,
        level: WriteLevel,
        read_level: ReadLevel,
        deadline: float,
    ) -> bool:
        """Make ``operations``, all or none; returns whether they changed anything, or had been made before.

        Args:
            table: one whose values merge themselves.
            key: of a row.
            operations: one after another.
            update: an id, under which this is done once, however often it is asked for.
            context: of a `get`: what it has not seen is not removed; an empty one has seen nothing. None: what is
                removed is what this node reads.
            level: how many nodes must have it.
            read_level: how many replicas are asked what there is to be removed, or replaced.
            deadline: loop time.

        Raises:
            RequestError: the operations cannot be made of what is there; or, of an update with an id, a level is too
                weak. Nothing was written.
            SessionError: of an update with an id: its session has ended, or one before it has not been made.
            and as `Coordinator.read` and `Coordinator.write`.
        """
        check_kind(table)
        types.check(operations)
        seen = self._seen(key, context)
        if update is not None:
            self._check_exact(update, level, read_level)
            return await self._once(_Asked(table, key, operations, seen, level, read_level, deadline), update)
        asked = _Asked(table, key, operations, seen, level, read_level, deadline)
        if updates.counts(operations):
            async with self._turns.one(key, deadline):
                return await self._counted(asked)
        held = await self._read(asked)
        return await self._write(asked, held, None, None) is not None

    async def _once(self, asked: _Asked, update: OperationId) -> bool:
        held = await self._read(asked)
        if updates.was_made(held, update):
            return True
        return await self._write(asked, held, update.session, update) is not None

    async def _counted(self, asked: _Asked) -> bool:
        """Count under a session of this node; nobody else does so for this key meanwhile."""
        chain = self._chains.pop(asked.key, None)
        if chain is None or chain.session.ends_us < self._coordinator.wall_us() + LEFT_US:
            chain = _Chain(await self._session(asked.key, OWN_SESSION_US, asked.deadline))
        held = chain.row
        if held is None or not chain.has_all(asked.operations):
            read = await self._read(asked)
            held = read if held is None or read is None else rows.merge(read, held)
        delta = await self._write(asked, held, chain.session, None)
        if delta is not None:  # known to be written: else the next one would not know what to build upon
            chain.note(delta)
        self._chains[asked.key] = chain
        if len(self._chains) > CHAINS_MAX:
            self._chains.popitem(last=False)
        return delta is not None

    async def _read(self, asked: _Asked) -> Row | None:
        return await self._coordinator.read(asked.table, asked.key, level=asked.read_level, deadline=asked.deadline)

    @timed
    async def _write(
        self, asked: _Asked, held: Row | None, session: Session | None, update: OperationId | None
    ) -> Row | None:
        """Write the delta of an update; returns it, None if it changes nothing."""
        count = updates.dots_needed(held, asked.operations, has_id=update is not None)
        spans = await self._key_values.spans(asked.table, asked.key, count, asked.deadline)
        delta = updates.delta(held, asked.operations, spans, session=session, update=update, seen=asked.seen)
        if delta is None:
            return None
        if session is not None and max(span.high for span in spans) > session.ends_us:
            raise SessionError(
                "the session of this update has ended; what was not known of it until then stays unknown: open "
                "another one for what comes next"
            )
        await self._coordinator.write_row(
            asked.table,
            asked.key,
            SentOnce(lambda _timestamp: delta).stamped,
            level=asked.level,
            deadline=asked.deadline,
        )
        return delta

    async def _session(self, key: bytes, life_us: int, deadline: float) -> Session:
        began = await self._key_values.timestamp(deadline)
        return Session(began.micros + life_us, began.writer, began.micros)

    def _seen(self, key: bytes, context: bytes | None) -> Context | None:
        return None if context is None else causality.decode(key, context)

    def _check_exact(self, update: OperationId, level: WriteLevel, read_level: ReadLevel) -> None:
        if level not in _EXACT or read_level not in _EXACT:
            raise RequestError("an update with an id is made at QUORUM or ALL, or attempts would not meet one another")
        if update.session.ends_us - update.session.began_us > counters.SESSION_S_MAX * 1_000_000:
            raise RequestError("the session of this update is none that a node has opened")


def check_kind(table: Table) -> None:
    """Return if the values of ``table`` merge themselves.

    Raises:
        RequestError: they do not.
    """
    if table.conflicts != "crdt":
        raise RequestError(
            f"the values of table {table.name} do not merge themselves: make one with conflicts = crdt for such"
        )


class _Asked(msgspec.Struct, frozen=True):
    """One update, as a client asks for it."""

    table: Table
    key: bytes
    operations: Sequence[Operation]
    seen: Context | None
    level: WriteLevel
    read_level: ReadLevel
    deadline: float


class _Chain:
    """What this node has counted of a key under one session; all of it is known to be written."""

    __slots__ = ("row", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.row: Row | None = None
        """The cells of its chains."""

    def has_all(self, operations: Sequence[Operation]) -> bool:
        """Tell whether ``operations`` do nothing but go on with chains."""
        held = frozenset() if self.row is None else frozenset(map(causal_rows.path_of, self.row.cells))
        return all(
            updates.counts((one,)) and counters.path_of_chain(types.path_of(one), self.session) in held
            for one in operations
        )

    def note(self, delta: Row) -> None:
        """Take note of a delta."""
        cells = tuple(cell for cell in delta.cells if counters.is_of(cell, self.session))
        row = Row(cells, BEGINNING, delta.context)
        self.row = row if self.row is None else rows.merge(self.row, row)
