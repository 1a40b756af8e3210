"""What clients asked of leader-based tables, and heard: evidence like that of `sim.history`, in other words.

What one client did to one item is an `Operation`, what it did to several lists at once, or to one, a `Transaction`.
Certainly undone operations are left out, those of unknown outcome have no end.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

from merganser.model.cluster import Table
from merganser.model.register import Version

if TYPE_CHECKING:
    from merganser.sim.checkers.expiries import Expirable
    from merganser.sim.checkers.linearizable import Operation
    from merganser.sim.checkers.serializable import Transaction


class Heard(msgspec.Struct, frozen=True):
    """An answer of a leader, and the version of the item that it is about."""

    key: bytes
    value: bytes | None
    version: Version
    has_written: bool
    """The item was made so; else it was so."""
    began_s: float
    ended_s: float


class Glimpse(msgspec.Struct, frozen=True):
    """What an eventually consistent read saw."""

    key: bytes
    value: bytes | None
    began_s: float
    ended_s: float


class Page(msgspec.Struct, frozen=True):
    """One page of a range, as far as it reached."""

    low: bytes
    high: bytes
    """Exclusive; all of ``low <= key < high`` was covered."""
    is_reverse: bool
    is_consistent: bool
    rows: tuple[tuple[bytes, bytes], ...]
    began_s: float
    ended_s: float


class QueryPage(msgspec.Struct, frozen=True):
    """One page of a local index, as far as it reached."""

    low: bytes
    high: bytes
    """Exclusive; all of ``low <= entry < high`` was covered."""
    is_reverse: bool
    is_consistent: bool
    rows: tuple[tuple[bytes, bytes], ...]
    """Entries, and the values of their items."""
    whole: bytes | None
    """What the keys of the items of a partition key begin with, if the page tells of all of them."""
    began_s: float
    ended_s: float


class Increment(msgspec.Struct, frozen=True):
    """One addition to a counter that may have been done; only its client knows the counter by this key."""

    key: bytes
    amount: int
    began_s: float
    ended_s: float = inf
    """Never: its outcome is unknown."""


class Count(msgspec.Struct, frozen=True):
    """What a consistent read of a counter said."""

    key: bytes
    number: int
    began_s: float
    ended_s: float


class Balances(msgspec.Struct, frozen=True):
    """What one transaction read of all accounts of the bank, or of some."""

    numbers: tuple[int, ...]
    is_of_all: bool
    began_s: float
    ended_s: float


class Indexed(msgspec.Struct, frozen=True):
    """A value that was to be written to an item of a table with indexes."""

    key: bytes
    value: bytes
    began_s: float


class IndexLook(msgspec.Struct, frozen=True):
    """One page of an index."""

    table: Table
    """That the index is one of, as it was known."""
    rows: tuple[tuple[bytes, bytes], ...]
    began_s: float
    ended_s: float


class ItemHistory:
    """The records of one run, in the order in which their answers came."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.operations: list[Operation] = []
        self.transactions: list[Transaction] = []
        self.heard: list[Heard] = []
        self.glimpses: list[Glimpse] = []
        self.pages: list[Page] = []
        self.queries: list[QueryPage] = []
        self.increments: list[Increment] = []
        self.counts: list[Count] = []
        self.balances: list[Balances] = []
        self.deleted: set[bytes] = set()
        """Items that a transaction, or a change that is no `Operation`, may have deleted."""
        self.indexed: list[Indexed] = []
        self.index_looks: list[IndexLook] = []
        self.expirables: list[Expirable] = []
        """Of each item in the order in which its owner asked."""
        self.expires_from_s: float | None = None
        """When it was first asked that items expire."""
        self.bank_total: int | None = None
        """What all accounts together hold, always; None: there is no bank."""
        self.broken_promises: list[str] = []
        """Of replicas, as a witness tells them (`sim.witness`)."""
        self.committed = 0
        """How many write transactions were answered with success."""
        self.undecided = 0
        """How many are of unknown outcome."""
        self.denied: list[str] = []
        """Repeated requests for what had happened that were answered as if it had not."""
        self.has_transactions = False
        """An item may then become another without a new version: its intent has it already."""

        self.has_others = False
        """There are changes to items that no `Operation` tells of."""

    def acked(self) -> int:
        """Return how many writes were acknowledged, each transaction as one."""
        done = sum(one.is_acked for one in self.expirables)
        return sum(heard.has_written for heard in self.heard) + self.committed + done

    def unknown(self) -> int:
        """Return how many writes are of unknown outcome."""
        unknown = sum(one.is_unknown for one in self.expirables)
        return sum(one.ended_s == inf for one in self.operations) + self.undecided + unknown

    def reads(self) -> int:
        """Return how many reads of items were answered."""
        expirable = sum(not one.is_write for one in self.expirables)
        heard = sum(not heard.has_written for heard in self.heard)
        return heard + len(self.glimpses) + len(self.balances) + expirable
