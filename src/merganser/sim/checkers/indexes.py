"""What must be true of global indexes: while a run goes on little, once all is well again everything.

- Whatever a look at an index found was, or may have been, shown by some value of the item that somebody wrote.
- In the end each index holds what follows from the items of its table, no entry more or less; and nothing is behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core.indexing import decoded
from merganser.model.cluster import Index, Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId
from merganser.model.register import UNWRITTEN, Register
from merganser.sim import indexes
from merganser.sim.checkers.replicas import NodeState
from merganser.sim.history import History
from merganser.storage import keys
from merganser.storage.registers import decode_register


def entries_of_nothing_written(history: History) -> Iterator[str]:
    """Yield a sentence for each entry that was found in an index, and that no value of its item would show."""
    shown: dict[tuple[Index, ...], dict[tuple[bytes, bytes], float]] = {}
    for look in history.items.index_looks:
        known = look.table.indexes
        if known not in shown:
            shown[known] = {}
            for indexed in history.items.indexed:
                for entry in indexes.entries(look.table, indexed.key, indexed.value):
                    shown[known].setdefault((entry.key, entry.value), indexed.began_s)
        for key, value in look.rows:
            began_s = shown[known].get((key, value))
            if began_s is None or began_s > look.ended_s:
                when = f"from {look.began_s:.4f} to {look.ended_s:.4f} s"
                yield f"from nowhere: a look at an index {when} found {key!r} {value!r}"


def outboxes_that_stay(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each item that is ahead of its entries on some replica."""
    tables = {table.id: table for table in _newest_tables(states) if table.has_leaders}
    for state in states:
        for key, stored in state.rows.items():
            table = tables.get(keys.table_in(key))
            outbox = () if table is None else _register(key, stored).content.outbox
            if table is not None and outbox:
                yield f"{key!r} of table {table.name} is ahead of {len(outbox)} entries at {state.node}"


def indexes_that_are_wrong(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each entry of an index that does not follow from the items of its table, or is missing."""
    tables = _newest_tables(states)
    indexed = [table for table in tables if table.indexes]
    wanted = {table.id for table in indexed} | {index.table for table in indexed for index in table.indexes}
    held = _newest_registers(states, wanted)
    yield from indexes_under_way(states)
    for table in indexed:
        shown = {
            entry.key: entry.value
            for key, register in held.items()
            if keys.table_in(key) == table.id and register.value is not None
            for entry in indexes.entries(table, key, register.value)
        }
        of_entries = {index.table for index in table.indexes}
        found = {
            key: value
            for key, register in held.items()
            if keys.table_in(key) in of_entries and (value := _shown(register)) is not None
        }
        for key in sorted({*shown, *found}):
            if shown.get(key) != found.get(key):
                yield f"entry {key!r} shows {found.get(key)!r}, and {shown.get(key)!r} follows from its item"


def indexes_under_way(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each index that is being filled or dropped."""
    for table in _newest_tables(states):
        for index in table.indexes:
            if index.state != "active":
                yield f"index {index.name} of table {table.name} is {index.state}, though nobody is at work"


def _shown(register: Register) -> bytes | None:
    return None if register.value is None else decoded(register.value).value


def _newest_tables(states: Sequence[NodeState]) -> Sequence[Table]:
    return max((state.map for state in states), key=lambda current: current.epoch).tables


def _newest_registers(states: Sequence[NodeState], tables: set[TableId]) -> dict[bytes, Register]:
    newest: dict[bytes, Register] = {}
    for state in states:
        for key, stored in state.rows.items():
            if keys.table_in(key) in tables:
                register = _register(key, stored)
                if register.version > newest.get(key, UNWRITTEN).version:
                    newest[key] = register
    return newest


def _register(key: bytes, stored: bytes) -> Register:
    try:
        return decode_register(key, stored)
    except CorruptionError:
        return UNWRITTEN
