"""What a level of consistency comes to for a table, by the map of now, and who may stand in for replicas that are away.

The counting is `core.levels`; here is what this node knows beside it: the ring, the table's policy, and who answers.
"""

from __future__ import annotations

from merganser.core import levels
from merganser.model.cluster import Table
from merganser.model.consistency import Need, ReadLevel, WriteLevel
from merganser.model.errors import RequestError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId
from merganser.service.asking import Asker
from merganser.service.shortfall import Shortfall
from merganser.service.topology import Topology


class Needs:
    """What requests need that this node coordinates; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, shortfall: Shortfall) -> None:
        """Go by the map of ``topology``; ``asker`` knows who answers."""
        self._topology = topology
        self._asker = asker
        self._shortfall = shortfall

    def to_read(self, table: Table, holders: Holders, level: ReadLevel) -> Need:
        """Return what a read at ``level`` needs.

        Raises:
            RequestError: the table cannot give that.
        """
        ring = self._topology.ring
        try:
            return levels.to_read(
                level,
                holders,
                ring=ring,
                rule=self._topology.rule_of(table),
                coordinator=self._asker.node,
            )
        except ValueError as error:
            raise RequestError(str(error)) from None

    def to_write(self, table: Table, key: bytes, level: WriteLevel) -> Need:
        """Return what a write at ``level`` needs, if it can be had.

        Raises:
            RequestError: the table cannot give that.
            UnavailableError: too few nodes can be reached; none was asked.
        """
        holders, ring = self._topology.holders(table, key), self._topology.ring
        try:
            need = levels.to_write(
                level,
                holders,
                ring=ring,
                rule=self._topology.rule_of(table),
                coordinator=self._asker.node,
            )
        except ValueError as error:
            raise RequestError(str(error)) from None
        fallbacks: tuple[NodeId, ...] = ()
        if not need.is_strict:
            keepers = (self._asker.node,) if self._topology.may_keep(table) else ()
            fallbacks = (*self._topology.fallbacks(table, key), *keepers)
        self._shortfall.check_reachable(table, need, level, replicas=holders.members, fallbacks=fallbacks)
        return need

    def fallbacks(self, table: Table, key: bytes) -> list[NodeId]:
        """Return who may keep hints for ``key``, this node last: as many as there are primaries, and this one."""
        me = self._asker.node
        others = [node for node in self._topology.fallbacks(table, key) if self._asker.is_responsive(node)][: table.n]
        is_further_keeper = (
            me not in others and me not in self._topology.replicas(table, key) and self._topology.may_keep(table)
        )
        return [*others, me] if is_further_keeper else others
