"""Pure judges of a run: evidence in, a sentence for each broken promise out.

Those of `OF_HISTORY` judge what clients asked and heard, those of `OF_STATES` what the nodes hold once all is well
again, those of `OF_BOTH` compare the two. `readable` and `errors` are found while the evidence is gathered
(`sim.verdict`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from merganser.sim.checkers.acknowledged import invisible_writes, lost_writes
from merganser.sim.checkers.available import unanswered_requests
from merganser.sim.checkers.bank import money_made_or_lost
from merganser.sim.checkers.bounds import exceeded_bounds
from merganser.sim.checkers.conditions import conditions_not_kept
from merganser.sim.checkers.counters import counters_that_do_not_add_up
from merganser.sim.checkers.crdts import values_that_do_not_add_up
from merganser.sim.checkers.expiries import expiries_at_a_wrong_time, times_not_indexed
from merganser.sim.checkers.hash_trees import trees_that_are_wrong
from merganser.sim.checkers.held import writes_too_few_hold
from merganser.sim.checkers.indexes import (
    entries_of_nothing_written,
    indexes_that_are_wrong,
    outboxes_that_stay,
)
from merganser.sim.checkers.items import (
    glimpses_of_nothing_written,
    items_that_are_no_registers,
    lists_that_are_not_serial,
    pages_out_of_order,
    versions_that_fell,
)
from merganser.sim.checkers.key_lists import keys_that_are_told_wrong
from merganser.sim.checkers.last_writes import last_writes_that_lost
from merganser.sim.checkers.leaders import (
    broken_promises,
    groups_not_led_as_they_should,
    intents_that_stay,
    undecided_transactions,
)
from merganser.sim.checkers.local_indexes import local_indexes_that_are_wrong, queries_that_lie
from merganser.sim.checkers.monotonic import steps_back
from merganser.sim.checkers.origin import values_from_nowhere
from merganser.sim.checkers.registers import broken_registers
from merganser.sim.checkers.replicas import (
    NodeState,
    hints_that_stay,
    maps_that_differ,
    members_not_believed_alive,
    replicas_that_differ,
    rows_out_of_place,
)
from merganser.sim.checkers.resurrection import risen_from_the_dead
from merganser.sim.checkers.scans import broken_scans
from merganser.sim.checkers.sessions import broken_sessions
from merganser.sim.checkers.siblings import lost_siblings
from merganser.sim.checkers.tables import broken_tables
from merganser.sim.checkers.tags import tags_not_as_rows_have_them, tags_that_lie
from merganser.sim.checkers.timestamps import timestamps_that_fell
from merganser.sim.checkers.tokens import transactions_that_are_denied
from merganser.sim.history import History

OF_HISTORY: dict[str, Callable[[History], Iterator[str]]] = {
    "acknowledged": lost_writes,
    "visible": invisible_writes,
    "origin": values_from_nowhere,
    "monotonic": steps_back,
    "registers": broken_registers,
    "sessions": broken_sessions,
    "resurrection": risen_from_the_dead,
    "scans": broken_scans,
    "siblings": lost_siblings,
    "last writes": last_writes_that_lost,
    "conditions": conditions_not_kept,
    "keys": keys_that_are_told_wrong,
    "tags": tags_that_lie,
    "crdts": values_that_do_not_add_up,
    "timestamps": timestamps_that_fell,
    "tables": broken_tables,
    "linearizable": items_that_are_no_registers,
    "serializable": lists_that_are_not_serial,
    "counters": counters_that_do_not_add_up,
    "bank": money_made_or_lost,
    "tokens": transactions_that_are_denied,
    "item versions": versions_that_fell,
    "glimpses": glimpses_of_nothing_written,
    "pages": pages_out_of_order,
    "queries": queries_that_lie,
    "promises": broken_promises,
    "index looks": entries_of_nothing_written,
    "expiries": expiries_at_a_wrong_time,
}
OF_STATES: dict[str, Callable[[Sequence[NodeState]], Iterator[str]]] = {
    "convergence": replicas_that_differ,
    "strays": rows_out_of_place,
    "maps": maps_that_differ,
    "hints": hints_that_stay,
    "membership": members_not_believed_alive,
    "hash trees": trees_that_are_wrong,
    "local indexes": local_indexes_that_are_wrong,
    "bounds": exceeded_bounds,
    "leaders": groups_not_led_as_they_should,
    "intents": intents_that_stay,
    "ledger": undecided_transactions,
    "indexes": indexes_that_are_wrong,
    "outboxes": outboxes_that_stay,
    "times": times_not_indexed,
    "tag entries": tags_not_as_rows_have_them,
}
OF_BOTH: dict[str, Callable[[History, Sequence[NodeState]], Iterator[str]]] = {
    "held": writes_too_few_hold,
    "available": unanswered_requests,
}
OF_THE_RUN = ("readable", "errors", "versions", "residency")

PROMISES = {
    "acknowledged": "a read is at least as new as every acknowledged write that it met (R + W > N)",
    "visible": "an acknowledged write outranks those acknowledged before it began (W + W > N)",
    "origin": "no value comes from nowhere, and none that was refused is seen",
    "monotonic": "what a read returned no later read or write goes back behind (R + R > N, R + W > N)",
    "registers": "a key read and written at QUORUM is a register, by what clients see alone",
    "sessions": "each client reads its own writes, and writes after them",
    "resurrection": "nothing deleted comes back, nothing expired is seen",
    "scans": "a paged read tells the keys in order, each once, and all that were there all along",
    "siblings": "a put stays until one that saw it takes its place, and then goes",
    "last writes": "where the last write wins, nothing that came before an acknowledged put is read after it",
    "conditions": "a put that depends on what is there is done, or refused, for a reason",
    "keys": "a list of keys tells each once, all that were there all along, and none that is gone",
    "tags": "a query by tag tells of each value that has it, and of nothing that has lost it",
    "crdts": "what was added counts once, until a removal that saw it, and then no more",
    "timestamps": "a node mints each timestamp once and always later ones, over all its lives",
    "tables": "tables change one after another, and what was reported stays so",
    "linearizable": "operations on an item of a leader-based table happen one at a time",
    "serializable": "transactions, and operations on single lists, happen one at a time",
    "counters": "a counter holds all acknowledged increments, and none twice",
    "bank": "whatever one transaction reads of all accounts adds up",
    "tokens": "a transaction that has happened is not denied when it is asked for again under its token",
    "item versions": "no later operation on an item sees or makes an earlier version",
    "glimpses": "an eventually consistent read returns only what somebody wrote",
    "pages": "a page of items is in order, each once, and within its range",
    "queries": "a page of a local index is in order, each item once and where its value puts it",
    "promises": "a replica serves no leader older than one it has promised, and nobody before it is given everything",
    "index looks": "an index shows only what some value of an item would show",
    "expiries": "no item goes before its time, none stays a minute after it, and none comes back",
    "held": "as many replicas hold an acknowledged write as acknowledged it",
    "available": "a request is answered while as many nodes are well as its level needs",
    "convergence": "all replicas of a key hold the same bytes",
    "strays": "nodes keep rows only of tables that exist and of partitions that are theirs",
    "maps": "all nodes know the same newest cluster map",
    "hints": "all hints are handed over once all is well again",
    "membership": "a minute after all is well again every node believes every other alive",
    "hash trees": "the hash tree of each partition equals one built from its rows",
    "local indexes": "the entries of local indexes of a replica are those of the registers that it holds",
    "bounds": "a node takes on what its limits allow, and gives every place back",
    "leaders": "each partition is led by one node, the first of its preference list, once all is well again",
    "intents": "no item is locked once all is well again",
    "ledger": "no transaction is left undecided",
    "indexes": "each global index is what follows from the items of its table, once all is well again",
    "outboxes": "no item is ahead of its entries in global indexes once all is well again",
    "times": "each replica has an entry for each item that expires in its index of times",
    "tag entries": "the index of tags of a replica is what follows from the rows that it holds",
    "readable": "every key can be read and the table scanned through any node once all is well again",
    "errors": "nothing fails behind the scenes",
    "versions": "the map is of the newest version that all members speak",
    "residency": "nothing of a table is ever where its policy does not allow it",
}
"""What each checker sees to."""


class Violation(msgspec.Struct, frozen=True):
    """A promise that a run broke."""

    checker: str
    sentence: str

    def __str__(self) -> str:
        """Return checker and sentence in one line."""
        return f"{self.checker}: {self.sentence}"


def where(error: BaseException) -> str:
    """Return ``error`` in words, and the line of ours that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "merganser" in frame.filename] or frames
    return f"{error!r}" + (f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "")


def names() -> list[str]:
    """Return the names of all checkers."""
    return [*OF_HISTORY, *OF_BOTH, *OF_STATES, *OF_THE_RUN]


def judge_history(history: History) -> list[Violation]:
    """Return what the checkers say of what clients asked and heard."""
    return [Violation(name, sentence) for name, check in OF_HISTORY.items() for sentence in check(history)]


def judge_states(states: Sequence[NodeState]) -> list[Violation]:
    """Return what the checkers say of what the nodes hold."""
    return [Violation(name, sentence) for name, check in OF_STATES.items() for sentence in check(states)]


def judge_both(history: History, states: Sequence[NodeState]) -> list[Violation]:
    """Return what the checkers say of what was acknowledged and what is held."""
    return [Violation(name, sentence) for name, check in OF_BOTH.items() for sentence in check(history, states)]
