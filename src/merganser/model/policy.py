"""Where the replicas of a table's keys may be, and how many of them in which data centre."""

from __future__ import annotations

import msgspec

FIRST_POLICY = 256
"""Numbers of policies begin here; below, a number is that of the replicas of a key, wherever they are."""


class Policy(msgspec.Struct, frozen=True, cache_hash=True):
    """How many replicas of each key a table has, and which nodes may hold them."""

    n: int
    """In all."""
    replicas: tuple[tuple[str, int], ...] = ()
    """Data centres, and how many replicas are in each, in order of name; there are none elsewhere. Empty: ``n``,
    wherever the other members allow it."""
    data_centers: tuple[str, ...] = ()
    """Where replicas may be if it is not said how many in which, in order; none: in all."""
    zones: tuple[str, ...] = ()
    """Zones that replicas may be in, in whatever data centre, in order; none: in all."""

    @property
    def is_bound(self) -> bool:
        """Tell whether it asks for anything but ``n`` replicas."""
        return bool(self.replicas or self.data_centers or self.zones)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The data centres that it names; none: all are allowed."""
        return tuple(name for name, _ in self.replicas) or self.data_centers

    def allows(self, data_center: str, zone: str) -> bool:
        """Tell whether a node there may hold anything of the table."""
        named = self.allowed
        return (not named or data_center in named) and (not self.zones or zone in self.zones)

    def is_within(self, other: Policy) -> bool:
        """Tell whether whatever this policy allows, ``other`` allows as well."""
        return _is_within(self.allowed, other.allowed) and _is_within(self.zones, other.zones)

    def __str__(self) -> str:
        """Return it as messages and operators show it."""
        told = [", ".join(f"{name}={count}" for name, count in self.replicas) or str(self.n)]
        if self.data_centers:
            told.append(f"in data centres {', '.join(self.data_centers)}")
        if self.zones:
            told.append(f"in zones {', '.join(self.zones)}")
        return " ".join(told)


def _is_within(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Tell it of names that are allowed, none meaning all."""
    return not others or (bool(names) and set(names) <= set(others))
