"""What nodes say to one another about leader-based tables; part of `model.messages`.

Every request names the epoch it is of. A replica that has promised a later one refuses it (code `NOT_LEADING`) and
names that epoch; one that has promised less promises this one first, durably: so each answer is a promise, too.
Registers travel as the bytes that are stored (`storage.registers`).
"""

from __future__ import annotations

import msgspec

from merganser.model.ids import PartitionId, TableId
from merganser.model.leadership import Epoch
from merganser.model.refusal import Refused
from merganser.model.register import Version

NOT_LEADING = "not_leading"
"""Code of a refusal: of a replica that has promised a later epoch, or of a node that does not lead in this one. Nothing
was done. `Refused.epoch` is the latest known to the node that refuses."""

STALE_GENERATION = "stale_generation"
"""Code of a refusal: tombstones were dropped since this was sent. Nothing was done; it may be sent again in the present
generation, if it is still wanted."""

TRANSACTION_CONFLICT = "transaction_conflict"
"""Code of a refusal: another transaction holds the item. Nothing was done."""


class Campaign(msgspec.Struct, frozen=True, array_like=True, tag=50):
    """Promise the sender an epoch for each of ``bids``. Answered by `Promised`."""

    map_epoch: int
    n: int
    """Of all the groups."""
    bids: tuple[tuple[PartitionId, int], ...]
    """Partition, and the number of the epoch asked for; its leader is the sender."""
    is_poll: bool
    """Only tell what would be promised. Who asks first deposes nobody in vain."""
    is_handover: bool
    """The last leader has let go of all these groups."""


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag=51):
    """The sender lives, and leads these groups. Answered by `Pulsed`."""

    leading: tuple[tuple[int, PartitionId, int], ...]
    """n, partition, and the number of the epoch."""
    unfit: tuple[tuple[int, PartitionId], ...]
    """Groups of which it holds a replica and that it may not lead: it has lost what it held, or its disk has failed."""
    is_reluctant: bool
    """Others should lead, if there are any: it is short of disk."""
    partitions: int = 0
    """Q, by its map: with another one the groups have other numbers. 0: it is of a version that never cuts a ring."""


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag=52):
    """Do these epochs still stand? Answered by `Standing`."""

    map_epoch: int
    claims: tuple[tuple[int, PartitionId, Epoch], ...]
    """n, partition, and the epoch in which the sender leads."""


class TakeOver(msgspec.Struct, frozen=True, array_like=True, tag=53):
    """Campaign for these groups: their leader, the sender, has nothing in flight and steps back. Answered by `Done`."""

    map_epoch: int
    n: int
    groups: tuple[tuple[PartitionId, Epoch], ...]


class Touch(msgspec.Struct, frozen=True, array_like=True, tag=54):
    """What does a replica hold under ``key``? Answered by `Found`, with what is durable."""

    map_epoch: int
    table: TableId
    key: bytes
    epoch: Epoch


class TouchRange(msgspec.Struct, frozen=True, array_like=True, tag=55):
    """What does a replica hold in ``start <= key < end``, within one partition? Answered by `Rows`."""

    map_epoch: int
    table: TableId
    start: bytes
    end: bytes
    epoch: Epoch
    rows_max: int
    bytes_max: int


class TouchTree(msgspec.Struct, frozen=True, array_like=True, tag=45):
    """The leaves of a replica's hash tree of a partition. Answered by `Nodes`; none: do not rely on it."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch


class Replicate(msgspec.Struct, frozen=True, array_like=True, tag=56):
    """Keep ``register`` under ``key``, durably, unless what is kept there is of a later version. Answered by `Done`."""

    map_epoch: int
    table: TableId
    key: bytes
    epoch: Epoch
    """In which the sender leads; the register may be of an earlier one."""
    register: bytes
    generation: int = 0
    """Of the leader in that epoch; a replica that has heard of a later one refuses it (code `STALE_GENERATION`)."""


class Copies(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """What a leader has for one replica in one turn of its loop, each to be kept or refused by itself, in this order.
    Answered by `Kept`."""

    copies: tuple[Replicate, ...]


class Change(msgspec.Struct, frozen=True, array_like=True, tag=57):
    """Do a step on an item as its leader in ``epoch``, and in no other. Answered by `Changed`."""

    map_epoch: int
    table: TableId
    key: bytes
    epoch: Epoch
    request: bytes
    """16 bytes that no other request has: a repeated one is done once, and answered as it was."""
    kind: int
    """Whose step it is (`service.steps`)."""
    payload: bytes
    """What it does, in the words of that kind."""


class ReadLed(msgspec.Struct, frozen=True, array_like=True, tag=58):
    """The item as its leader in ``epoch`` has it, committed. Answered by `Led`."""

    map_epoch: int
    table: TableId
    key: bytes
    epoch: Epoch
    is_vouched: bool = False
    """The sender is a replica that has promised just this epoch, durably, and had promised nothing later when it asked:
    after whoever wants to read did. So it says already what a `Confirm` would ask it. Who does not know it asks."""


class ReadRangeLed(msgspec.Struct, frozen=True, array_like=True, tag=59):
    """Items of ``start <= key < end``, within one partition, as their leader has them. Answered by `LedRows`."""

    map_epoch: int
    table: TableId
    start: bytes
    end: bytes
    epoch: Epoch
    reverse: bool
    rows_max: int
    bytes_max: int
    index: int | None = None
    """Of this local index: the range, and the keys of the answer, are entries (`storage.keys`)."""


class Settle(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """What the sender, a replica, holds under these keys is damaged: make them known. Answered by `Settled`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch
    keys: tuple[bytes, ...]


