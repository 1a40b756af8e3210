"""What a key holds on a leader-based table: a register with a version, and perhaps the intent of a transaction."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from merganser.model.ids import TableId
from merganser.model.leadership import Epoch


class Version(NamedTuple):
    """Which write made the register what it is. Compares epoch first: a later leader's write outranks all earlier."""

    number: int
    """Of the epoch."""
    leader: int
    """Of the epoch."""
    sequence: int
    """Of the write within its epoch and group, from 1."""

    @property
    def epoch(self) -> Epoch:
        """The epoch it was written in."""
        return Epoch(self.number, self.leader)


NO_VERSION = Version(0, 0, 0)
"""Of a key that was never written."""


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction will make of the register if it is committed. While it is there, the item is locked."""

    transaction: bytes
    """16 bytes, its key in the ledger."""
    attempt: int
    """Which attempt under that id: an intent of another one is void."""
    changes: bool
    """False: the transaction only checked a condition, and the value stays."""
    value: bytes | None
    """What the value will be, None: deleted."""


Pending = tuple[TableId, bytes]
"""An entry of a global index: the table that holds the entries of the index, and the entry's key in it."""


class Content(msgspec.Struct, frozen=True):
    """What a register says, apart from its version."""

    value: bytes | None = None
    """None: there is no such item."""
    intent: Intent | None = None
    outbox: tuple[Pending, ...] = ()
    """Entries of global indexes that may not yet say what follows from the value, each once."""


EMPTY = Content()
"""Of a key that was never written, or was deleted."""


class Register(msgspec.Struct, frozen=True):
    """What a replica keeps under a key."""

    version: Version
    content: Content

    @property
    def value(self) -> bytes | None:
        """The value as if no transaction were under way."""
        return self.content.value


UNWRITTEN = Register(NO_VERSION, EMPTY)
"""What a key holds that is not stored."""


class Decided(msgspec.Struct, frozen=True):
    """What a step came to when the leader evaluated it on the current content."""

    content: Content | None
    """What the register is to be; None: it stays as it is, and nothing is written."""
    answer: bytes = b""
    """Goes back to whoever asked for the step, as it is."""
    is_rejected: bool = False
    """Its condition did not hold; nothing is written, and ``answer`` says why."""
