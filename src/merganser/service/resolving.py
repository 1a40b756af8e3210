"""The seam between leaders and transactions: what a leader does about the intent that it meets on an item.

`service.leader` calls it, `service.transaction_recovery` is it.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, Protocol

from merganser.model.cluster import Table
from merganser.model.register import Register


class Gone(enum.Enum):
    """Instead of a value: the intent is gone, look at the item again."""

    GONE = "gone"


GONE: Final = Gone.GONE


class Resolver(Protocol):
    """Finds out what has become of transactions, whose intents leaders meet."""

    async def for_change(self, table: Table, key: bytes, register: Register, *, deadline: float) -> None:
        """Return once the intent of ``register`` is gone, or may be: look at the item again.

        Raises:
            TransactionConflictError: its transaction is under way.
            UnavailableError: nobody could say by ``deadline`` (loop time).
        """

    async def for_read(
        self, table: Table, key: bytes, register: Register, *, deadline: float
    ) -> bytes | Literal[Gone.GONE] | None:
        """Return the value of an item whose register, read just now, has an intent.

        That is the value at some instant between the call and its end, or before the call, when ``register`` was read.
        GONE: the register is another by now, which is to be read.

        Raises:
            UnavailableError: nobody could say by ``deadline`` (loop time).
        """
