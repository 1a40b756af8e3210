"""Steps: what can be done to an item of a leader-based table, evaluated by its leader on what the item is then.

A step travels to the leader as its kind and a payload (`messages.Change`), because functions do not travel. Each kind
has a maker, which turns the payload into a function of the current content. That function is pure and quick: it is
called in one turn of the loop with the write that it says, with nothing of the item in between, and perhaps once before
that, when it says that nothing is to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from merganser.core import indexing, snapshots
from merganser.core.index_tables import is_index
from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.index import Entry
from merganser.model.register import Content, Decided

Step = Callable[[Content], Decided]
"""May raise a RequestError: the step makes no sense on this item, and nothing is written."""

WIRES: Final = 0
"""A client's put, update or delete, in the words of the wire that the table belongs to."""
TRANSACTIONS: Final = 1
"""A step of a transaction (`service.transactions`)."""
INDEXES: Final = 2
"""What an entry of a global index is to show (`service.indexer`); the item is the entry."""

EXPIRY: Final = 3
"""The removal of an item that has expired (`service.expirer`); its payload is empty."""

RESTORES: Final = 4
"""An item as a snapshot has it (`service.restored_rows`); the payload is its value."""

UNASKED: Final = frozenset((INDEXES, EXPIRY, RESTORES))
"""Kinds that no client waits for one by one: entries follow upon writes, or come of a backfill, as removals do of the
clock; a restore has many under way."""

Evaluator = Callable[[Table, bytes, bytes | None], Decided]
"""Of a wire: from the table, the payload and the current value (None: no such item) to what becomes of it."""


Indexer = Callable[[Table, bytes, bytes], Sequence[Entry]]
"""Of a wire: from a table that has global indexes, the key of one of its items and the item's value, to the entries of
the item in these indexes: at most one in each, none where the item lacks a key attribute of the index. A pure function,
quick, that never fails on a value that the wire's `Evaluator` has returned; for ever the same for the same table, key
and value."""


class Maker(msgspec.Struct, frozen=True):
    """How the steps of one kind are made."""

    step_of: Callable[[Table, bytes], Step]
    """From the payload. May raise a RequestError; nothing is written then."""
    meets_intents: bool
    """The steps know what to do about the intent of a transaction; else it is resolved before they are evaluated."""


def of_indexes() -> Maker:
    """Return the maker of `INDEXES`."""

    def step_of(table: Table, payload: bytes) -> Step:
        if not is_index(table):
            raise RequestError(f"table {table.name} is not one of an index's entries")
        shown = indexing.decoded(payload)
        return lambda content: indexing.applied(content, shown)

    return Maker(step_of, meets_intents=True)


def of_restores() -> Maker:
    """Return the maker of `RESTORES`: what is there already, by a copy of the request, is not written again."""

    def step_of(table: Table, payload: bytes) -> Step:
        if not snapshots.is_hidden(table):
            raise RequestError(f"table {table.name} is not being restored")
        return lambda content: Decided(None if content.value == payload else Content(payload))

    return Maker(step_of, meets_intents=False)


def of_wires(evaluators: Mapping[str, Evaluator]) -> Maker:
    """Return the maker of `WIRES`, from the evaluator of each wire by its name."""

    def step_of(table: Table, payload: bytes) -> Step:
        evaluate = evaluators.get(table.wire)
        if evaluate is None:
            raise RequestError(f"nothing on this node knows how to change items of {table.wire} tables")
        return lambda content: evaluate(table, payload, content.value)

    return Maker(step_of, meets_intents=False)
