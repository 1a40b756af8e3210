"""Names of things. An id is never an address, and a node id lives as long as its data directory."""

from __future__ import annotations

from typing import NewType

NodeId = NewType("NodeId", str)
"""16 hexadecimal digits, drawn once when a data directory is made."""

ClusterId = NewType("ClusterId", str)
"""16 hexadecimal digits, drawn once when a cluster is founded."""

TableId = NewType("TableId", int)
"""1 to 2**32-2, never used twice in a cluster. 0 is the node's own metadata."""

PartitionId = NewType("PartitionId", int)
"""0 to Q-1, clockwise."""

Token = NewType("Token", int)
"""A place on the ring: -2**63 to 2**63-1."""
