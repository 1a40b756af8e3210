"""When a cell was written, and by whom."""

from __future__ import annotations

from typing import NamedTuple


class Timestamp(NamedTuple):
    """A hybrid logical time; compares by time first, then by writer.

    Two timestamps are equal only if one node minted both, so writes of two writers are never
    told apart by their values.
    """

    micros: int
    """Microseconds since 1970, -2**63 to 2**63-1."""
    writer: int
    """Number of the minting node in the cluster map, 0 to 2**32-1."""


BEGINNING = Timestamp(-(2**63), 0)
"""Earlier than every write."""
