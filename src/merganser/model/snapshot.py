"""What a snapshot of a cluster is made of: the manifest, which names every file of every node, and what it promises."""

from __future__ import annotations

import msgspec

from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId
from merganser.model.policy import Policy

FORMAT = 1
"""Of manifests; a newer one is refused."""


class File(msgspec.Struct, frozen=True):
    """A file of a node's checkpoint."""

    name: str
    """Within the checkpoint, without directories."""
    size: int
    """In bytes."""
    sha256: str
    """Of the content, in hexadecimal: the name under which a repository keeps it."""


class Copy(msgspec.Struct, frozen=True):
    """The checkpoint of one node."""

    node: NodeId
    number: int
    files: tuple[File, ...]


class Absence(msgspec.Struct, frozen=True):
    """A node of the map whose checkpoint is not part of the snapshot."""

    number: int
    reason: str


class Manifest(msgspec.Struct, frozen=True):
    """A snapshot. Everything acknowledged before ``began_us`` is in it, as far as `is_complete` says."""

    format: int
    name: str
    version: str
    """Of the Merganser that made it."""
    began_us: int
    """When the command began, microseconds since 1970 by its clock: before the first checkpoint."""
    taken_us: int
    """When the last checkpoint was there: nothing that began later is in it."""
    map: ClusterMap
    """The newest that any of the checkpoints holds: tables, and who owns which partition."""
    copies: tuple[Copy, ...]
    absent: tuple[Absence, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Tell whether it holds the checkpoint of every node.

        Then it has what was acknowledged at any level, and every transaction whole. Else it has what a majority of the
        replicas had acknowledged, and a transaction that was being applied meanwhile may be in it in part.
        """
        return not self.absent

    @property
    def size(self) -> int:
        """How many bytes all of its files have."""
        return sum(file.size for copy in self.copies for file in copy.files)


class WantedIndex(msgspec.Struct, frozen=True, array_like=True):
    """A global index of a table that is to be restored; it is filled anew."""

    name: str
    definition: bytes


class WantedTable(msgspec.Struct, frozen=True, array_like=True):
    """A table that is to be restored."""

    wire: str
    name: str
    """That it is to have in the end."""
    hidden_name: str
    """That it has until then."""
    n: int
    replication: str
    definition: bytes
    indexes: tuple[WantedIndex, ...] = ()
    conflicts: str = "lww"
    policy: Policy | None = None
    """None: it asks for nothing but ``n`` replicas."""
