"""What a level of consistency comes to for the replicas of one key.

Levels that name no data centre count all replicas alike (`model.consistency`). The others need a table whose keys all
have the same number of replicas in a data centre: one that says so, or one that may only be in a single data centre::

                   eu: A B C   us: D E      asked: a node in eu
    LOCAL_ONE          1 of A B C
    LOCAL_QUORUM       2 of A B C
    EACH_QUORUM        2 of A B C  and  2 of D E

While a change of the ring is pending, each data centre has as many more to answer as it has newcomers (`Holders`), so
that two LOCAL_QUORUMs of one data centre always share a replica. Where a table is to leave a data centre, what is
written at a local level there needs as much of those who will hold it; where it is to come to another, EACH_QUORUM
counts the newcomers there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from merganser.core.ring import Ring, holders_of
from merganser.model.cluster import Table
from merganser.model.consistency import (
    Consistency,
    Need,
    Part,
    ReadLevel,
    WriteLevel,
    needed_to_read,
    needed_to_write,
    parse_value_levels,
)
from merganser.model.errors import RequestError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId

Level = TypeVar("Level", WriteLevel, ReadLevel)


def asked_for(text: str, table: Table) -> tuple[WriteLevel, ReadLevel]:
    """Return the levels that a client of a table of keys and values asks for, QUORUM where it names none.

    Raises:
        RequestError: it names none that there is, or as many replicas as the table has not.
    """
    try:
        levels, n, durable = parse_value_levels(text)
    except ValueError as error:
        raise RequestError(f"consistency: {error}") from None
    if durable is not None and durable > table.n:
        raise RequestError(f"consistency: dw={durable}, and table {table.name} has {table.n} replicas of each key")
    if n is not None and n != table.n:
        raise RequestError(f"consistency: n={n}, and table {table.name} has {table.n} replicas of each key")
    return levels.write or Consistency.QUORUM, levels.read or Consistency.QUORUM


def before_writing(level: ReadLevel) -> ReadLevel:
    """Return how many replicas are asked what there is to be replaced: of that, ANY says nothing."""
    return Consistency.QUORUM if level is Consistency.ANY else level


def to_write(level: WriteLevel, holders: Holders, *, ring: Ring, rule: int, coordinator: NodeId) -> Need:
    """Return what a write at ``level`` needs.

    Args:
        level: as the client asked.
        holders: of the key.
        ring: by which they hold it.
        rule: of the table.
        coordinator: the node that was asked.

    Raises:
        ValueError: the table cannot give that; the message says what to choose.
    """
    if isinstance(level, Consistency) and level.is_by_data_center:
        return _by_data_center(level, holders, ring, rule, coordinator, is_write=True)
    return _joint(level, holders, needed_to_write)


def to_read(level: ReadLevel, holders: Holders, *, ring: Ring, rule: int, coordinator: NodeId) -> Need:
    """Return what a read at ``level`` needs; arguments and errors as `to_write`."""
    if isinstance(level, Consistency) and level.is_by_data_center:
        return _by_data_center(level, holders, ring, rule, coordinator, is_write=False)
    return _joint(level, holders, needed_to_read)


def askable(holders: Holders, need: Need) -> tuple[NodeId, ...]:
    """Return the members whose answers count towards ``need``: all, but for levels that count by data centre."""
    if not need.parts:
        return holders.members
    return tuple(node for part in need.parts for node in part.members)


def _joint(level: Level, holders: Holders, needed: Callable[[Level, int], Need]) -> Need:
    """Return what ``level`` needs by those who serve and by those who will; numbers that there will not be, by now."""
    need = needed(level, len(holders.serving))
    if len(holders.next) == len(holders.serving):
        return holders.needed(need)
    try:
        return holders.needed(need, needed(level, len(holders.next)))
    except ValueError:
        return holders.needed(need)


def _by_data_center(
    level: Consistency, holders: Holders, ring: Ring, rule: int, coordinator: NodeId, *, is_write: bool
) -> Need:
    counted_in = ring.counted_in(rule)
    if counted_in is None:
        raise ValueError(
            f"{level.value} counts the replicas of a data centre, and this table says no number for any: choose "
            "QUORUM, or create a table with a number for each, such as eu=3 us=3"
        )
    is_each = level is Consistency.EACH_QUORUM
    names = {*counted_in} if is_each else {ring.data_centers[coordinator]}
    if is_each and is_write and holders.extra:
        names |= ring.to_be_counted_in(rule) or set()
    parts = []
    for name in sorted(names):
        local = _within(holders, name, ring.data_centers)
        if not local.serving and not (is_each and local.next):
            raise ValueError(_none_there(level, name, counted_in))
        parts.append(Part(local.members, _required(level, local)))
        if is_write and not local.next and not is_each:
            parts.append(Part(holders.next, level.required(len(holders.next))))
    total = sum(part.required for part in parts)
    return Need(total, total, tuple(parts))


def _required(level: Consistency, local: Holders) -> int:
    """Return how many of a data centre must answer, by those who serve it and by those who will."""
    now, later = (level.required(len(nodes)) if nodes else 0 for nodes in (local.serving, local.next))
    if not now or not later:
        return now or later
    return local.needed(Need(now, now), Need(later, later)).primaries


def _within(holders: Holders, name: str, data_centers: Mapping[NodeId, str]) -> Holders:
    serving = tuple(node for node in holders.serving if data_centers.get(node) == name)
    if holders.members is holders.serving:
        return holders_of(serving, serving)
    return holders_of(serving, tuple(node for node in holders.next if data_centers.get(node) == name))


def _none_there(level: Consistency, name: str, counted_in: frozenset[str]) -> str:
    there = ", ".join(map(repr, sorted(counted_in)))
    if level is Consistency.EACH_QUORUM:
        return f"EACH_QUORUM needs replicas in each of {there}, and no node is left in {name!r}: choose QUORUM"
    return (
        f"{level.value} counts the replicas in data centre {name!r}, that of the node that was asked, and this table "
        f"has none there, but in {there}: ask a node there, or choose QUORUM"
    )
