"""What to tell the client when a level of consistency is not met, and what of it is certain.

Before anybody is asked: too few nodes can be reached. Afterwards, given how each node that was asked has failed: the
table is gone, too few answered, nothing was written, or nobody knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from merganser.model.cluster import Table
from merganser.model.consistency import Need, Part, ReadLevel, WriteLevel, name_of
from merganser.model.errors import (
    OverloadedError,
    RefusedError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.service.asking import Asker, Reading, Writing, is_overload
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA
from merganser.service.topology import Topology

OUTRANKED = "the write is stored under a newer one and may never be seen"


class Shortfall:
    """Judges requests of this node that fall short of their level; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, *, catch_up: Callable[[NodeId], Awaitable[None]]) -> None:
        """Judge by what ``asker`` can reach; ``catch_up`` fetches a newer map."""
        self._topology = topology
        self._asker = asker
        self._catch_up = catch_up

    def check_reachable(
        self,
        table: Table,
        need: Need,
        level: WriteLevel | ReadLevel,
        *,
        replicas: Iterable[NodeId],
        fallbacks: Sequence[NodeId],
    ) -> None:
        """Return if enough nodes can be reached.

        Raises:
            UnavailableError: too few can; none was asked.
        """
        for part in need.parts:
            there = sum(map(self._asker.is_reachable, part.members))
            if there < part.required:
                raise UnavailableError(
                    f"{name_of(level)} needs {part.required} of {len(part.members)} replicas in {self._place(part)} "
                    f"and {there} can be reached; none was asked, try again or ask for a lower consistency"
                )
        primaries = list(replicas)
        count = sum(map(self._asker.is_reachable, primaries))
        if count < need.primaries:
            raise UnavailableError(
                f"{name_of(level)} needs {need.primaries} of {table.n} replicas and {count} can be reached; "
                "none was asked, try again or ask for a lower consistency"
            )
        if need.is_strict:
            return
        nodes = sum(map(self._asker.is_reachable, dict.fromkeys((*primaries, *fallbacks))))
        if nodes < need.nodes:
            raise UnavailableError(
                f"{name_of(level)} needs {need.nodes} nodes and {nodes} can be reached; "
                "none was asked, try again or ask for a lower consistency"
            )

    async def of_write(self, table: Table, writing: Writing, need: Need, *, map_epoch: int) -> Exception:
        """Return what to raise for a write that too few nodes have acknowledged.

        Raises:
            TableNotFoundError: the table was dropped.
        """
        await self.raise_if_dropped(table, writing.errors, map_epoch)
        acks = writing.quorum.primary_acks if need.is_strict else writing.quorum.acks
        count = f"{acks} of {_nodes(need)}" if not need.parts else self._by_part(need, writing.quorum.has_acked)
        told = f"{count} acknowledged the write: {reasons(writing.errors)}"
        if writing.is_certainly_unwritten:
            return unavailable(f"{told}; nothing was written, try again", writing.errors)
        return UnknownOutcomeError(f"{told}; it is unknown whether the write will be seen, read the item or try again")

    async def of_read(self, table: Table, reading: Reading, need: Need, *, map_epoch: int) -> Exception:
        """Return what to raise for a read that too few nodes have answered.

        Raises:
            TableNotFoundError: the table was dropped.
        """
        await self.raise_if_dropped(table, reading.errors, map_epoch)
        answers = len(reading.quorum.replies)
        by_part = self._by_part(need, reading.quorum.replies.__contains__)
        count = by_part if need.parts else f"{answers} of {_nodes(need)}"
        return unavailable(f"{count} answered in time: {reasons(reading.errors)}", reading.errors)

    def _by_part(self, need: Need, has_answered: Callable[[NodeId], bool]) -> str:
        return " and ".join(
            f"{sum(map(has_answered, part.members))} of {part.required} replicas in {self._place(part)}"
            for part in need.parts
        )

    def _place(self, part: Part) -> str:
        return f"data centre {self._topology.ring.data_centers.get(part.members[0], '')!r}"

    async def has_moved(self, errors: Mapping[NodeId, BaseException], map_epoch: int) -> bool:
        """Tell whether a question that failed by the map of ``map_epoch`` is to be asked by a newer one.

        It is if a replica has refused it because the placement is another by now, and this node knows it.
        """
        for node, error in list(errors.items()):  # others may fail while the map is fetched
            if isinstance(error, RefusedError) and error.code == NOT_A_REPLICA and error.map_epoch > map_epoch:
                if error.map_epoch > self._topology.map.epoch:
                    await self._catch_up(node)
                if self._topology.map.placed > map_epoch:
                    return True
        return False

    async def raise_if_dropped(self, table: Table, errors: Mapping[NodeId, BaseException], map_epoch: int) -> None:
        """Believe a replica that misses the table unless it has yet to reach the epoch of the question.

        This node has the newer map when it raises, so whoever looks the name up again finds what is there now.

        Raises:
            TableNotFoundError: the table was dropped.
        """
        for node, error in errors.items():
            if isinstance(error, RefusedError) and error.code == NO_SUCH_TABLE and error.map_epoch >= map_epoch:
                if error.map_epoch > self._topology.map.epoch:
                    await self._catch_up(node)
                raise TableNotFoundError(f"table {table.name} was dropped")


def unavailable(told: str, errors: Mapping[NodeId, BaseException]) -> UnavailableError:
    """Return the error of a request that did nothing: of overload, if all who failed have too much to do."""
    is_too_much = bool(errors) and all(map(is_overload, errors.values()))
    return OverloadedError(told) if is_too_much else UnavailableError(told)


def _nodes(need: Need) -> str:
    if need.is_strict:
        return f"{need.nodes} replicas"
    return f"{need.nodes} nodes" + (f", {need.primaries} of them replicas," if need.primaries else "")


def reasons(errors: Mapping[NodeId, BaseException]) -> str:
    """Return why each node failed, in words."""
    if not errors:
        return "no answer by the deadline"
    return "; ".join(f"{node}: {error}" for node, error in sorted(errors.items()))
