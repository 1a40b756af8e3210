"""The cluster map: the one document of the control plane.

It is changed only by compare-and-set on its epoch (`core.register`) and spread by gossip; a node
with an old copy still serves, and is told when its copy is too old for a request.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import msgspec

from merganser.model import versions
from merganser.model.errors import RequestError
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.policy import Policy


class NodeRecord(msgspec.Struct, frozen=True):
    """A member, as the operator introduced it."""

    id: NodeId
    number: int
    """1 to 2**32-1, never used twice: the writer in timestamps, the proposer in ballots."""
    peer_address: str
    """host:port for peers."""
    wire_addresses: dict[str, str] = {}
    """What clients connect to, by wire: {"dynamodb": "127.0.0.1:8000", "admin": "127.0.0.1:7800"}."""
    zone: str = ""
    """Failure domain. Nodes without one share the zone ""."""
    machine: str = ""
    """Name of the machine, if several nodes run on it: a failure domain within the zone."""
    weight: float = 1.0
    """Share of the ring that it is to own, in relation to the others; 0: none."""
    speaks: int = versions.OLDEST
    """The newest version it speaks (`model.versions`), as far as it has told."""
    data_center: str = ""
    """Nodes without one share the data centre ""."""

    @property
    def domain(self) -> tuple[str, str]:
        """Its zone, told from zones of that name in other data centres."""
        return self.data_center, self.zone

    @property
    def fate(self) -> str:
        """What goes down as one: the machine, or the node itself if it is alone on one."""
        return self.machine or self.id


Replication = Literal["leaderless", "leader"]
"""Which of the two protocols keeps a table: chosen when it is created, for its whole life."""


Conflicts = Literal["lww", "siblings", "crdt"]
"""What becomes of writes to a key that did not know of one another: the last one wins, they stand side by side, or they
merge, as the type of the value has it."""


def conflicts_of(text: str) -> Conflicts:
    """Return what ``text``, as a snapshot has it, means.

    Raises:
        RequestError: a later release has written it.
    """
    for known in get_args(Conflicts):
        if text == known:
            return cast("Conflicts", known)
    raise RequestError(f"a table that keeps {text!r}, which this release does not know")


IndexState = Literal["creating", "active", "deleting"]
"""Being filled with what was there before it; complete; about to be dropped."""


class Index(msgspec.Struct, frozen=True):
    """A global index of a table. Its entries are items of a table of its own, which no client sees by name."""

    name: str
    """Unique within its table."""
    table: TableId
    """Of the entries: one of the same map, made and dropped together with the index."""
    definition: bytes
    """The wire's own description, in the wire's own encoding."""
    unique_id: str
    """Drawn by whoever asked for the index: tells a repeated request from a second index."""
    state: IndexState = "active"
    since: int = 0
    """Epoch of the map that it was added in; 0: it was made with its table, so that who knows one knows the other."""


SYSTEM_WIRE = "system"
"""Of tables that belong to no client."""
KEY_VALUE_WIRE = "values"
"""The front door of tables of keys and values: the admin port, the command line, the native client."""


class Table(msgspec.Struct, frozen=True, cache_hash=True):
    """A table as every node must know it; what only its wire understands stays opaque."""

    id: TableId
    name: str
    wire: str
    """The front door that owns the name: "dynamodb"."""
    n: int
    """Replicas of each key, in all data centres together."""
    definition: bytes
    """The wire's own description, in the wire's own encoding."""
    unique_id: str
    """A UUID drawn by whoever asked for the table: tells a repeated request from a second table."""
    replication: Replication = "leaderless"
    indexes: tuple[Index, ...] = ()
    """Global indexes, in the order in which they were made; only of tables with leaders."""
    conflicts: Conflicts = "lww"
    """Other than the default only without leaders, who leave nothing to chance. For the table's whole life."""
    policy: int = 0
    """Number of its policy in the map, from `FIRST_POLICY`; 0: it asks for nothing but ``n`` replicas."""
    formerly: tuple[int, ...] = ()
    """Ledgers that may have records of its transactions from before its policy changed, by the numbers of their
    policies (`core.ledgers`)."""
    changed: int = 0
    """Epoch of the latest such change, 0 if there was none lately."""

    @property
    def rule(self) -> int:
        """What its preference lists follow from, and what tells its groups apart: its policy, or ``n``.

        Tables of one rule have the same replicas, and leaders.
        """
        return self.policy or self.n

    @property
    def is_causal(self) -> bool:
        """Tell whether its rows have a causal context."""
        return self.conflicts != "lww"

    @property
    def has_contents(self) -> bool:
        """Tell whether what its keys hold are values that clients put (`core.contents`)."""
        if self.conflicts == "siblings":
            return True
        return self.conflicts == "lww" and self.wire == KEY_VALUE_WIRE and not self.has_leaders

    @property
    def has_leaders(self) -> bool:
        """Tell whether each of its partitions has a leader, and its items are registers."""
        return self.replication == "leader"


