"""Changes of the cluster map that concern tables: made, defined anew, dropped, indexed, given another policy.

Whoever can change the map at all (`service.catalog`) can do these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec

from merganser.core import cluster_map, policy_changes, reshaping
from merganser.core.index_tables import index_named
from merganser.core.reshaping import Plan
from merganser.model.cluster import ClusterMap, Conflicts, Replication, Table
from merganser.model.errors import InvariantError, TableNotFoundError, UnknownOutcomeError
from merganser.model.index import IndexRequest
from merganser.model.policy import Policy

REPLICAS_DEFAULT = 3  # N of Dynamo: one may fail and a quorum is left

Change = Callable[[ClusterMap], ClusterMap]
"""Returns the next map, or the same object to change nothing; may raise a RequestError to give up."""


class TableChanges(ABC):
    """See the module's docstring."""

    @property
    @abstractmethod
    def current(self) -> ClusterMap:
        """The newest map known here."""

    @abstractmethod
    async def change(self, change: Change, *, deadline: float) -> ClusterMap:
        """Apply ``change`` to the newest map: `Catalog.change`."""

    async def create_table(
        self,
        *,
        wire: str,
        name: str,
        definition: bytes,
        unique_id: str,
        deadline: float,
        n: int = REPLICAS_DEFAULT,
        replication: Replication = "leaderless",
        indexes: Sequence[IndexRequest] = (),
        conflicts: Conflicts = "lww",
        policy: Policy | None = None,
        policy_number: int = 0,
    ) -> Table:
        """Add a table, with global indexes; repeating the call with the same ``unique_id`` adds no second one.

        It has ``n`` replicas, or what ``policy`` says, or what the map has under ``policy_number``. Where there are too
        few machines it keeps one replica on each, and more as the cluster grows.

        Raises:
            RequestError: no node is where the policy wants it to be.
            TableExistsError: another table has the name.
            UnavailableError: no majority of the voters; nothing was changed.
            UnknownOutcomeError: the change may still come into force.
        """
        changed = await self.change(
            lambda current: cluster_map.with_table(
                current,
                wire=wire,
                name=name,
                n=n,
                definition=definition,
                unique_id=unique_id,
                replication=replication,
                indexes=indexes,
                conflicts=conflicts,
                policy=policy,
                policy_number=policy_number,
            ),
            deadline=deadline,
        )
        if unique_id in changed.dropped:
            raise UnknownOutcomeError(f"table {name} was created, and dropped by another request before this one ended")
        table = cluster_map.table_named(changed, wire, name)
        if table is None:
            raise InvariantError(f"the map of epoch {changed.epoch} lacks the table {name} that it was made for")
        return table

    async def redefine_table(self, table: Table, definition: bytes, *, deadline: float) -> Table:
        """Give exactly this table another definition, if it and its indexes are still as ``table`` says; returns it so.

        Raises:
            TableNotFoundError: it is gone, perhaps because of what an earlier attempt of this call said of it.
            TableChangedError: somebody else gave it another one, or its indexes came, went or moved on; this node
                knows that by then.
            UnavailableError: no majority of the voters; nothing was changed.
            UnknownOutcomeError: the change may still come into force.
        """
        changed = await self.change(
            lambda current: cluster_map.with_definition(current, before=table, definition=definition),
            deadline=deadline,
        )
        return _same(changed, table)

    async def drop_table(self, table: Table, *, deadline: float) -> None:
        """Remove exactly this table (not one made anew under its name), if it is still defined as ``table`` says.

        Raises:
            TableChangedError: it is defined otherwise, perhaps such that it may not be removed.
            and as `create_table`.
        """
        await self.change(
            lambda current: cluster_map.without_table(
                current, wire=table.wire, name=table.name, unique_id=table.unique_id, definition=table.definition
            ),
            deadline=deadline,
        )

    async def add_index(
        self, table: Table, index: IndexRequest, *, unique_id: str, deadline: float, definition: bytes | None = None
    ) -> Table:
        """Add a global index to a table with leaders; returns the table with the index, which is then being filled.

        In the same step the table gets another ``definition``, if one is given. Repeating the call with the same
        ``unique_id`` adds no second one. The index is active once it holds all that was there; the map says so then.

        Raises:
            IndexExistsError: another index of the table has the name.
            TableChangedError: it is defined otherwise than ``table`` says, or has other indexes; this node knows
                that by then.
            TableNotFoundError: the table is gone.
            UnavailableError: no majority of the voters; nothing was changed.
            UnknownOutcomeError: the change may still come into force.
        """
        changed = await self.change(
            lambda current: cluster_map.with_index(
                current,
                before=table,
                index=index,
                unique_id=unique_id,
                definition=table.definition if definition is None else definition,
            ),
            deadline=deadline,
        )
        return _same(changed, table)

    async def drop_index(self, table: Table, name: str, *, deadline: float, definition: bytes | None = None) -> Table:
        """Begin to drop the index that ``table`` has under that name; returns the table as it is then.

        In the same step the table gets another ``definition``, if one is given. The index is gone from the map soon
        after.

        Raises:
            as `add_index`.
        """
        index = index_named(table, name)
        wanted = table.definition if definition is None else definition
        if index is None:
            return await self.redefine_table(table, wanted, deadline=deadline)
        changed = await self.change(
            lambda current: cluster_map.with_index_deleting(
                current, before=table, index=index.table, definition=wanted
            ),
            deadline=deadline,
        )
        return _same(changed, table)

    def policy_to_be(self, table: Table) -> Policy:
        """Return the policy of a table, as this node knows it, once what is under way is done."""
        return policy_changes.policy_to_be(self.current, table)

    async def change_policy(
        self,
        table: Table,
        policy: Policy,
        *,
        definition: bytes,
        now_us: int,
        deadline: float,
        check: Callable[[ClusterMap, Plan], None] = lambda _newest, _plan: None,
    ) -> Table:
        """Begin to give a table another policy, and give it another definition in the same step; returns it so.

        Nothing more is begun if that policy is to be, or is, its own. The operation goes on by itself
        (`service.rebalancer`). ``check`` may object to what is planned, for the newest map, by a RequestError.

        Raises:
            RequestError: another operation is under way, or no node is where the policy wants it to be.
            and as `redefine_table`.
        """

        def begun(newest: ClusterMap) -> ClusterMap:
            redefined = cluster_map.with_definition(newest, before=table, definition=definition)
            if policy_changes.policy_to_be(redefined, _same(redefined, table)) == policy:
                return redefined
            name = f"table-{table.id}-{newest.epoch}"  # nobody else begins one in the place of that epoch
            plan = reshaping.planned_policy(redefined, table.id, policy, operation_id=name, now_us=now_us)
            check(redefined, plan)
            changed = reshaping.begun(redefined, plan.operation, plan.weights)
            return msgspec.structs.replace(changed, epoch=newest.epoch + 1)

        return _same(await self.change(begun, deadline=deadline), table)


def _same(current: ClusterMap, table: Table) -> Table:
    """Return ``table`` as it is by now.

    Raises:
        TableNotFoundError: it is gone.
    """
    for known in current.tables:
        if known.id == table.id:
            return known
    raise TableNotFoundError(f"table {table.name} does not exist")
