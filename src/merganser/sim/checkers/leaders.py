"""What must be true of the leaders of tables and of the locks on their items, most of it once everything is well again.

- Each partition is led by exactly one node, and by the first of its preference list, so that leaders are spread evenly.
- No item carries the intent of a transaction, and no transaction is undecided: coordinators that died left none behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core.ring import Ring
from merganser.core.transaction import record_in
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId
from merganser.model.leadership import Group
from merganser.model.register import UNWRITTEN, Register
from merganser.model.transaction import State
from merganser.sim.checkers.replicas import NodeState
from merganser.sim.history import History
from merganser.storage import keys
from merganser.storage.registers import decode_register

LEDGER_WIRE = "system"


def broken_promises(history: History) -> Iterator[str]:
    """Yield a sentence for each promise to a leader that a replica forgot, or broke."""
    return iter(history.items.broken_promises)


def groups_not_led_as_they_should(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each group that has no leader, several, or one that is not its first replica."""
    newest = _newest(states)
    ring = Ring(newest)
    for n in sorted({table.rule for table in newest.tables if table.has_leaders}):
        for partition in map(PartitionId, range(newest.partitions)):
            first = ring.preference_list(partition, n)[0]
            leaders = [state.node for state in states if Group(n, partition) in state.leading]
            if leaders != [first]:
                told = ", ".join(leaders) or "nobody"
                yield f"partition {partition} of tables with {n} replicas is led by {told}, and {first} should"


def intents_that_stay(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each item that a transaction has locked on some replica."""
    for state, table, key, register in _registers(states):
        if register.content.intent is not None:
            yield f"{key!r} of table {table.name} is locked at {state.node}, though nobody is at work"


def undecided_transactions(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each record of the ledger that says neither committed nor aborted."""
    for state, table, key, register in _registers(states):
        record = record_in(register.value) if table.wire == LEDGER_WIRE else None
        if record is not None and record.state is State.BEGUN:
            yield f"transaction {key!r} is undecided at {state.node}, though nobody is at work"


def _registers(states: Sequence[NodeState]) -> Iterator[tuple[NodeState, Table, bytes, Register]]:
    tables = {table.id: table for table in _newest(states).tables if table.has_leaders}
    for state in states:
        for key, stored in state.rows.items():
            table = tables.get(keys.table_in(key))
            if table is not None:
                yield state, table, key, _register(key, stored)


def _register(key: bytes, stored: bytes) -> Register:
    try:
        return decode_register(key, stored)
    except CorruptionError:
        return UNWRITTEN


def _newest(states: Sequence[NodeState]) -> ClusterMap:
    return max((state.map for state in states), key=lambda current: current.epoch)
