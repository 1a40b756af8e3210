"""How many nodes must answer before the client may hear, and which of them count.

A **named** level is strict: only primaries count, so that with R + W > N a read meets every acknowledged
write. **Explicit numbers** are sloppy: `w` and `r` count any node of the preference list, a fallback that
stands in for a primary included, and `pw` and `pr` say how many of them must be primaries. ANY takes a
write as soon as one node has it, be it as a hint. See docs/adr/0006.

LOCAL_ONE and LOCAL_QUORUM count the replicas in the data centre of the node that was asked and no others, EACH_QUORUM
those of each data centre by themselves: `core.levels` says what they come to. See docs/adr/0018.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from merganser.model.ids import NodeId


class Consistency(enum.Enum):
    """A named level; each request names its own."""

    ONE = "ONE"
    TWO = "TWO"
    THREE = "THREE"
    QUORUM = "QUORUM"
    ALL = "ALL"
    ANY = "ANY"
    """Writes only."""
    LOCAL_ONE = "LOCAL_ONE"
    LOCAL_QUORUM = "LOCAL_QUORUM"
    EACH_QUORUM = "EACH_QUORUM"

    @property
    def is_by_data_center(self) -> bool:
        """Tell whether it counts the replicas of one data centre, or of each."""
        return self in _BY_DATA_CENTER

    def required(self, n: int) -> int:
        """Return how many of ``n`` replicas must answer; for ANY it is one node, replica or not.

        Of a level that counts by data centre, ``n`` are those of one.

        Raises:
            ValueError: the level asks for more replicas than the table has.
        """
        needed = _FIXED.get(self) or (n // 2 + 1 if self in _QUORUMS else n)
        if needed > n:
            raise ValueError(
                f"consistency {self.value} needs {needed} replicas and the table has {n}: choose QUORUM, ALL or ONE"
            )
        return needed


_FIXED = {
    Consistency.ONE: 1,
    Consistency.TWO: 2,
    Consistency.THREE: 3,
    Consistency.ANY: 1,
    Consistency.LOCAL_ONE: 1,
}
_QUORUMS = frozenset((Consistency.QUORUM, Consistency.LOCAL_QUORUM, Consistency.EACH_QUORUM))
_BY_DATA_CENTER = frozenset((Consistency.LOCAL_ONE, Consistency.LOCAL_QUORUM, Consistency.EACH_QUORUM))


class WriteQuorums(msgspec.Struct, frozen=True, kw_only=True):
    """Explicit numbers for writes."""

    w: int
    """Nodes that must have the write durably, fallbacks included."""
    pw: int = 0
    """Primaries among them."""


class ReadQuorums(msgspec.Struct, frozen=True, kw_only=True):
    """Explicit numbers for reads."""

    r: int
    """Nodes that must answer, fallbacks included."""
    pr: int = 0
    """Primaries among them."""


WriteLevel = Consistency | WriteQuorums
ReadLevel = Consistency | ReadQuorums


class Part(msgspec.Struct, frozen=True):
    """The replicas of one data centre, and how many of them must answer."""

    members: tuple[NodeId, ...]
    required: int


class Need(msgspec.Struct, frozen=True):
    """What a level comes to for one table."""

    nodes: int
    """Distinct nodes that must answer, at least 1."""
    primaries: int
    """How many of them must be primaries."""
    parts: tuple[Part, ...] = ()
    """Of levels that count by data centre; the numbers above are their sums. Answers of others count for nothing."""

    @property
    def is_strict(self) -> bool:
        """Tell whether fallbacks cannot help."""
        return self.primaries >= self.nodes


class Levels(msgspec.Struct, frozen=True):
    """What one request, or one client, asked for; None leaves it to the default of the operation."""

    write: WriteLevel | None = None
    read: ReadLevel | None = None


UNSAID = Levels()


def needed_to_write(level: WriteLevel, n: int) -> Need:
    """Return what ``level`` asks of a table with ``n`` replicas.

    Raises:
        ValueError: more than the table has; the message says what to choose.
    """
    if isinstance(level, WriteQuorums):
        return _explicit(n, w=level.w, pw=level.pw)
    required = level.required(n)
    return Need(required, 0 if level is Consistency.ANY else required)


def needed_to_read(level: ReadLevel, n: int) -> Need:
    """Return what ``level`` asks of a table with ``n`` replicas.

    Raises:
        ValueError: more than the table has, or a level for writes; the message says what to choose.
    """
    if isinstance(level, ReadQuorums):
        return _explicit(n, r=level.r, pr=level.pr)
    if level is Consistency.ANY:
        raise ValueError("consistency ANY is for writes: choose ONE or r=1 to read")
    required = level.required(n)
    return Need(required, required)


def name_of(level: WriteLevel | ReadLevel) -> str:
    """Return ``level`` as a client writes it."""
    if isinstance(level, Consistency):
        return level.value
    return ",".join(f"{name}={count}" for name, count in msgspec.structs.asdict(level).items())


def parse_levels(text: str) -> Levels:
    """Return what a client wrote: one name, or numbers such as ``w=2,pw=1,r=2``.

    A number that is left out follows from its partner: ``pw=2`` alone is ``w=2,pw=2``, ``w=2`` alone is ``w=2,pw=0``.

    Raises:
        ValueError: neither; the message says what to write.
    """
    if "=" not in text:
        level = _NAMED.get(text.strip().upper())
        if level is None:
            raise ValueError(f"choose one of {', '.join(_NAMED)}, or numbers such as w=2,pw=1,r=2,pr=1")
        return Levels(level, level)
    counts = _counts(text)
    write = read = None
    if "w" in counts or "pw" in counts:
        pw = counts.get("pw", 0)
        write = WriteQuorums(w=counts.get("w", pw), pw=pw)
    if "r" in counts or "pr" in counts:
        pr = counts.get("pr", 0)
        read = ReadQuorums(r=counts.get("r", pr), pr=pr)
    return Levels(write, read)


class ValueLevels(NamedTuple):
    """What a client of a key-value table asked for."""

    levels: Levels
    n: int | None = None
    """As many replicas as it expects the table to have."""
    dw: int | None = None
    """As many durable copies as it asked for; each ack is of one, so ``w`` of `levels` is no less."""


def parse_value_levels(text: str) -> ValueLevels:
    """Return what a client of a key-value table wrote: as `parse_levels`, and ``n`` and ``dw``.

    Raises:
        ValueError: as `parse_levels`.
    """
    if "=" not in text:
        return ValueLevels(parse_levels(text))
    counts = _counts(text, ("w", "pw", "dw", "r", "pr", "n"))
    n, dw = counts.pop("n", None), counts.pop("dw", None)
    if dw is not None:
        counts["w"] = max(dw, counts.get("w", 0))
    told = ",".join(f"{name}={count}" for name, count in counts.items())
    return ValueLevels(parse_levels(told) if told else UNSAID, n, dw)


_NAMED = {level.value: level for level in Consistency}


def _counts(text: str, names: tuple[str, ...] = ("w", "pw", "r", "pr")) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, _, digits = (piece.strip() for piece in part.lower().partition("="))
        if name not in names:
            known = f"{', '.join(names[:-1])} and {names[-1]}"
            raise ValueError(f"{part.strip()!r} is none of {known}: write for example w=2,pw=1,r=2,pr=1")
        if name in counts:
            raise ValueError(f"{name} is there twice")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS_MAX:
            raise ValueError(f"{name} is {digits!r}: write a number of nodes, such as {name}=2")
        counts[name] = int(digits)
    return counts


_DIGITS_MAX = 4  # no table has 10,000 replicas, and a longer number is not worth reading


def _explicit(n: int, **counts: int) -> Need:
    for name, count in reversed(counts.items()):  # primaries first: where they alone were said, the others follow them
        if not 0 <= count <= n:
            raise ValueError(f"{name}={count} and the table has {n} replicas: choose a number from 0 to {n}")
    nodes = max(counts.values())
    if nodes == 0:
        (name, *_) = counts
        raise ValueError(f"{name}=0 asks nobody: choose a number from 1 to {n}")
    (_, primaries) = counts.values()
    return Need(nodes, primaries)
