"""What peers say to one another: msgpack arrays, told apart by their first element.

A request is answered by the reply named in its docstring, or by `Refused`. Rows travel as the bytes
that are stored (`storage.values`), encoded once by the coordinator of the write.
"""

from __future__ import annotations

import msgspec

from merganser.model.client_messages import CLIENT_REQUESTS, ClientReply, ClientRequest
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.gossip import Packet
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import LeaderReply, LeaderRequest
from merganser.model.refusal import Refused
from merganser.model.timestamp import Timestamp
from merganser.model.value_messages import FindTagged, ListRange, Mint, PutValue, ValueReply, ValueRequest
from merganser.model.versions import CLIENTS_SINCE


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Order of proposals on the register: round first, then the proposer's node number."""

    round: int
    proposer: int


A_CLIENTS = -1
"""As `Apply.vouched_us`: the write of a client, not a repair of what some replica holds."""


class Apply(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Merge ``row`` into what ``key`` holds, durably. Answered by `Merged`."""

    map_epoch: int
    table: TableId
    key: bytes
    row: bytes
    vouched_us: int = A_CLIENTS
    """Of a repair (hints are repairs): the horizon of whoever held the row, 0 for none (`core.horizon`)."""


class Read(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answered by `Found`."""

    map_epoch: int
    table: TableId
    key: bytes


class ReadRange(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Rows of ``start <= key < end`` in key order (descending if ``reverse``). Answered by `Rows`."""

    map_epoch: int
    table: TableId
    start: bytes
    end: bytes
    reverse: bool
    rows_max: int
    bytes_max: int
    index: int | None = None
    """Of this local index: the range is one of entries (`storage.keys`)."""


class FetchMap(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Answered by `MapIs`; the map is left out when it is not newer than ``known_epoch``."""

    known_epoch: int


class Introduce(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A node of a cluster to be founded says who it is (number 0). Answered by `Introduced`."""

    node: NodeRecord
    seeds: tuple[str, ...]


class Adopt(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Join the cluster that ``map`` founds. Answered by `Done`."""

    map: ClusterMap


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """First half of a change of the register (CASPaxos). Answered by `Promise`."""

    ballot: Ballot


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Second half of a change of the register. Answered by `Accepted`."""

    ballot: Ballot
    value: ClusterMap


class Join(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """A fresh node asks to be a member, which owns nothing (number 0). Answered by `Introduced`, with the map then."""

    node: NodeRecord


class Hint(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Keep ``row`` for the node with number ``target``, which is away, durably. Answered by `Merged`."""

    map_epoch: int
    table: TableId
    key: bytes
    row: bytes
    target: int


class ReadHint(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """What is kept under ``key`` for nodes that are away. Answered by `Found`."""

    map_epoch: int
    table: TableId
    key: bytes


class LookAtTree(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """What the hash tree of a partition holds: level 0 the root, 1 branches, 2 leaves. Answered by `Nodes`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    level: int
    positions: tuple[int, ...]


class Tally(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Fingerprints of a stretch's rows from ``start`` on, XORed by bucket (`core.exchange`). Answered by `Tallied`.

    A stretch is a leaf (0 to 1,023); since version 4 it may be a twig (from 1,024 on), here and in `Region`.
    """

    map_epoch: int
    table: TableId
    partition: PartitionId
    stretch: int
    buckets: int
    """A power of two."""
    start: bytes


class LookAtTwigs(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The 32 twigs of each of ``leaves``, ascending (`core.hash_tree`). Answered by `Nodes`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    leaves: tuple[int, ...]


class TallyTogether(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """`Tally` of several stretches, ascending, each to its end. Answered by `TalliedTogether`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    stretches: tuple[int, ...]
    buckets: tuple[int, ...]


class Region(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one stretch: those whose keys fall into some of its buckets."""

    stretch: int
    buckets: int = 1
    """How many there are, a power of two."""
    chosen: tuple[int, ...] = (0,)
    """Which are meant, ascending."""


class ListKeys(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Keys and fingerprints of the rows of ``regions``, ascending stretches, from ``start``. Answered by `Listed`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    regions: tuple[Region, ...]
    start: bytes


class LookAgain(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The fingerprints of ``keys`` as they are now. Answered by `Fingerprints`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    keys: tuple[bytes, ...]


class Meet(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Become equal in ``rows`` with a replica that holds these (`core.horizon.met`), durably. Answered by `Met`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    horizon_us: int
    """The asking replica's."""
    rows: tuple[tuple[bytes, bytes | None], ...]


class AskTime(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """Answered by `TimeIs`."""


class Seal(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """Take no client write at or before ``horizon_us`` any more (`core.horizon`); 0 only asks. Answered by `Sealed`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    horizon_us: int


class Complete(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """All replicas hold what was written until ``horizon_us``. Answered by `Done`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    horizon_us: int
    vow: int
    """As the replica gave it when it sealed."""


class Level(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Synchronise with ``teachers``, in that order, and adopt ``horizon_us``. Answered by `Sealed`."""

    map_epoch: int
    table: TableId
    partition: PartitionId
    horizon_us: int
    teachers: tuple[NodeId, ...]
    timeout_ms: int


class AskMoves(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Ask how far a node is with what changes of who holds what. Answered by `Moves`."""


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """A packet of the failure detector that may have got lost as a datagram. Answered by `Gossiped`."""

    packet: Packet


class Done(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """It is done, and durable."""


class Merged(msgspec.Struct, frozen=True, array_like=True, tag=108):
    """The row is merged and durable; ``outranked_by`` is what the key held already that is as new or newer."""

    outranked_by: Timestamp | None = None


class Found(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """The stored row, None if the key was never written here, or has been purged."""

    row: bytes | None
    horizon_us: int = 0
    """The replica's, for the partition of the key."""


class Rows(msgspec.Struct, frozen=True, array_like=True, tag=103):
    """A page of a range; ``is_last`` when nothing of the range is left."""

    rows: tuple[tuple[bytes, bytes], ...]
    is_last: bool
    horizons: tuple[int, ...] = ()
    """The replica's for each partition that the range asked for touches, clockwise; none if all are 0."""
    resume: bytes | None = None
    """Of a page of a local index that is not the last: where it goes on (the exclusive end, when reversed)."""


class MapIs(msgspec.Struct, frozen=True, array_like=True, tag=104):
    """The epoch this node knows, and its map if that is news."""

    epoch: int
    map: ClusterMap | None


class Introduced(msgspec.Struct, frozen=True, array_like=True, tag=105):
    """Who answers, and the map it already belongs to."""

    node: NodeRecord
    map: ClusterMap | None


class Promise(msgspec.Struct, frozen=True, array_like=True, tag=106):
    """``promised`` is the highest ballot seen; the promise holds only if it is the one asked for."""

    promised: Ballot
    accepted: Ballot
    value: ClusterMap | None


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=107):
    """``promised`` equal to the ballot asked for means accepted."""

    promised: Ballot


class Nodes(msgspec.Struct, frozen=True, array_like=True, tag=120):
    """The hashes asked for, in that order; the rows behind them are durable."""

    hashes: tuple[int, ...]


class Tallied(msgspec.Struct, frozen=True, array_like=True, tag=121):
    """One sum for each bucket, of the rows before ``resume``; None: to the end of the stretch."""

    sums: tuple[int, ...]
    resume: bytes | None


class TalliedTogether(msgspec.Struct, frozen=True, array_like=True, tag=125):
    """The sums of the first stretches asked for, as many as one answer takes; none if the first has too many rows."""

    sums: tuple[tuple[int, ...], ...]


class Listed(msgspec.Struct, frozen=True, array_like=True, tag=122):
    """Keys, ascending, with the fingerprints of their rows (0: damaged), before ``resume``; None: to the end."""

    entries: tuple[tuple[bytes, int], ...]
    resume: bytes | None


class Fingerprints(msgspec.Struct, frozen=True, array_like=True, tag=123):
    """One for each key asked for; None: no row, 0: a damaged one."""

    fingerprints: tuple[int | None, ...]


class Met(msgspec.Struct, frozen=True, array_like=True, tag=124):
    """What the replica holds now of the first ``count`` keys it was asked to meet; the others it has not looked at."""

    count: int
    changed: int
    """In how many of them it has changed what it held."""
    others: tuple[tuple[int, bytes | None], ...]
    """Position and row of those that it holds differently than it was sent."""
    unmet: tuple[int, ...]
    """Positions of those that it cannot meet: damaged, or too far ahead of its clock."""
    horizon_us: int
    """The replica's."""


class CountItems(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """How many items does the node hold of a table? Answered by `Counted`."""

    table: TableId


class Counted(msgspec.Struct, frozen=True, array_like=True, tag=133):
    """Partition, items, and their size in bytes; of the partitions that the node holds and has counted."""

    counts: tuple[tuple[int, int, int], ...]
    local: tuple[tuple[int, int, int, int], ...] = ()
    """Partition, number of a local index that holds any of it, items, and the bytes that it shows of them."""


class TimeIs(msgspec.Struct, frozen=True, array_like=True, tag=138):
    """What the wall clock of the node shows, in microseconds since 1970."""

    wall_us: int


class Sealed(msgspec.Struct, frozen=True, array_like=True, tag=130):
    """The node's standing after it has sealed, or adopted a horizon; durable."""

    horizon_us: int
    is_whole: bool
    has_hints: bool
    """It keeps hints of the partition from before the seal."""
    vow: int
    """Another one after each restart, and when rows may have vanished."""


class Moves(msgspec.Struct, frozen=True, array_like=True, tag=134):
    """How far a node is."""

    placed: int
    """Of its map: of what follows."""
    done: tuple[tuple[TableId, PartitionId], ...]
    """Places that change, or just have: this node has seen to it that those who come hold everything."""
    leads: int
    """Groups that it leads and is about to leave."""
    leftovers: int
    """Places of which it may hold something though it is no replica; -1: it does not know."""
    hints: int
    """That it keeps for others; when a policy has changed, 1 or more if any are of tables that it may not keep."""
    is_well: bool
    """Its disk has neither failed nor lost anything that it has not got back."""
    problem: str
    """Why it is not further; "" if nothing is in the way."""


class Gossiped(msgspec.Struct, frozen=True, array_like=True, tag=140):
    """What the receiver has to say to the packet, if anything."""

    packet: Packet | None


Purging = Seal | Complete | Level
"""Of a round that raises the horizon of a partition."""

Exchanging = LookAtTree | LookAtTwigs | Tally | TallyTogether | ListKeys | LookAgain | Meet
"""Of two replicas that compare a partition."""

Exchanged = Nodes | Tallied | TalliedTogether | Listed | Fingerprints | Met
Handoff = Hint | ReadHint
Request = (
    Apply
    | Read
    | ReadRange
    | FetchMap
    | Introduce
    | Join
    | Adopt
    | Prepare
    | Accept
    | Handoff
    | ValueRequest
    | AskTime
    | CountItems
    | Purging
    | Exchanging
    | AskMoves
    | Gossip
    | LeaderRequest
    | ClientRequest
)
Reply = (
    Done
    | Merged
    | ValueReply
    | Found
    | Rows
    | MapIs
    | Introduced
    | Promise
    | Accepted
    | TimeIs
    | Counted
    | Sealed
    | Exchanged
    | Moves
    | Gossiped
    | LeaderReply
    | ClientReply
    | Refused
)

SINCE: dict[type[Request], int] = {
    **dict.fromkeys((Mint, AskMoves, Join), 3),
    **dict.fromkeys((PutValue, FindTagged, ListRange, LookAtTwigs, TallyTogether), 4),
    **dict.fromkeys(CLIENT_REQUESTS, CLIENTS_SINCE),
}
"""The version that each kind of request came with, if it is newer than `versions.OLDEST`."""


def withheld(version: int) -> frozenset[type[Request]]:
    """Return the kinds of requests that a peer of ``version`` does not know."""
    return frozenset(kind for kind, since in SINCE.items() if since > version)
