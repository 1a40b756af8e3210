"""What an update makes of the values that its coordinator has seen: a delta, to be merged into every replica.

Each cell that an update adds has a dot of its own; the delta's context names these, and the dots of the cells that
the update replaces or takes away. An update that changes nothing (to add an element that is there gives it a new dot,
and so does change something; to lower a `max` does not) is no delta. All operations of an update are in one row, so a
replica has all or none of them.

==============  =================================  ==================================================
type            operations that did not know of    what was there before a `reset`, or `remove`,
                one another                        that had not seen it
==============  =================================  ==================================================
counters        both count                         counts
set             an add stays, whatever removes     stays
map             field by field                     stays; so the field does, with that and nothing else
register        the later one is read              is read
multi-register  both are read, until an `assign`   is read
                that has seen both
flag            enable wins                        stays
disable-flag    disable wins                       stays
distinct        both are counted                   is counted
max, min        the greater, the smaller           stays
==============  =================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from merganser.core import causal_rows, causality
from merganser.core.crdt import counters, reading, sketch, types
from merganser.core.crdt.counters import Tally
from merganser.model import crdt
from merganser.model.crdt import Operation, OperationId, Session
from merganser.model.errors import RequestError, SessionError
from merganser.model.row import Cell, Context, Dot, Row, Span
from merganser.model.timestamp import BEGINNING

_ON, _OFF = b"\x01", b"\x00"


def dots_needed(held: Row | None, operations: Sequence[Operation], *, has_id: bool) -> int:
    """Return how many dots `delta` may take, more or less exactly."""
    needed = len(operations) + has_id
    for operation in operations:
        if operation.action == types.RESET and held is not None:
            needed += len(_counters_at(held.cells, types.path_of(operation)))
    return needed


def counts(operations: Iterable[Operation]) -> bool:
    """Tell whether any of ``operations`` needs a session."""
    return any(operation.action in ("increment", "decrement") for operation in operations)


def was_made(held: Row | None, update: OperationId) -> bool:
    """Tell whether an update has been made already, by what all acknowledged ones have left behind.

    Raises:
        SessionError: one before it has not.
    """
    last = 0 if held is None else counters.made(held.cells, update.session)
    if update.sequence > last + 1:
        raise SessionError(
            f"update {update.sequence} of a session that has made {last} of this key: make them one after another, and "
            "each again under its own number until it is known to be made"
        )
    return update.sequence <= last


def delta(
    held: Row | None,
    operations: Iterable[Operation],
    spans: Iterable[Span],
    *,
    session: Session | None = None,
    update: OperationId | None = None,
    seen: Context | None = None,
) -> Row | None:
    """Return the row that ``operations``, one after another, amount to; None if they change nothing.

    Args:
        held: what was read of the key.
        operations: that `types.check` has let through.
        spans: minted for this update, as many as `dots_needed` says.
        session: who counts, if anything is counted. All its earlier updates that were acknowledged are in ``held``.
        update: its id, if it has one; ``session`` is the same then.
        seen: by the client: nothing else is replaced or taken away. None: all that is held.

    Raises:
        RequestError: the key, or a field, holds a value of another type, or too much; nothing is written.
    """
    made = _Delta(held, spans, session, seen)
    for operation in operations:
        made.apply(operation)
    if update is not None:
        made.note(update)
    return made.row()


class _Delta:
    """One delta while it is made."""

    def __init__(self, held: Row | None, spans: Iterable[Span], session: Session | None, seen: Context | None) -> None:
        self._now: dict[bytes, Cell] = {} if held is None else {cell.name: cell for cell in held.cells}
        """What the key will hold."""
        self._bytes = 0 if held is None else types.size_of(held)
        self._added: dict[bytes, Cell] = {}
        self._replaced: set[Dot] = set()
        self._used: list[Span] = []
        self._spans = iter(spans)
        self._session = session
        self._seen = seen

    def apply(self, operation: Operation) -> None:
        """Do one operation."""
        if operation.action == types.RESET:
            self._reset(types.path_of(operation))
            return
        self._check_type(operation)
        begin = types.path_of(operation)
        kind = operation.type
        if kind in (crdt.COUNTER, crdt.GROW_COUNTER):
            self._count(begin, operation)
        elif kind == crdt.SET:
            self._change_set(begin, operation)
        elif kind in (crdt.MAXIMUM, crdt.MINIMUM):
            self._push(begin, operation)
        elif kind == crdt.DISTINCT:
            assert isinstance(operation.value, bytes)
            register, run = sketch.place_of(operation.value)
            self._raise(begin + register.to_bytes(2), run)
        elif kind in (crdt.FLAG, crdt.DISABLE_FLAG):
            self._assign(begin, _ON if operation.action == "enable" else _OFF)
        else:
            assert isinstance(operation.value, bytes)
            self._assign(begin, operation.value)

    def note(self, update: OperationId) -> None:
        """Leave behind that the update was made."""
        path = counters.made_path(update.session)
        self._drop(self._at(path))
        self._put(path, counters.made_value(update.sequence), counters.made_expires_at_s(update.session))

    def row(self) -> Row | None:
        """Return the delta."""
        if not self._added and not self._replaced:
            return None
        if not self._used:  # what only takes away is an event, too
            self._used.append(next(self._spans))
        if self._bytes > types.KEY_BYTES_MAX and self._added:
            raise RequestError(f"the key would hold more than {types.KEY_BYTES_MAX:,} bytes: use several keys")
        context: Context = ()
        for span in (*self._used, *self._spans):  # those that are left over name nothing, and would be gaps
            context = causality.join(context, (span,))
        for dot in self._replaced:
            context = causality.join(context, causality.only(dot))
        return Row(tuple(self._added[name] for name in sorted(self._added)), BEGINNING, context)

    def _count(self, begin: bytes, operation: Operation) -> None:
        assert self._session is not None, "somebody counts"
        assert isinstance(operation.value, int)
        state = counters.State(begin, self._at(begin))
        if self._session not in state.chains and len(state.chains) >= counters.CHAINS_MAX:
            raise RequestError(
                f"{len(state.chains):,} sessions have counted here that have not ended: clients that count for long "
                "keep theirs"
            )
        up, down = (operation.value, 0) if operation.action == "increment" else (0, operation.value)
        path = counters.path_of_chain(begin, self._session)
        self._drop(self._at(path))
        self._put(path, counters.encode(state.tally_of(self._session).plus(Tally(1, up, down))))

    def _change_set(self, begin: bytes, operation: Operation) -> None:
        assert isinstance(operation.value, bytes)
        path = begin + operation.value
        cells = [cell for cell in self._at(path) if causal_rows.path_of(cell) == path]
        if operation.action == "remove":
            self._drop(self._known(cells))
        else:
            self._drop(cells)
            self._put(path, b"")

    def _push(self, begin: bytes, operation: Operation) -> None:
        assert isinstance(operation.value, int)
        said = [reading.number(cell) for cell in self._at(begin)]
        is_further = operation.value > max(said) if said and operation.type == crdt.MAXIMUM else True
        if said and operation.type == crdt.MINIMUM:
            is_further = operation.value < min(said)
        if is_further:
            self._replace(begin, _signed(operation.value))

    def _raise(self, path: bytes, run: int) -> None:
        if all(reading.number(cell) < run for cell in self._at(path)):
            self._replace(path, _signed(run))

    def _assign(self, path: bytes, value: bytes) -> None:
        """Put a value in the place of those that the client has seen; others stay beside it."""
        self._drop(self._known(self._at(path)))
        self._put(path, value)

    def _replace(self, path: bytes, value: bytes) -> None:
        """Put a value in the place of all: it stands for them, whoever has seen them."""
        self._drop(self._at(path))
        self._put(path, value)

    def _reset(self, begin: bytes) -> None:
        cells = [cell for cell in self._at(begin) if begin or cell.name[0] != types.SESSIONS]
        counted = _counters_at(cells, begin)
        if counted and self._seen is not None:
            raise RequestError("what counts is reset by what the node reads, not by a context: leave the context out")
        others = [cell for cell in cells if not any(cell.name.startswith(counter) for counter in counted)]
        self._drop(self._known(others))
        for counter, held in counted.items():
            state = counters.State(counter, held)
            if not state.total().updates:
                continue
            path = counters.path_of_floors(counter)
            self._drop(self._at(path))
            self._put(path, counters.encode_floors(state.seen()))

    def _check_type(self, operation: Operation) -> None:
        """Return if the value, and each map on the way to it, is of the type it is taken for, or is not there."""
        begin = b""
        for depth in range(len(operation.path) + 1):
            wanted = operation.type if depth == len(operation.path) else crdt.MAP
            there = reading.types_at(self._at(begin), begin)
            if there and wanted not in there:
                what = "the key" if not depth else "field " + ".".join(map(_told, operation.path[:depth]))
                raise RequestError(f"{what} holds a {there[0]}, and no {wanted}: reset it, or choose another name")
            if wanted not in there:
                return
            begin += types.path_to(operation.path[depth : depth + 1])

    def _known(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return those of ``cells`` that the client has seen, or that this update has put there."""
        if self._seen is None:
            return list(cells)
        return [
            cell
            for cell in cells
            if cell.name in self._added or causality.has_seen(self._seen, causal_rows.dot_of(cell))
        ]

    def _at(self, begin: bytes) -> list[Cell]:
        return types.shared(self._now.values(), begin)

    def _put(self, path: bytes, value: bytes, expires_at_s: int | None = None) -> None:
        span = next(self._spans)
        cell = causal_rows.cell_of(path, causality.dot_of(span), value, expires_at_s)
        self._used.append(span)
        self._added[cell.name] = self._now[cell.name] = cell
        self._bytes += types.size_of(Row((cell,)))

    def _drop(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            del self._now[cell.name]
            self._bytes -= types.size_of(Row((cell,)))
            if self._added.pop(cell.name, None) is None:
                self._replaced.add(causal_rows.dot_of(cell))


def _counters_at(cells: Iterable[Cell], begin: bytes) -> dict[bytes, list[Cell]]:
    """Return the cells of each counter whose path begins with ``begin``."""
    found: dict[bytes, list[Cell]] = {}
    for cell in types.shared(cells, begin):
        counter = counters.counter_of(cell)
        if counter is not None:
            found.setdefault(counter, []).append(cell)
    return found


def _signed(value: int) -> bytes:
    return value.to_bytes(8, signed=True)


def _told(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