class CompareLed(msgspec.Struct, frozen=True, array_like=True, tag=61):
    """Compare a partition, as its leader, with each other replica now. Answered by `Compared`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch
    is_dry_run: bool
    timeout_ms: int


class Rejoin(msgspec.Struct, frozen=True, array_like=True, tag=62):
    """The sender, a replica, has lost rows and promises: make it whole. Answered by `Done` when it has been told so."""

    map_epoch: int
    n: int
    partition: PartitionId
    epoch: Epoch
    token: int
    """Of this life of the sender, and this loss."""
    timeout_ms: int


class Restore(msgspec.Struct, frozen=True, array_like=True, tag=63):
    """Hold what the leader holds under these keys (None: nothing), durably; not an ack. Answered by `Done`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch
    token: int
    registers: tuple[tuple[bytes, bytes | None], ...]


class MadeWhole(msgspec.Struct, frozen=True, array_like=True, tag=64):
    """The receiver holds all that it may ever have acknowledged in a group: promise this epoch. Answered by `Done`."""

    map_epoch: int
    n: int
    partition: PartitionId
    epoch: Epoch
    token: int
    generation: tuple[Epoch, int]
    """That the sender knows of."""


class Drop(msgspec.Struct, frozen=True, array_like=True, tag=49):
    """All replicas hold these tombstones: drop them, and take nothing of an earlier generation. Answered by `Done`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch
    generation: int
    tombstones: tuple[tuple[bytes, Version], ...]


class Backfill(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """Let an index show what it should of the next items from ``start`` on. Answered by `Backfilled`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    epoch: Epoch
    index: TableId
    """The table of its entries."""
    start: bytes


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=167):
    """All but what is ``refused`` is kept, durably."""

    refused: tuple[tuple[int, Refused], ...]
    """Which of the copies, from 0, and how each would have been refused had it come alone."""


class Promised(msgspec.Struct, frozen=True, array_like=True, tag=150):
    """What is promised now, durably, in the order of the bids; the bid is won where that is the epoch asked for.
    Answering a poll: that epoch where it would be won."""

    promised: tuple[Epoch, ...]
    roots: tuple[tuple[tuple[TableId, int], ...], ...]
    """For each bid that is won, the roots of the hash trees of the tables of that n in that partition, as far as they
    are counted; nothing changes them before the new leader writes. Empty for a bid that is lost."""


class Pulsed(msgspec.Struct, frozen=True, array_like=True, tag=165):
    """Heard."""

    later: tuple[tuple[int, PartitionId, Epoch], ...]
    """Of the groups that the sender of the pulse leads, those of which a later epoch is known."""


class Standing(msgspec.Struct, frozen=True, array_like=True, tag=152):
    """What is promised, in the order of the claims: the claim stands if that is its epoch."""

    promised: tuple[Epoch, ...]


class Changed(msgspec.Struct, frozen=True, array_like=True, tag=157):
    """What the step came to; if it wrote, a majority has it durably."""

    answer: bytes
    is_rejected: bool
    version: Version
    """Of the register after the step."""


class Led(msgspec.Struct, frozen=True, array_like=True, tag=158):
    """The value, None if there is no such item, and the version of the register that says so."""

    value: bytes | None
    version: Version


class LedRows(msgspec.Struct, frozen=True, array_like=True, tag=159):
    """Keys and values of the items that exist, in the order asked for."""

    rows: tuple[tuple[bytes, bytes], ...]
    resume: bytes | None
    """Where to go on (the exclusive end, when reversed); None: the range is read to its end."""


class Backfilled(msgspec.Struct, frozen=True, array_like=True, tag=166):
    """The items up to ``resume`` are in the index as they are, and stay so."""

    resume: bytes | None
    """Where to go on; None: they were the last of the partition, or there is no such index any more."""


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=161):
    """What the leader holds under the keys, in their order, None for nothing; all of it is known in its epoch."""

    epoch: Epoch
    registers: tuple[bytes | None, ...]


class ComparedWith(msgspec.Struct, frozen=True, array_like=True):
    """What a leader's comparison with one replica came to (`service.anti_entropy.Comparison`)."""

    number: int
    """Of the replica's node."""
    differing: int
    in_flight: int
    changed: int
    """Keys that were made equal."""
    listed: int
    damaged: tuple[bytes, ...]
    sent_bytes: int
    received_bytes: int
    problem: str | None


class Compared(msgspec.Struct, frozen=True, array_like=True, tag=162):
    """What came of a comparison with each other replica."""

    peers: tuple[ComparedWith, ...]


Leading = Campaign | Pulse | Confirm | TakeOver
"""Of elections."""

FromLeader = Touch | TouchRange | TouchTree | Replicate | Copies | Drop
"""From a leader to replicas."""

ToLeader = Change | ReadLed | ReadRangeLed | Settle | CompareLed | Rejoin | Backfill
Restoring = Restore | MadeWhole
"""From a leader to a replica that has lost rows."""

LeaderRequest = Leading | FromLeader | ToLeader | Restoring
LeaderReply = Kept | Promised | Pulsed | Standing | Changed | Led | LedRows | Settled | Compared | Backfilled
