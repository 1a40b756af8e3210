"""Hears what replicas of leader-based tables answer, over all their lives, and tells of promises that they break.

- What a replica has said that it promised, it knows when its next life begins.
- It serves no request of an earlier epoch than it had said that it promised when the request came.

It also hears what a node says that is still being given what it should hold, which is to be nothing, and which maps
follow one another: voters change by one.

Two leaders at once come of nothing else, and what that leads to shows rarely: this shows at once. A node that lost what
it had synced is no witness against itself; it says nothing before others have given it all back (`service.restoring`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core.splitting import halves
from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import (
    Campaign,
    Confirm,
    Copies,
    Kept,
    Promised,
    Replicate,
    Standing,
    Touch,
    TouchRange,
)
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.messages import Read, Reply, Request
from merganser.service.member import Member
from merganser.storage import keys


class Witness:
    """What all replicas of a run have said; see the module's docstring."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.sentences: list[str] = []
        """One for each promise that was broken."""
        self._told: dict[NodeId, dict[Group, Epoch]] = {}
        self._partitions: dict[NodeId, int] = {}
        """Of the ring by which a node has told what it has."""
        self._voters: dict[int, frozenset[int]] = {}
        """By epoch of the map."""

    def born(self, member: Member) -> None:
        """See what a node knows at the beginning of a life."""
        node = member.topology.node
        member.topology.when_changed(self._learned)
        if member.engine.lost is not None:
            self._told.pop(node, None)
            self._partitions.pop(node, None)
        for group, epoch in self._told_by(member).items():
            known = member.leader_tables.promises.of(group)
            if known < epoch:
                self.sentences.append(
                    f"{node} has promised {tuple(epoch)} in partition {group.partition}, and knows of {tuple(known)}"
                )

    async def serve(self, member: Member, sender: NodeId, request: Request) -> Reply:
        """Have ``member`` answer, and hear it; of what is asked while the ring is cut, nothing is known."""
        partitions, told = member.topology.ring.partitions, self._told_by(member)
        is_newcomer = _is_newcomer(member, request)
        late = [
            (one, group, epoch)
            for one in _each(request)
            for group, epoch in _asked(member, one)
            if epoch < told.get(group, NO_EPOCH)
        ]
        reply = await member.answer(sender, request)
        if member.topology.ring.partitions != partitions:
            return reply
        if is_newcomer and _is_newcomer(member, request):
            self.sentences.append(f"{member.topology.node} answered for a partition that it is still being given")
        done = _done(request, reply)
        for one, group, epoch in late:
            if one not in done:
                continue
            self.sentences.append(
                f"{member.topology.node} did {type(request).__name__} of epoch {tuple(epoch)} in partition "
                f"{group.partition}, after it had promised a later one"
            )
        for one in done:
            for group, epoch in _answered(member, one, reply):
                told[group] = max(epoch, told.get(group, NO_EPOCH))
        return reply

    def _learned(self, current: ClusterMap) -> None:
        voters = self._voters.setdefault(current.epoch, frozenset(current.voters))
        for epoch in (current.epoch - 1, current.epoch + 1):
            if len(self._voters.get(epoch, voters) ^ voters) > 1:
                self.sentences.append(
                    f"more than one voter changed between the maps of epochs {current.epoch}, {epoch}"
                )

    def _told_by(self, member: Member) -> dict[Group, Epoch]:
        """Return what a node has told; of a partition that was cut, each part is held to it."""
        node, partitions = member.topology.node, member.topology.ring.partitions
        told = self._told.setdefault(node, {})
        factor = partitions // self._partitions.get(node, partitions)
        self._partitions[node] = partitions
        if factor > 1:
            told = {Group(g.rule, p): epoch for g, epoch in told.items() for p in halves(g.partition, factor)}
            self._told[node] = told
        return told


def _is_newcomer(member: Member, request: Request) -> bool:
    """Tell whether an item is asked for, of a node that is still being given what it should hold."""
    table = member.topology.table(request.table) if isinstance(request, Read) else None
    if table is None or not table.has_leaders or not isinstance(request, Read):
        return False
    return member.topology.node in member.topology.holders(table, request.key).newcomers


def _each(request: Request) -> Sequence[Request]:
    """Return what is asked by a request that may be several."""
    return request.copies if isinstance(request, Copies) else (request,)


def _done(request: Request, reply: Reply) -> Sequence[Request]:
    """Return what was not refused of a request that was answered."""
    refused = {place for place, _ in reply.refused} if isinstance(reply, Kept) else ()
    return [one for place, one in enumerate(_each(request)) if place not in refused]


def _asked(member: Member, request: Request) -> Iterator[tuple[Group, Epoch]]:
    """Yield what a leader claims to lead who asks for something that only a leader may ask for."""
    if isinstance(request, Touch | TouchRange | Replicate):
        table = member.topology.table(request.table)
        key = request.start if isinstance(request, TouchRange) else request.key
        if table is not None:
            yield Group(table.rule, member.topology.ring.partition_of(keys.token_in(key))), request.epoch


def _answered(member: Member, request: Request, reply: Reply) -> Iterator[tuple[Group, Epoch]]:
    """Yield what the reply says is promised."""
    if isinstance(request, Campaign) and isinstance(reply, Promised) and not request.is_poll:
        partitions = [partition for partition, _ in request.bids]
        yield from zip(_groups(request.n, partitions), reply.promised, strict=True)
    elif isinstance(request, Confirm) and isinstance(reply, Standing):
        groups = [Group(n, partition) for n, partition, _ in request.claims]
        yield from zip(groups, reply.promised, strict=True)
    else:
        yield from _asked(member, request)


def _groups(n: int, partitions: list[PartitionId]) -> list[Group]:
    return [Group(n, partition) for partition in partitions]
