"""What a leader asks about the intents of transactions that it meets on items.

`service.transaction_recovery` answers.
"""

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
            UnavailableError: nobody could say by ``deadline`` (loop time).
        """

    async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> bytes | Gone | None:
        """Return the value of an item whose register, looked at before the call, has an intent.

        It is the item's value at the instant of that look, or at some instant between it and the end of the call. GONE:
        the register is another by now, the caller looks again.

        Raises:
            UnavailableError: nobody could say by ``deadline`` (loop time).
        """


class NoTransactions:
    """A resolver where there are no transactions, and so no intents."""

    async def for_change(self, table: Table, key: bytes, register: Register, *, deadline: float) -> None:
        """Refuse."""
        raise TransactionConflictError("a transaction holds the item, and nothing on this node can finish it")

    async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> bytes | Gone | None:
        """Refuse."""
        raise UnavailableError("a transaction holds the item, and nothing on this node can finish it")
