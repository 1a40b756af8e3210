"""Change the policy of a table that is there: what is done to the cluster map, step by step.

::

    operation: the table, and the policy of the end
        --its number is others' too--> forked: the same policy under a number of its own
        --pending: another policy under that number--> flipped --> settling --> ended

Who holds what, and who leads it, follows from the number of a table's policy (`Table.rule`), so a change of what is
under a number is a change of the ring like any other: joint quorums, a comparison, a flip (`core.reshaping`). All that
has the number goes along: the table's indexes, and the ledger of its transactions.

A *fork* changes no replica. The groups of the new number inherit the promises that were made to those of the one before
(`service.topology.Topology.when_forked`), and whoever led those leads nothing: so no leader of before changes, or
vouches for, what has another leader by now, and each is led again in a later epoch, as after a split.

Source: design §3; docs/internals/moving.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from merganser.core import ledgers, policies
from merganser.model.cluster import SYSTEM_WIRE, ClusterMap, Operation, Pending, Table
from merganser.model.errors import RequestError
from merganser.model.ids import TableId
from merganser.model.policy import FIRST_POLICY, Policy

Forks = Sequence[tuple[int, int]]
"""Pairs of rules: one that tables have by now, and one that they had before."""


def check(cluster_map: ClusterMap, table: TableId, wanted: Policy) -> Table:
    """Return the table of that id, if ``wanted`` can be its policy.

    Raises:
        RequestError: it cannot, and why.
    """
    known = with_id(cluster_map, table)
    if known is None:
        raise RequestError("there is no such table any more")
    if cluster_map.policy_of(known) == wanted:
        raise RequestError(f"table {known.name} keeps {wanted} already")
    policies.check_places(cluster_map, wanted)
    ledgers.check_room(known)
    return known


def with_id(cluster_map: ClusterMap, table: TableId) -> Table | None:
    """Return the table of that id, None if there is none any more."""
    return next((known for known in cluster_map.tables if known.id == table), None)


def policy_to_be(cluster_map: ClusterMap, table: Table) -> Policy:
    """Return the policy of a table once the operation under way is done."""
    operation = cluster_map.operation
    if operation is not None and operation.policy is not None and operation.table == table.id:
        return operation.policy
    return cluster_map.policy_of(table)


def is_fork_due(cluster_map: ClusterMap) -> bool:
    """Tell whether the operation under way is to change a policy whose number others have, too."""
    changing = _changing(cluster_map)
    return changing is not None and not _is_alone(cluster_map, changing[0])


def forked(cluster_map: ClusterMap) -> ClusterMap:
    """Return ``cluster_map`` with a number of its own for the table whose policy is to change, if that is due."""
    changing = _changing(cluster_map)
    if changing is None or _is_alone(cluster_map, changing[0]) or cluster_map.pending or cluster_map.settling:
        return cluster_map
    table, _ = changing
    number, known = policies.with_number_of_its_own(cluster_map, cluster_map.policy_of(table))
    family = {table.id, *(index.table for index in table.indexes)}
    tables = tuple(
        msgspec.structs.replace(one, policy=number) if one.id in family else one for one in cluster_map.tables
    )
    in_use = {one.policy for one in tables}
    epoch = cluster_map.epoch + 1
    after = msgspec.structs.replace(
        cluster_map,
        epoch=epoch,
        placed=epoch,
        tables=tables,
        policies=tuple(one for one in known if one[0] in in_use),
    )
    return ledgers.noted(cluster_map, after)


def forks(before: ClusterMap, after: ClusterMap) -> Forks:
    """Return the rules that tables have by another map, and the other ones that they had before, in pairs."""
    rules = {table.id: table.rule for table in before.tables}
    pairs = ((table.rule, rules.get(table.id, table.rule)) for table in after.tables)
    return sorted({(new, old) for new, old in pairs if new != old})


def pending(cluster_map: ClusterMap) -> Pending | None:
    """Return the change of a policy that comes next, None if there is none, or a fork has to come before."""
    changing = _changing(cluster_map)
    if changing is None or not _is_alone(cluster_map, changing[0]):
        return None
    table, wanted = changing
    return Pending(policies=((table.policy, wanted),))


def is_done(cluster_map: ClusterMap, operation: Operation) -> bool:
    """Tell whether the table has the policy that it was to get, or is gone."""
    table = with_id(cluster_map, operation.table)
    return operation.policy is None or table is None or cluster_map.policy_of(table) == operation.policy


def _changing(cluster_map: ClusterMap) -> tuple[Table, Policy] | None:
    """Return the table whose policy has yet to change, and to what."""
    operation = cluster_map.operation
    if operation is None or operation.policy is None or is_done(cluster_map, operation):
        return None
    table = with_id(cluster_map, operation.table)
    assert table is not None, "the operation would be done"
    return table, operation.policy


def _is_alone(cluster_map: ClusterMap, table: Table) -> bool:
    """Tell whether nobody has the number of the table's policy but what goes along with it."""
    if table.policy < FIRST_POLICY:
        return False
    family = {table.id, *(index.table for index in table.indexes)}
    return all(one.id in family or one.wire == SYSTEM_WIRE for one in cluster_map.tables if one.policy == table.policy)
