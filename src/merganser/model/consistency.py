"""How many replicas must answer before the client may hear."""

from __future__ import annotations

import enum


class Consistency(enum.Enum):
    """A consistency level; each request names its own."""

    ONE = "ONE"
    TWO = "TWO"
    THREE = "THREE"
    QUORUM = "QUORUM"
    ALL = "ALL"

    def required(self, n: int) -> int:
        """Return how many of ``n`` replicas must answer.

        Raises:
            ValueError: the level asks for more replicas than the table has.
        """
        needed = _FIXED.get(self) or (n // 2 + 1 if self is Consistency.QUORUM else n)
        if needed > n:
            raise ValueError(
                f"consistency {self.value} needs {needed} replicas and the table has {n}: choose QUORUM, ALL or ONE"
            )
        return needed


_FIXED = {Consistency.ONE: 1, Consistency.TWO: 2, Consistency.THREE: 3}
