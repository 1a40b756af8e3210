"""How far this node trusts its own senses: Lifeguard's local health multiplier.

A node that is slow or badly connected sees everyone else silent. What tells: probes that fail without a
`Nack` from those who were asked to help, and having to refute. Each such sign makes its periods and
timeouts longer, so that it accuses less; each probe that succeeds makes them shorter again::

    0 (healthy) <--answered-- ... --doubt--> SCORE_MAX

Source: Dadgar, Phillips, Currey 2018, "Lifeguard", §IV-A.
"""

from __future__ import annotations

SCORE_MAX = 8
"""S of the paper: at worst a probe every 9 s with a timeout of 4.5 s."""


class LocalHealth:
    """A score from 0, healthy, to `SCORE_MAX`."""

    __slots__ = ("score",)

    def __init__(self) -> None:
        """Begin healthy."""
        self.score = 0

    @property
    def multiplier(self) -> int:
        """How many times longer than usual to wait."""
        return self.score + 1

    def improve(self) -> None:
        """Count a probe that was answered."""
        self.score = max(0, self.score - 1)

    def worsen(self) -> None:
        """Count a sign that the fault lies here."""
        self.score = min(SCORE_MAX, self.score + 1)
