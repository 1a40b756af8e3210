"""What can be asked of values that merge themselves, and what they read as; `core.crdt` says what that means."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

COUNTER: Final = "counter"
GROW_COUNTER: Final = "grow-counter"
SET: Final = "set"
MAP: Final = "map"
REGISTER: Final = "register"
MULTI_REGISTER: Final = "multi-register"
FLAG: Final = "flag"
DISABLE_FLAG: Final = "disable-flag"
DISTINCT: Final = "distinct"
MAXIMUM: Final = "max"
MINIMUM: Final = "min"
ANY: Final = "any"
"""Whatever type there is: only for `reset`."""


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One change of one value."""

    type: str
    """What the value is, or is to become: one of the names above."""
    action: str
    """What is done with it: `core.crdt.types.ACTIONS` has the names."""
    value: int | bytes | None = None
    """What the action takes, if it takes anything."""
    path: tuple[bytes, ...] = ()
    """The names of the fields that lead to the value, from the outermost map on; none: the value of the key itself."""


class Session(NamedTuple):
    """One client that counts, under which its operations are told apart (`core.crdt.counters`)."""

    ends_us: int
    """No event of it is later."""
    number: int
    """The node that opened it, which never opens two in one microsecond."""
    began_us: int


class OperationId(NamedTuple):
    """Names one update for as long as it is tried: an update of a key is made once under each id."""

    session: Session
    sequence: int
    """From 1 on, one more with each update of the same key."""


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A value as it is read."""

    type: str
    value: int | bool | bytes | tuple[bytes | Field, ...]
    """Of counters, `distinct`, `max` and `min` a number; of flags a truth; of a register its value; of a set and a
    multi-register all there are, ascending; of a map its fields, by name and then type."""


class Field(msgspec.Struct, frozen=True, array_like=True):
    """One field of a map."""

    name: bytes
    of: Shown