class Move(msgspec.Struct, frozen=True, array_like=True):
    """A partition on its way to another owner."""

    partition: PartitionId
    to: int
    """Number of the next owner."""


class Pending(msgspec.Struct, frozen=True):
    """What changes next of who holds what, in one step, once those who come hold everything."""

    moves: tuple[Move, ...] = ()
    zones: tuple[tuple[int, str], ...] = ()
    """Numbers of nodes, and the zones that they will be in."""
    policies: tuple[tuple[int, Policy], ...] = ()
    """Numbers of policies, and what they will ask for: of all tables that have them."""


OperationKind = Literal["join", "leave", "remove", "replace", "weights", "rebalance", "zones", "split", "policy"]


NO_TABLE = TableId(0)
"""Tables are numbered from 1."""


class Operation(msgspec.Struct, frozen=True):
    """What an operator has asked for that changes who holds what, until it is done or cancelled. One at a time."""

    id: str
    """Drawn by whoever asked: tells a repeated request from a second one."""
    kind: OperationKind
    told: str
    """In words, for operators."""
    owners: tuple[int, ...]
    """Number of the node that owns each partition in the end, as many as there are then."""
    zones: tuple[tuple[int, str], ...] = ()
    """Numbers of nodes, and the zones that they are in, in the end."""
    gone: tuple[int, ...] = ()
    """Numbers of the nodes that are no members in the end."""
    lost: tuple[int, ...] = ()
    """Those of them that are not there any more: nothing is waited for from them."""
    moves: int = 0
    """Partitions that had to change their owner when it began; of zones and policies: their replicas."""
    began_us: int = 0
    """Microseconds since 1970."""
    table: TableId = NO_TABLE
    """Whose policy changes, if one does."""
    policy: Policy | None = None
    """What it asks for in the end."""


class ClusterMap(msgspec.Struct, frozen=True):
    """Topology, schema and settings at one epoch."""

    cluster_id: ClusterId
    epoch: int
    """1 when the cluster is founded, then one more with each change."""
    partitions: int
    """Q, a power of two."""
    nodes: tuple[NodeRecord, ...]
    """In ascending order of number."""
    owners: tuple[int, ...]
    """Number of the owning node of each partition, Q long."""
    voters: tuple[int, ...]
    """Numbers of the nodes that hold the register, at most five."""
    tables: tuple[Table, ...] = ()
    """In ascending order of id."""
    next_table_id: int = 1
    placed: int = 0
    """Epoch of the last change of who holds what (owners, zones, what is pending), 0 if there was none: replicas refuse
    what was asked by an earlier map."""
    pending: Pending | None = None
    settling: tuple[PartitionId, ...] = ()
    """Partitions whose holders have just changed: who held them keeps what it has until all who do now are found equal.
    """
    operation: Operation | None = None
    next_number: int = 0
    """Of the next member; 0: one above all there are."""
    dropped: tuple[str, ...] = ()
    """Unique ids of the tables dropped last, so that a request for one that still goes on makes it no second time."""
    version: int = versions.OLDEST
    """That all members speak, and that may be made use of (`model.versions`). It is never lowered."""
    policies: tuple[tuple[int, Policy], ...] = ()
    """Those of the tables, by number, in ascending order; the last one stays, so that no number means two policies."""
    splits: int = 0
    """How often the ring was cut in halves since the cluster was founded (`core.splitting`)."""

    def policy_of(self, table: Table) -> Policy:
        """Return the policy of one of its tables."""
        return dict(self.policies).get(table.policy) or Policy(table.n)
