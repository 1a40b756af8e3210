"""What clients asked and heard in one run: the evidence that the checkers judge.

Rows carry the timestamps that order them, so most checks are exact and cheap. ``replicas`` of a
record is how many primaries its consistency level counted; two requests whose counts add up to
more than N met at a replica, and only then does one promise anything about the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

import msgspec

from merganser.model.consistency import Need
from merganser.model.contents import Condition
from merganser.model.ids import NodeId
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.sim.item_history import ItemHistory

QUORUM_OF_3 = 2
NOWHERE: Mapping[str, int] = {}


class Write(msgspec.Struct):
    """One write of a value that no other write carries."""

    key: bytes
    value: bytes | None
    """None: a delete."""
    began_s: float
    acked_s: float | None = None
    """None: refused, failed or unknown."""
    timestamp: Timestamp | None = None
    """What orders the row; known once acknowledged."""
    is_certainly_unwritten: bool = False
    client: int = 0
    replicas: int = QUORUM_OF_3
    nodes: int = QUORUM_OF_3
    """How many nodes had to ack it, keepers of hints among them."""
    expires_at_s: int | None = None
    """On the wall clock; from then on it reads as a delete."""
    places: Mapping[str, int] = NOWHERE
    """By data centre, how many replicas had to ack it there; of levels that count so."""
    minted: Timestamp | None = None
    """What the coordinator minted: a delete is ordered right before it."""

    def reads_as_nothing(self, wall_s: float) -> bool:
        """Tell whether a reader whose clock shows ``wall_s`` sees nothing of it."""
        return self.value is None or (self.expires_at_s is not None and self.expires_at_s <= wall_s)


class Read(msgspec.Struct):
    """One read that was answered."""

    key: bytes
    value: bytes | None
    timestamp: Timestamp
    """Of the row; BEGINNING if there was none."""
    began_s: float
    ended_s: float
    client: int = 0
    replicas: int = QUORUM_OF_3
    wall_s: float = 0.0
    """What the coordinator's clock showed when it answered."""
    places: Mapping[str, int] = NOWHERE
    """As of a write."""


class Scan(msgspec.Struct):
    """One paged read of a range, as far as it came."""

    low: bytes
    high: bytes
    """Exclusive; all of ``low <= key < high`` was covered."""
    is_reverse: bool
    keys: list[bytes]
    """As they came."""
    began_s: float
    ended_s: float
    replicas: int = QUORUM_OF_3
    places: Mapping[str, int] = NOWHERE


class ValuePut(msgspec.Struct):
    """One put, or delete, of a key-value table; no other put carries its value."""

    key: bytes
    value: bytes
    """Of a delete, a name for it alone."""
    is_delete: bool
    seen: frozenset[bytes]
    """The values, and deletes, that the context it was sent with had seen."""
    began_s: float
    acked_s: float | None = None
    is_certainly_unwritten: bool = False
    client: int = 0
    items: frozenset[str] = frozenset()
    """What is in the cart, if it is one."""
    tags: frozenset[int] = frozenset()
    """That the value has, of one name."""
    only_if: Condition | None = None
    """What it depended on."""
    as_of_s: float = 0.0
    """What began later its context cannot have seen, but for its client's own puts."""
    is_refused: bool = False
    """Because what it depended on was not so."""
    ended_s: float = math.inf
    """When its client was told how, or gave up."""


class CrdtWrite(msgspec.Struct):
    """One operation on a value that merges itself: something is added at a place, or what is there is taken away."""

    key: bytes
    place: str
    """An element of the set, or ``hits``, the counter; of a removal also "": everything."""
    amount: int
    """That is counted; 0: a removal."""
    began_s: float
    client: int
    acked_s: float | None = None
    is_certainly_unwritten: bool = False
    saw_from_s: float = 0.0
    """Of a removal: it has seen what was acknowledged by then,"""
    saw_until_s: float = float("inf")
    """and nothing that began later."""


class CrdtRead(msgspec.Struct, frozen=True):
    """One read of such a value that was answered."""

    key: bytes
    hits: int
    elements: frozenset[str]
    began_s: float
    ended_s: float
    client: int


class ValuesRead(msgspec.Struct, frozen=True):
    """One read of a key of a key-value table that was answered."""

    key: bytes
    values: frozenset[bytes]
    began_s: float
    ended_s: float
    client: int = 0


class KeyList(msgspec.Struct, frozen=True):
    """One list of all keys of a table that was told to its end, page by page."""

    keys: tuple[bytes, ...]
    """Those of the rows, as they came."""
    began_s: float
    ended_s: float
    client: int = 0


