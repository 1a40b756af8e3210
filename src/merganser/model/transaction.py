"""What transactions keep and say: records of the ledger, steps on items and on the ledger, and what they come to."""

from __future__ import annotations

import enum

import msgspec

from merganser.model.ids import TableId


class State(enum.IntEnum):
    """How far a transaction has come; see `core.transaction`."""

    BEGUN = 1
    COMMITTED = 2
    ABORTED = 3


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What the ledger says of a transaction; new members go to the end, with defaults."""

    state: State
    attempt: int
    """Drawn by its coordinator, 1 to 2**62: no two attempts share it, be they of one transaction."""
    digest: bytes
    """Of the request: another one under the same id is told from a repeated one."""
    items: tuple[tuple[TableId, bytes], ...]
    """Table and key of each."""
    is_kept: bool
    """Its client may repeat it: the record stays for a while after all is done."""
    is_finished: bool = False
    """All of its items were applied or cleared; else not yet, as far as is known."""
    barred: int = 0
    """Of one that is ABORTED: no attempt may begin here whose coordinator knew but an older map than of this epoch."""


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Evaluate the wire's step, and lock the item for what comes of it. The answer is `Ready`, `Failed` or `Held`."""

    transaction: bytes
    attempt: int
    payload: bytes
    """In the words of the wire that the table belongs to."""
    is_check: bool
    """Only its condition counts: the value stays, whatever the wire's step makes of it."""


class Apply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Make the item what the intent of this attempt says; it is committed. No answer."""

    transaction: bytes
    attempt: int


class Clear(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Take the intent of this attempt away; it is void. No answer."""

    transaction: bytes
    attempt: int


ItemStep = Prepare | Apply | Clear


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Open the record. Rejected if another attempt has it.

    The answer to this and all other steps on the ledger is the record as it then is, without its items; empty if there
    is none.
    """

    transaction: bytes
    attempt: int
    digest: bytes
    items: tuple[tuple[TableId, bytes], ...]
    is_kept: bool
    epoch: int = 0
    """Of the map by which this ledger was chosen for it."""


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Decide that the attempt has happened. Rejected if it is decided otherwise, or gone."""

    attempt: int


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Decide that the attempt has not happened. Rejected if it is decided otherwise, or gone."""

    attempt: int


class Finish(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Note that every item is applied or cleared, as was decided. Does nothing to any other attempt."""

    attempt: int


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Remove the record: every item is applied or cleared. Does nothing to any other attempt, nor to one undecided."""

    attempt: int


class Bar(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Let no attempt begin here any more whose coordinator knew but an older map. Rejected if there is one that has not
    been aborted.
    """

    attempt: int
    """Drawn, as if it were one: nothing that is said of any other touches what this leaves."""
    epoch: int
    """Of the map by which another ledger has been chosen."""


LedgerStep = Begin | Commit | Abort | Finish | Forget | Bar


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The item is locked for the attempt."""

    answer: bytes
    """The wire's."""


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The wire's step was rejected: its condition does not hold."""

    answer: bytes
    """The wire's."""


class Held(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Another attempt has the item locked."""

    transaction: bytes
    attempt: int


PrepareAnswer = Ready | Failed | Held


class ReasonKind(enum.IntEnum):
    """Why an item kept its transaction from happening."""

    REJECTED = 1
    """Its step was rejected: the condition does not hold, or it cannot be done to the item as it is."""
    CONFLICT = 2
    """Another transaction, or a write, got in between."""


class Reason(msgspec.Struct, frozen=True):
    """What one item has to do with a transaction that did not happen."""

    kind: ReasonKind
    answer: bytes = b""
    """Of REJECTED: the wire's."""
