"""What peers say to one another about tables of keys and values, besides what all leaderless tables have.

As `model.messages`, which these are part of: a request is answered by the reply that its docstring names.
"""

from __future__ import annotations

import msgspec

from merganser.model.ids import PartitionId, TableId
from merganser.model.row import Span


class Mint(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Name an event on ``key`` that the sender is about to bring about. Answered by `Minted`."""

    map_epoch: int
    table: TableId
    key: bytes
    is_blind: bool
    """It replaces nothing: refused if the key has too many values already."""
    count: int = 1
    """Of events. Who does not know of this names one."""


class PutValue(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Put or delete a value if a condition holds, as who sees to such puts of its key. Answered by `ValuePut`."""

    map_epoch: int
    table: TableId
    key: bytes
    kind: bytes
    value: bytes | None
    """A cell of that kind (`core.contents`); None: a delete."""
    context: bytes
    """As the client gave it."""
    expires_at_s: int | None
    condition: str
    """Of `model.contents.Condition`."""
    level: str
    """As `model.consistency.name_of` writes it."""
    read_level: str
    timeout_ms: int
    request: bytes = b""
    """Drawn by the sender: what comes twice is done once. None: it is not known whether it came before."""


class FindTagged(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Tell which rows of these partitions have tags of a name, in a range of places (`core.tags`): `TaggedAre`."""

    map_epoch: int
    table: TableId
    partitions: tuple[PartitionId, ...]
    name: str
    start: bytes
    end: bytes
    most: int


class ListRange(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """What there is of rows of ``start <= key < end``, in key order, without their values.

    Answered by `Rows`, each row as a `core.briefs` of it.
    """

    map_epoch: int
    table: TableId
    start: bytes
    end: bytes
    rows_max: int
    bytes_max: int
    """Of the rows that the replica reads for it."""


class Minted(msgspec.Struct, frozen=True, array_like=True, tag=109):
    """The dot at the end of ``span`` names one event, and no other event is within it."""

    span: Span
    more: tuple[Span, ...] = ()
    """As many more as were asked for."""


class ValuePut(msgspec.Struct, frozen=True, array_like=True, tag=110):
    """The condition held, and it is done; ``context`` is what the client puts with next."""

    context: bytes


class TaggedAre(msgspec.Struct, frozen=True, array_like=True, tag=111):
    """Places, ascending, with the fingerprints of their rows; ``stopped_at`` None: all there are."""

    entries: tuple[tuple[bytes, int], ...]
    stopped_at: bytes | None


ValueRequest = Mint | PutValue | FindTagged | ListRange
ValueReply = Minted | ValuePut | TaggedAre
