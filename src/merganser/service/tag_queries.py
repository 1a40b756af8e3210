"""Find rows by a tag of their values: a query goes to a covering set of replicas, and their answers are merged.

For each partition of the table as many replicas are asked as the level says, each node once for all of its partitions::

    client --name, from, to--> any node --FindTagged--> so many nodes that each partition has R replicas among them
                                        <-- places and fingerprints, in order, a page each --
                               merged (`core.tags`); where replicas differ, the row is read at the level

So a row that was put with a tag at W, and is not changed, is found if R + W > N, and what has lost its tag is not. A
page is as of while it was asked for: rows that change meanwhile may be told as of before or after, and from one page
to the next a row that gets a greater value may be told of twice.

A node that fails, or does not answer within `ROUND_S`, is replaced by others that hold its partitions.

Source: Riak's secondary indexes, coverage plans.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, cast

from merganser.core import tags
from merganser.core.tags import TagPage
from merganser.model.cluster import Table
from merganser.model.consistency import Part, ReadLevel, name_of
from merganser.model.contents import Tag, TaggedKey, check_tag
from merganser.model.errors import RefusedError, RequestError, UnavailableError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.value_messages import FindTagged, TaggedAre
from merganser.model.versions import DESCRIBED_SINCE
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, error_of
from merganser.service.coordinator import Coordinator
from merganser.service.replica import Replica
from merganser.service.tag_index import TagIndex
from merganser.service.topology import Topology
from merganser.storage import keys

ROUND_S: Final = 1.0
PAGE_MAX: Final = 1_000
READS_AT_ONCE: Final = 16

Cover = dict[PartitionId, tuple[NodeId, ...]]


class TaggedPage(NamedTuple):
    """Rows in the order of their tags."""

    found: list[TaggedKey]
    """Perhaps fewer than asked for, even none, though there are more."""
    resume: bytes | None
    """What to go on with; None: nothing is left."""


class TagQueries:
    """This node's side of queries by tag; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        coordinator: Coordinator,
        replica: Replica,
        index: TagIndex,
        *,
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Ask through ``asker``, answer from ``index``; ``catch_up`` fetches a newer cluster map from a peer."""
        self._topology = topology
        self._asker = asker
        self._coordinator = coordinator
        self._replica = replica
        self._index = index
        self._catch_up = catch_up
        self._loop = asyncio.get_running_loop()

    async def find(
        self,
        table: Table,
        name: str,
        *,
        low: int | bytes | None,
        high: int | bytes | None,
        is_integer: bool,
        resume: bytes | None = None,
        most: int,
        level: ReadLevel,
        deadline: float,
    ) -> TaggedPage:
        """Return a page of the rows that have a tag ``name`` from ``low`` to ``high``, in the order of its values.

        Args:
            table: of values.
            name: of the tag.
            low: the least value; None: no bound.
            high: the greatest value; None: no bound.
            is_integer: which of the two indexes of that name is meant.
            resume: of the page before; None: from the beginning.
            most: rows, 1 to `PAGE_MAX`.
            level: how many replicas are to be asked for each row.
            deadline: loop time.

        Raises:
            RequestError: the table has no tags, or the range makes no sense.
            UnavailableError: too few replicas answered by ``deadline``.
        """
        start, end = _range(table, name, low, high, is_integer=is_integer)
        if resume is not None:
            if not start <= resume < end:
                raise RequestError("the place to go on from is of another query")
            start = resume
        if not 1 <= most <= PAGE_MAX:
            raise RequestError(f"a page is 1 to {PAGE_MAX} rows, not {most}")
        if start >= end or self._topology.map.version < DESCRIBED_SINCE:  # nothing was ever tagged, by what all speak
            return TaggedPage([], None)
        async with self._coordinator.range_turns.one(deadline):
            pages, cover = await self._asked(table, name, start, end, most, level, deadline)
            merged = tags.merged(pages, partial(self._asked_for, cover, table), most)
            found = await self._looked_at(table, name, merged.found, level, deadline)
        return TaggedPage(found, merged.resume)

    async def answer(self, sender: NodeId, request: FindTagged) -> TaggedAre:
        """Tell a page of what stands in the index of this node.

        Raises:
            RefusedError: it does not hold all those partitions, or rows may have vanished.
            CorruptionError: the index cannot be read.
        """
        if request.map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        self._replica.check_holds(request.table, request.partitions, map_epoch=request.map_epoch)
        page = self._index.page(
            request.table,
            request.partitions,
            request.name,
            request.start,
            request.end,
            most=min(request.most, PAGE_MAX),
            now_s=self._coordinator.wall_us() // 1_000_000,
        )
        await self._replica.durable()
        return TaggedAre(tuple(page.entries), page.stopped_at)

    async def _asked(
        self, table: Table, name: str, start: bytes, end: bytes, most: int, level: ReadLevel, deadline: float
    ) -> tuple[dict[NodeId, TagPage], Cover]:
        """Return what the nodes of a cover say, and the cover.

        Raises:
            UnavailableError: there is none of nodes that answer.
        """
        failed: dict[NodeId, BaseException] = {}
        while True:
            epoch, timeout_s = self._topology.map.epoch, min(ROUND_S, deadline - self._loop.time())
            if timeout_s <= 0:
                told = "; ".join(map(str, failed.values())) or "the ring changes"
                raise UnavailableError(f"too few replicas answered in time: {told}")
            cover, partitions_then = self._cover(table, level, failed), self._topology.ring.partitions
            answers = {
                node: self._asker.ask(
                    node,
                    FindTagged(epoch, table.id, tuple(partitions), name, start, end, most),
                    timeout_s=timeout_s,
                    traffic=Traffic.BULK,
                )
                for node, partitions in _by_node(cover).items()
            }
            await asyncio.wait(answers.values())
            if self._topology.ring.partitions != partitions_then:  # the cover is of partitions of other numbers
                continue
            errors = {node: error for node, answer in answers.items() if (error := error_of(answer)) is not None}
            if not errors:
                pages = {node: cast("TaggedAre", answer.result()) for node, answer in answers.items()}
                return {node: TagPage(page.entries, page.stopped_at) for node, page in pages.items()}, cover
            for node, error in errors.items():
                if isinstance(error, RefusedError) and error.map_epoch > epoch:
                    await self._catch_up(node)
                else:
                    failed[node] = error

    def _cover(self, table: Table, level: ReadLevel, failed: Mapping[NodeId, BaseException]) -> Cover:
        """Return whom to ask about each partition.

        Raises:
            RequestError: the table cannot give that level.
            UnavailableError: too few are left.
        """
        ring = self._topology.ring
        nearest = self._asker.nearest_first([node.id for node in self._topology.map.nodes])
        ranks = {node: rank for rank, node in enumerate(nearest)}
        found: Cover = {}
        for partition in map(PartitionId, range(ring.partitions)):
            holders = ring.holders(partition, self._topology.rule_of(table))
            need = self._coordinator.needs.to_read(table, holders, level)
            chosen: list[NodeId] = []
            for part in need.parts or (Part(holders.members, need.nodes),):
                left = sorted((node for node in part.members if node not in failed), key=lambda node: ranks[node])
                if len(left) < part.required:
                    told = "; ".join(map(str, failed.values()))
                    raise UnavailableError(
                        f"{name_of(level)} needs {part.required} of {len(part.members)} replicas of partition "
                        f"{partition}, and {len(left)} are left: {told}"
                    )
                chosen += left[: part.required]
            found[partition] = tuple(chosen)
        return found

    def _asked_for(self, cover: Cover, table: Table, place: bytes) -> Collection[NodeId]:
        return cover[self._topology.ring.partition_of(keys.token_in(_row_at(table, place)))]

    async def _looked_at(
        self, table: Table, name: str, places: Sequence[tuple[bytes, bool]], level: ReadLevel, deadline: float
    ) -> list[TaggedKey]:
        """Return what is at ``places``, after a look at those that are doubtful."""
        turns = asyncio.Semaphore(READS_AT_ONCE)

        async def stands(place: bytes) -> bool:
            async with turns:
                row = await self._coordinator.read(table, _row_at(table, place), level=level, deadline=deadline)
            now_s = self._coordinator.wall_us() // 1_000_000
            return Tag(name, tags.value_at(place)) in tags.tags_of(row, now_s)

        doubtful = [place for place, is_doubtful in places if is_doubtful]
        looked_at = await asyncio.gather(*map(stands, doubtful), return_exceptions=True)
        for error in looked_at:
            if isinstance(error, BaseException):
                raise error
        gone = {place for place, is_there in zip(doubtful, looked_at, strict=True) if not is_there}
        return [
            TaggedKey(tags.value_at(place), keys.split_row_key(_row_at(table, place))[2])
            for place, _ in places
            if place not in gone
        ]


def _range(
    table: Table, name: str, low: int | bytes | None, high: int | bytes | None, *, is_integer: bool
) -> tuple[bytes, bytes]:
    """Return the places of a query; raises a RequestError if it makes no sense."""
    if not table.has_contents:
        raise RequestError(f"table {table.name} holds no values that have tags")
    for bound in (low, high):
        if bound is not None and isinstance(bound, int) != is_integer:
            raise RequestError(f"tag {name}: a range is of integers, or of bytes")
        check_tag(Tag(name, b"" if bound is None else bound))
    return tags.places_between(low, high, is_integer=is_integer)


def _by_node(cover: Cover) -> dict[NodeId, list[PartitionId]]:
    found: dict[NodeId, list[PartitionId]] = {}
    for partition, nodes in cover.items():
        for node in nodes:
            found.setdefault(node, []).append(partition)
    return found


def _row_at(table: Table, place: bytes) -> bytes:
    return tags.row_at(place, keys.table_range(table.id)[0])
