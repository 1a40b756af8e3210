"""Nothing of a table is where its policy does not allow it: no row, hint, index entry, or record of a transaction.

Judged by all that is ever written to a disk (`sim.residency` looks): once by the keys under which things are stored,
and once by looking for the bytes of the clients' own keys and values in all that is stored, whatever it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from merganser.core.ring import settled
from merganser.model.cluster import ClusterMap, Table
from merganser.model.ids import NodeId, TableId
from merganser.storage import keys

_HINTS, _LOCAL = keys.all_hints_range(), keys.all_local_range()


class Place(msgspec.Struct, frozen=True):
    """A node, and where it stands."""

    node: NodeId
    data_center: str
    zones: tuple[str, ...]
    """Several while it is being moved to another: what any of them may have is let pass."""


def forbidden(
    maps: Sequence[ClusterMap],
    place: Place,
    stored: Iterable[tuple[bytes, bytes]],
    told: Collection[bytes],
    *,
    spared: Collection[TableId] = (),
) -> Iterator[str]:
    """Yield a sentence for each piece that a node keeps and may not.

    Args:
        maps: the newest one, and that which the node knows; while a policy changes, both are let pass.
        place: the node, and where it is.
        stored: all that it keeps, by key.
        told: byte strings that only what clients wrote to tables with a policy has in it.
        spared: tables that may have them all the same.
    """
    outside = {table.id: table for table in maps[0].tables if not any(_allows(one, table, place) for one in maps)}
    if not outside:
        return
    for key, value in stored:
        table = outside.get(_table_of(key))
        if table is not None:
            yield f"{_named(place)} keeps {key!r} of table {_told(table)}, which may not be there"
        elif _table_of(key) not in spared and any(piece in key or piece in value for piece in told):
            yield f"{_named(place)} keeps {key!r}, and with it what a client wrote, which may not be there"


def _allows(current: ClusterMap, table: Table, place: Place) -> bool:
    """Tell whether a map allows a place to a table, be it by what is pending."""
    policies = {
        one.policy_of(known) for one in (current, settled(current)) for known in one.tables if known.id == table.id
    }
    return any(policy.allows(place.data_center, zone) for policy in policies for zone in place.zones)


def _table_of(key: bytes) -> TableId:
    if _HINTS[0] <= key < _HINTS[1]:
        return keys.table_in(keys.split_hint_key(key)[1])
    if _LOCAL[0] <= key < _LOCAL[1]:
        return keys.table_in(keys.split_local_key(key))
    return keys.table_in(key)


def _told(table: Table) -> str:
    return f"{table.name} ({table.wire})"


def _named(place: Place) -> str:
    return f"{place.node} in {place.data_center} {', '.join(place.zones)}"
