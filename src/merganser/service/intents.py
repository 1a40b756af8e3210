"""What a leader asks about the intents of transactions that it meets on items; `service.transactions` answers."""

from __future__ import annotations

import enum
from typing import Final, Protocol

from merganser.model.cluster import Table
from merganser.model.errors import TransactionConflictError, UnavailableError
from merganser.model.register import Register


class Gone(enum.Enum):
    """The intent is not there any more, or may not be."""

    GONE = "gone"


GONE: Final = Gone.GONE


class Resolver(Protocol):
    """Who knows what becomes of the intents of transactions."""

    async def for_change(self, table: Table, key: bytes, register: Register, *, deadline: float) -> None:
        """Return when the intent of ``register`` is gone, or may be: the caller looks again.

        Raises:
            TransactionConflictError: it stays for now.
        """

    async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> bytes | Gone | None:
        """Return what the value is, with the intent in force or not; GONE: the caller looks again."""


class NoTransactions:
    """A resolver where there are no transactions, and so no intents."""

    async def for_change(self, table: Table, key: bytes, register: Register, *, deadline: float) -> None:
        """Refuse."""
        raise TransactionConflictError("a transaction holds the item, and nothing on this node can finish it")

    async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> bytes | Gone | None:
        """Refuse."""
        raise UnavailableError("a transaction holds the item, and nothing on this node can finish it")
