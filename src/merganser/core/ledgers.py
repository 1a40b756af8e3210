"""Which ledger has the record of a transaction, by the policies of its tables, and which ones may have it from before.

A record names the keys of its items, so it is kept in a ledger of that policy, among those of the tables, which allows
nothing that another forbids: `number_for`, 0 for the ledger without a policy. When the policy of a table changes, the
same tables may have another ledger from then on. A request that is repeated under its token looks where its tables have
their records *by now*; what it asks for may have happened by a record of *before*, or may be about to, through a node
that does not know of the change yet. So each table remembers the ledgers that its records were in (`Table.formerly`)
until no token of them counts any more, and whoever begins a transaction under a token bars it from those first
(`core.transaction`).

``formerly`` of a table has the ledger of each transaction that wrote to that table alone. A transaction on several had
its record in the one of one of them: so all that any of them had, or has, come into question (`former_numbers`).

Source: docs/adr/0026.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

import msgspec

from merganser.core import policies
from merganser.core.index_tables import is_index
from merganser.model.cluster import SYSTEM_WIRE, ClusterMap, Table
from merganser.model.errors import RequestError
from merganser.model.ids import TableId

FORMER_MAX = 16
"""Ledgers that a table remembers when another change of its policy begins. Each is one change more for every
transaction under a token."""

Remembered = tuple[TableId, int, tuple[int, ...]]
"""A table, the epoch of the latest change that made it remember, and what it remembers."""


def newest_of(cluster_map: ClusterMap, tables: Iterable[Table]) -> list[Table]:
    """Return tables as the map has them; as they are, where it does not."""
    return [_with_id(cluster_map, table.id) or table for table in tables]


def _with_id(cluster_map: ClusterMap, table: TableId) -> Table | None:
    at = bisect_left(cluster_map.tables, table, key=lambda known: known.id)
    found = cluster_map.tables[at : at + 1]
    return found[0] if found and found[0].id == table else None


def number_for(cluster_map: ClusterMap, tables: Sequence[Table]) -> int:
    """Return the number of the policy whose ledger has the record of a transaction on items of ``tables``; 0: of none.

    Raises:
        RequestError: nowhere can there be a record that names items of all of them.
    """
    known = {number for number, policy in cluster_map.policies if policy.is_bound}
    bound = {table.policy: table for table in tables if table.policy in known}
    if not bound:
        return 0
    number = policies.strictest(cluster_map, bound)
    if number is None:
        told = ", ".join(sorted(table.name for table in bound.values()))
        raise RequestError(
            f"tables {told} may not be in the same places, so that no record could name items of all of them: write "
            "to them in transactions of their own"
        )
    return number


def former_numbers(cluster_map: ClusterMap, tables: Sequence[Table]) -> list[int]:
    """Return in which other ledgers there may be a record, from before, of a transaction on items of ``tables``.

    Raises:
        RequestError: as `number_for`.
    """
    if not any(table.formerly for table in tables):
        return []
    of_each = [{*table.formerly, _number_of(cluster_map, table)} for table in tables]
    numbers = set[int]().union(*of_each)
    if not all(0 in numbers_of_one for numbers_of_one in of_each):
        numbers.discard(0)
    named = {0, *(number for number, _ in cluster_map.policies)}  # no ledger can be made any more for any other
    return sorted((numbers & named) - {number_for(cluster_map, tables)})


def noted(before: ClusterMap, after: ClusterMap) -> ClusterMap:
    """Return ``after`` with tables that remember their ledger by ``before``, if they have another policy by now."""
    were = {table.id: table for table in before.tables}
    tables = tuple(_noted(before, were.get(table.id, table), after, table) for table in after.tables)
    return after if tables == after.tables else msgspec.structs.replace(after, tables=tables)


def _noted(before: ClusterMap, was: Table, after: ClusterMap, table: Table) -> Table:
    if not table.has_leaders or table.wire == SYSTEM_WIRE or is_index(table):
        return table
    if was.policy == table.policy and before.policy_of(was) == after.policy_of(table):
        return table
    numbers = dict.fromkeys((*table.formerly, _number_of(before, was)))
    return msgspec.structs.replace(table, formerly=tuple(numbers), changed=after.epoch)


def check_room(table: Table) -> None:
    """Return if ``table`` can remember one ledger more.

    Raises:
        RequestError: it cannot.
    """
    if len(table.formerly) >= FORMER_MAX:
        raise RequestError(
            f"table {table.name} has changed its policy very often lately, and what its transactions did meanwhile is "
            "remembered for their tokens: wait some twenty minutes"
        )


def remembered(cluster_map: ClusterMap) -> list[Remembered]:
    """Return what the tables of a map remember."""
    return [(table.id, table.changed, table.formerly) for table in cluster_map.tables if table.formerly]


def forgotten(cluster_map: ClusterMap, these: Collection[Remembered]) -> ClusterMap:
    """Return ``cluster_map`` without ``these``, as far as nothing has come to them; itself if there are none."""
    known = set(these) & set(remembered(cluster_map))
    if not known:
        return cluster_map
    gone = {table for table, _, _ in known}
    tables = tuple(
        msgspec.structs.replace(table, formerly=(), changed=0) if table.id in gone else table
        for table in cluster_map.tables
    )
    return msgspec.structs.replace(cluster_map, epoch=cluster_map.epoch + 1, tables=tables)


def _number_of(cluster_map: ClusterMap, table: Table) -> int:
    """Return which ledger has the records of transactions on one table."""
    return table.policy if cluster_map.policy_of(table).is_bound else 0
