"""What local indexes have to do with the items they are of.

- Each replica's entries are a function of the registers it holds: no entry more or less. What is damaged tells nothing,
  and what stands for it may be there or not.
- A page of a query is in the order of the index and within its range, tells of each item once, and of each with a value
  that stands in the index just there.

That consistent queries are linearizable with writes is seen to by `items`, to which each is a read of all items that it
tells of, or of all of its partition key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from merganser.model.errors import CorruptionError
from merganser.model.register import Register
from merganser.service.local_indexes import entries
from merganser.sim.checkers.replicas import NodeState
from merganser.sim.history import History
from merganser.sim.item_history import QueryPage
from merganser.sim.local_keys import local_keys
from merganser.storage import keys
from merganser.storage.registers import decode_register


def local_indexes_that_are_wrong(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each entry that a node has and should not have, or the other way round."""
    for state in states:
        indexed = {table.id for table in state.map.tables if table.has_leaders and table.wire == "sim"}
        wanted: set[bytes] = set()
        damaged: set[bytes] = set()
        for key, stored in state.rows.items():
            if keys.table_in(key) in indexed:
                try:
                    wanted.update(_entries_of(key, decode_register(key, stored)))
                except CorruptionError:
                    damaged.add(key)
        for entry in sorted(wanted - state.local):
            yield f"{state.node} has no entry {entry!r} in its local index"
        for entry in sorted(state.local - wanted):
            if keys.row_of(entry) not in damaged:
                yield f"{state.node} has an entry {entry!r} in its local index of what it does not hold"


def _entries_of(key: bytes, register: Register) -> Iterator[bytes]:
    content = register.content
    values = [content.value]
    if content.intent is not None and content.intent.changes:
        values.append(content.intent.value)
    for value in values:
        if value is not None:
            yield from entries(local_keys, key, value)


def queries_that_lie(history: History) -> Iterator[str]:
    """Yield a sentence for each page of a local index that is not what such a page is."""
    for page in history.items.queries:
        when = f"a query (reverse={page.is_reverse}) from {page.began_s:.4f} to {page.ended_s:.4f} s"
        for what in _flaws(page):
            yield f"{when} {what}"


def _flaws(page: QueryPage) -> Iterator[str]:
    listed = [entry for entry, _ in page.rows]
    ascending = listed[::-1] if page.is_reverse else listed
    if not all(one < other for one, other in pairwise(ascending)):
        yield "came out of order"
    if any(not page.low <= entry < page.high for entry in listed):
        yield "left its range"
    rows = [keys.row_of(entry) for entry in listed]
    if len(set(rows)) != len(rows):
        yield "told of one item twice"
    for entry, value in page.rows:
        if entry not in entries(local_keys, keys.row_of(entry), value):
            yield f"told of {value!r} at {entry!r}, where it does not stand"
