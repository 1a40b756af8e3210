"""Drive the operation that the cluster map names, step by step, until it is done (`core.reshaping`).

Every node runs this, and the first voter that lives drives; should two, they do each other no harm: each step is one
change of the map, for just the placement that it was found ready for. Nothing else is kept anywhere, so a driver that
dies is followed by the next.

    nothing pending --all are well, newcomers hold nothing old--> pending --all places done--> settling --equal--> ...
                                                                     |
                                                                     +--one is not well for long--> nothing pending

A ring is cut finer (`core.splitting`) in one change, for which nothing has to be copied or waited for. A policy that
others have, too, gets a second number in one (`core.policy_changes`), and then changes like everything else. Such an
operation ends when nobody keeps anything any more that it may not keep.

What is waited for is asked of all members, some times a second, and told to operators.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from merganser.core import policy_changes, reshaping, splitting
from merganser.model.cluster import ClusterMap, Pending
from merganser.model.errors import InvariantError, MerganserError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId
from merganser.model.messages import AskMoves, Moves
from merganser.service.asking import Asker, error_of
from merganser.service.catalog import Catalog
from merganser.service.former_ledgers import FormerLedgers
from merganser.service.topology import Topology

TICK_S = 0.25
ASK_TIMEOUT_S = 1.0
CHANGE_TIMEOUT_S = 5.0
REVERT_S = 15.0
"""Who is away for so long, or has lost what its disk held, ends the step: until it is done, as many have to answer as
it takes before *and* after it, so that fewer of them may fail."""


class Progress(msgspec.Struct, frozen=True):
    """How far the operation is, as this node sees it."""

    id: str
    kind: str
    told: str
    began_us: int
    moves: int
    """Partitions that are to change their owner in all; of zones and policies: their replicas."""
    moved: int
    pending: int
    """Partitions that change in the present step."""
    step: str
    """"preparing", "copying", "settling" or "ending"."""
    waiting_for: str
    """What the present step waits for; "" if for nothing known, or if another node drives."""
    driver: NodeId | None


class Ended(msgspec.Struct, frozen=True):
    """What became of an operation."""

    id: str
    told: str
    is_done: bool
    """As planned; otherwise it was cancelled."""


class Step(NamedTuple):
    """What is so by one map: wanted several times a second, and found by a walk along the ring, in milliseconds."""

    map: ClusterMap
    pending: Pending | None
    """What is pending, or is to be next."""
    partitions: list[PartitionId]
    """Whose replicas are others once that is done, or what is settling."""
    reshaped: reshaping.Reshaped

    @classmethod
    def of(cls, current: ClusterMap) -> Step:
        """Look at ``current``."""
        nothing = reshaping.Reshaped([], [], [])
        if current.settling:
            return cls(current, None, list(current.settling), nothing)
        pending = current.pending or reshaping.next_pending(current)
        if pending is None:
            return cls(current, None, [], nothing)
        reshaped = reshaping.reshaped(msgspec.structs.replace(current, pending=pending))
        return cls(current, pending, reshaped.partitions, reshaped)


class Rebalancer:
    """Drives; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, catalog: Catalog) -> None:
        """Change the map through ``catalog``."""
        self._topology = topology
        self._asker = asker
        self._catalog = catalog
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ill_since: dict[NodeId, float] = {}
        """In the step of `_ill_in`."""
        self._ill_in = topology.map.placed
        self._waiting_for = ""
        self._present: Step | None = None
        self._left: tuple[ClusterMap, int] | None = None
        """By one map, how many partitions have yet to change."""
        self._running = topology.map.operation
        self.last: Ended | None = None
        """The operation that ended last, since this node started."""
        self.former_ledgers = FormerLedgers(topology, asker, catalog, driver=self.driver)
        topology.when_changed(self._look_at)

    async def run(self) -> None:
        """Drive what there is to drive, for as long as the node lives."""
        while True:
            self._news.clear()
            current, driver = self._topology.map, self.driver()
            is_idle = current.operation is None and current.pending is None and not current.settling
            if is_idle or driver != self._topology.node:
                self._waiting_for = ""
            else:
                await self._step(current)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_idle else TICK_S):
                    await self._news.wait()

    def _look_at(self, current: ClusterMap) -> None:
        before, self._running = self._running, current.operation
        if before is not None and (current.operation is None or current.operation.id != before.id):
            self.last = Ended(before.id, before.told, is_done=reshaping.is_done(current, before))
        self._news.set()

    def alive(self) -> set[NodeId]:
        """Return the members that answer, as far as this node knows."""
        return {node.id for node in self._topology.map.nodes if self._is_there(node.id)}

    def driver(self) -> NodeId | None:
        """Return who drives, as far as this node knows; None if it knows of no voter that lives."""
        for number in self._topology.map.voters:
            node = self._topology.node_of(number)
            if node is not None and self._is_there(node):
                return node
        return None

    def progress(self) -> Progress | None:
        """Return how far the operation under way is, None if there is none."""
        current = self._topology.map
        operation = current.operation
        if operation is None:
            return None
        is_uncut = splitting.is_due(current)
        if self._left is None or self._left[0] is not current:
            self._left = current, 0 if is_uncut else reshaping.left_to_move(current, operation)
        left = self._left[1]
        if current.settling:
            step = "settling"
        elif current.pending is not None:
            step = "copying"
        else:
            is_more = is_uncut or policy_changes.is_fork_due(current) or self._step_of(current).pending is not None
            step = "preparing" if is_more else "ending"
        return Progress(
            id=operation.id,
            kind=operation.kind,
            told=operation.told,
            began_us=operation.began_us,
            moves=operation.moves,
            moved=max(0, operation.moves - left),
            pending=0 if current.pending is None else len(current.pending.moves),
            step=step,
            waiting_for=self._waiting_for,
            driver=self.driver(),
        )

    # One step

    def _step_of(self, current: ClusterMap) -> Step:
        if self._present is None or self._present.map is not current:
            self._present = Step.of(current)
        return self._present

    async def _step(self, current: ClusterMap) -> None:
        told = await self._ask_all(current)
        try:
            change = self._next(current, told)
            if change is not None:
                await self._catalog.change(change, deadline=self._loop.time() + CHANGE_TIMEOUT_S)
        except InvariantError:
            raise
        except MerganserError as error:  # another node drives, or most voters are away
            self._waiting_for = str(error)

    def _next(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> Callable[[ClusterMap], ClusterMap] | None:
        """Return the change that is due, None while something is in its way."""
        placed = current.placed
        if current.pending is not None:
            self._waiting_for = self._undone(current, told) or self._still_leading(told)
            if not self._waiting_for:
                return lambda newest: reshaping.flipped(newest, placed)
            is_given_up = self._is_ill_for_long(current, told)
            return (lambda newest: reshaping.given_up(newest, placed)) if is_given_up else None
        if current.settling:
            self._waiting_for = self._undone(current, told)
            return None if self._waiting_for else lambda newest: reshaping.after_settling(newest, placed)
        if splitting.is_due(current):
            self._waiting_for = splitting.objection(current)
            return None if self._waiting_for else splitting.split
        if policy_changes.is_fork_due(current):
            self._waiting_for = ""
            return policy_changes.forked
        pending = self._step_of(current).pending
        if pending is not None:
            self._waiting_for = self._unready(current, told)
            return None if self._waiting_for else lambda newest: reshaping.with_pending(newest, pending)
        if reshaping.with_other_voters(current) is not current:
            return reshaping.with_other_voters
        self._waiting_for = self._still_hinting(current, told) or self._still_keeping(current, told)
        return None if self._waiting_for else reshaping.ended

    async def _ask_all(self, current: ClusterMap) -> dict[NodeId, Moves]:
        """Return what the members tell that know the placement of ``current``."""
        asked = {
            node.id: self._asker.ask(node.id, AskMoves(), timeout_s=ASK_TIMEOUT_S)
            for node in current.nodes
            if self._is_there(node.id)
        }
        if asked:
            await asyncio.wait(asked.values())
        told = {}
        for node, answer in asked.items():
            reply = None if error_of(answer) is not None else answer.result()
            if isinstance(reply, Moves) and reply.placed == current.placed:
                told[node] = reply
        return told

    # What is in the way, in words; "" if nothing is

    def _undone(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> str:
        """Tell of a place of which nobody has said that those who come hold everything."""
        done = {node: set(moves.done) for node, moves in told.items()}
        left = []
        for table in current.tables:
            for partition in self._step_of(current).partitions:
                holders = self._topology.ring.holders(partition, table.rule)
                if current.pending is not None and not holders.extra:
                    continue
                place = (table.id, partition)
                by = {node for node, places in done.items() if place in places}
                if not self._is_enough(current, holders, by, is_led=table.has_leaders):
                    left.append(place)
        if not left:
            return ""
        problems = [f"{node}: {moves.problem}" for node, moves in told.items() if moves.problem]
        return f"{len(left)} places to be done" + (f" ({problems[0]})" if problems else "")

    def _is_enough(self, current: ClusterMap, holders: Holders, by: set[NodeId], *, is_led: bool) -> bool:
        if is_led or current.pending is None:
            return bool(by)
        return all(node in by or (node in holders.serving and not self._is_there(node)) for node in holders.next)

    def _still_leading(self, told: Mapping[NodeId, Moves]) -> str:
        for node, moves in told.items():
            if moves.leads:
                return f"node {node} is handing over {moves.leads} groups that it leads"
        return ""

    def _still_hinting(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> str:
        operation = current.operation
        for node in current.nodes:
            if operation is not None and node.number in operation.gone and node.number not in operation.lost:
                if node.id not in told:
                    return f"node {node.id} is away: when it is lost for good, cancel, and remove it"
                if told[node.id].hints:
                    return f"node {node.id} keeps {told[node.id].hints} hints for others"
        return ""

    def _still_keeping(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> str:
        """Tell of a node that has something which, by the policy that has changed, it may not keep."""
        if current.operation is None or current.operation.policy is None:
            return ""
        for node in (node.id for node in current.nodes):
            if node not in told:
                return f"node {node} is away, and may keep too much: when it is lost for good, cancel, and remove it"
            if told[node].leftovers:
                return f"node {node} is removing what it held before"
            if told[node].hints:
                return f"node {node} keeps hints that it may not keep, until their targets are back"
        return ""

    def _unready(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> str:
        """Tell of a node that is away or not well, or of a newcomer to be that holds something from before."""
        step = self._step_of(current)
        for node in step.reshaped.concerned:
            if node not in told:
                return f"node {node} is away"
            if not told[node].is_well:
                return f"node {node} is getting back what its disk has lost, or its disk has failed"
        for node in step.reshaped.newcomers:
            if told[node].leftovers:
                return f"node {node} is removing what it held before"
        return ""

    def _is_ill_for_long(self, current: ClusterMap, told: Mapping[NodeId, Moves]) -> bool:
        """Tell whether one of those concerned has been away, or not well, for long."""
        now = self._loop.time()
        if self._ill_in != current.placed:
            self._ill_in, self._ill_since = current.placed, {}
        ill = [node for node in self._step_of(current).reshaped.concerned if node not in told or not told[node].is_well]
        self._ill_since = {node: self._ill_since.get(node, now) for node in ill}
        return any(now - since >= REVERT_S for since in self._ill_since.values())

    def _is_there(self, node: NodeId) -> bool:
        return self._asker.is_reachable(node) and node not in self._asker.doubted