class TagQuery(msgspec.Struct, frozen=True):
    """One query by tag that was answered to its end, page by page."""

    low: int
    high: int
    found: tuple[tuple[int, bytes], ...]
    """Tag and row's key, as they were told."""
    began_s: float
    ended_s: float
    client: int = 0


class TableChange(msgspec.Struct):
    """One attempt to create or to drop a table."""

    name: str
    unique_id: str
    is_drop: bool
    began_s: float
    acked_s: float | None = None
    is_certainly_undone: bool = False


class TableLookup(msgspec.Struct):
    """One answered question for a table by its name."""

    name: str
    unique_id: str | None
    """None: there is none."""
    began_s: float
    ended_s: float
    is_settled: bool = False
    """Asked when all was well and every node knew the newest map."""


class Failure(msgspec.Struct, frozen=True):
    """One request on rows that was not answered: unavailable, of unknown outcome, or silent."""

    what: str
    key: bytes | None
    """None: a page of a range."""
    node: NodeId
    """Who coordinated it."""
    need: Need
    began_s: float
    ended_s: float
    is_of_leader: bool = False
    """Only the leader of the key's partition, or of several, could answer it."""


class Trouble(msgspec.Struct):
    """A fault, and whom it hurts: all links that it touches begin or end at one of ``nodes``."""

    nodes: frozenset[NodeId] | None
    """None: all of them."""
    began_s: float
    ended_s: float = math.inf
    is_partial: bool = False
    """Some links of these nodes are well: one of them may lead, and be out of reach of who asks."""


class _Keyed(Protocol):
    @property
    def key(self) -> bytes: ...


R = TypeVar("R", bound=_Keyed)


class History:
    """The records of one run on tables of ``n`` replicas, in the order in which they began."""

    def __init__(self, n: int = 3, n_in: Mapping[str, int] = NOWHERE) -> None:
        """Begin with nothing; ``n_in`` says how many replicas are in each data centre."""
        self.n = n
        self.n_in = n_in
        self.has_losses = False
        """Disks lost what they had synced, one at a time: what one node alone acknowledged or told may be gone."""
        self.has_other_members = False
        """Nodes have joined or gone, or partitions have moved: the map in the end does not tell who held what."""
        self.has_purges = True
        """What was deleted may have left no trace."""
        self.last_write_wins = False
        """Of values that were put under one key."""
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.scans: list[Scan] = []
        self.value_puts: list[ValuePut] = []
        """Of key-value tables, all at QUORUM, as are"""
        self.value_reads: list[ValuesRead] = []
        self.tag_queries: list[TagQuery] = []
        self.key_lists: list[KeyList] = []
        self.crdt_writes: list[CrdtWrite] = []
        self.crdt_reads: list[CrdtRead] = []
        self.table_changes: list[TableChange] = []
        self.table_lookups: list[TableLookup] = []
        self.failures: list[Failure] = []
        self.troubles: list[Trouble] = []
        self.items = ItemHistory()
        """Of leader-based tables."""

    def meet(self, one: Write | Read | Scan, other: Write | Read | Scan) -> bool:
        """Tell whether the replicas that the two counted must overlap; ``one`` came first, and must still be there."""
        if self.has_losses and one.replicas < 2:
            return False
        if one.replicas + other.replicas > self.n:
            return True
        return any(
            count + other.places.get(data_center, 0) > self.n_in[data_center]
            for data_center, count in one.places.items()
            if data_center in other.places
        )

    def writes_by_key(self) -> dict[bytes, list[Write]]:
        """Return the writes of each key."""
        return _by_key(self.writes)

    def reads_by_key(self) -> dict[bytes, list[Read]]:
        """Return the reads of each key."""
        return _by_key(self.reads)


def may_be_purged(read: Read, seen: Timestamp | None, writes: Iterable[Write]) -> bool:
    """Tell whether ``read`` may find no row at all though something of ``seen`` was there before it.

    That is so if a delete or an expiry that buries it may have been written; a purge leaves no trace of either.
    """
    return read.timestamp == BEGINNING and any(
        write.reads_as_nothing(read.wall_s)
        and not write.is_certainly_unwritten
        and write.began_s <= read.ended_s
        and (write.timestamp is None or seen is None or write.timestamp >= seen)
        for write in writes
    )


def _by_key(records: Iterable[R]) -> dict[bytes, list[R]]:
    found: dict[bytes, list[R]] = {}
    for record in records:
        found.setdefault(record.key, []).append(record)
    return found


def told(read: Read) -> str:
    """Return the read in words."""
    when = f"from {read.began_s:.4f} to {read.ended_s:.4f} s"
    return f"a read of {read.key!r} {when} returned {read.value!r} of {read.timestamp}"
