"""Hand hints over to their targets once these are back.

For each target that has hints and can be reached there is one pass at a time, in the order of the keys::

    resting --time for it, reachable--> passing: slice -> ask the target for each -> delete what it acked -+
       ^                                  ^   |                                                            |
       |                                  +---|------------- more, and the target takes them --------------+
       +-------- end, or the target is away, slow to answer or overloaded: back off ----+

A hint is an ordinary write to its target, over the bulk connection, so repeating it after a crash of either side
is harmless. A slice is as wide as `Pace` allows: back-pressure of the target narrows it. A hint that the
target refuses stays where it is, and the pass goes on behind it. When the map no longer makes the target
a replica of the key, the hint becomes hints for those that are; on a node that may keep none of that table any more it
goes to all of them at once.

Source: DeCandia 2007 §4.6.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from merganser.core.hint_policy import Fate, Pace, backoff_s, fate
from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Reply
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, error_of
from merganser.service.hint_store import HintStore, StoredHint
from merganser.service.standstill import Standstill
from merganser.service.topology import Topology
from merganser.storage import keys

POLL_S = 1.0  # how late a target that is back is noticed; asking costs a look at a dictionary
TARGETS_MAX = 4  # served at a time, so that many nodes back at once do not starve this one
SLICE_BYTES = 256 * 1024
DELIVERY_TIMEOUT_S = 5.0


class HintedHandoff:
    """Delivers what the hint store holds; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        store: HintStore,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        admit: Callable[[], Awaitable[None]] | None = None,
        standstill: Standstill | None = None,
    ) -> None:
        """Deliver out of ``store``.

        Args:
            topology: who holds what.
            asker: sends.
            store: what is to be delivered.
            wall_us: the clock of the store.
            rng: spreads the passes of the nodes.
            catch_up: fetches a newer map from a peer.
            admit: awaited before each slice; returns when background work may go on.
            standstill: while it is on no hint is given up.
        """
        self._standstill = standstill or Standstill()
        self._topology = topology
        self._asker = asker
        self._store = store
        self._wall_us = wall_us
        self._rng = rng
        self._catch_up = catch_up
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._passes: dict[int, asyncio.Task[None]] = {}
        self._rests_until: dict[int, float] = {}
        self._fruitless: dict[int, int] = {}
        self._error: BaseException | None = None
        self.delivered = 0
        """Hints that their targets have acked."""
        self.refused = 0
        """Answers of targets that did not take a hint; it stays."""
        self.moved = 0
        """Hints whose target holds the key no more, turned into hints for those that do."""

    def pending(self, target: NodeId | None = None) -> int:
        """Return how many hints are stored for ``target``, or for all."""
        if target is None:
            return sum(self._store.held(number).hints for number in self._store.targets())
        number = self._topology.number_of(target)
        return 0 if number is None else self._store.held(number).hints

    async def idle(self) -> None:
        """Return when no pass is under way."""
        while self._passes:
            await asyncio.wait(self._passes.values())

    async def run(self) -> None:
        """Count what is stored, then deliver for as long as the node lives; raises what a pass raised."""
        await self._store.count()
        while self._error is None:
            await self._give_up_orphans()
            self._begin_passes()
            await asyncio.sleep(POLL_S * self._rng.uniform(0.8, 1.2))
        raise self._error

    async def close(self) -> None:
        """Give up the passes under way, once `run` is cancelled; what was not acked stays stored."""
        for task in self._passes.values():
            task.cancel()
        await self.idle()

    async def _give_up_orphans(self) -> None:
        try:
            await self._store.give_up_orphans()
        except MerganserError:
            return  # the disk has failed, or what lies on it: the next turn tries again

    def _begin_passes(self) -> None:
        targets = [target for target in self._store.targets() if target not in self._passes]
        self._rng.shuffle(targets)  # or four that come and go would keep the others waiting
        for target in targets[: TARGETS_MAX - len(self._passes)]:
            if self._is_time_for(target):
                task = self._passes[target] = self._loop.create_task(self._pass(target))
                task.add_done_callback(partial(self._passed, target))

    def _passed(self, target: int, task: asyncio.Task[None]) -> None:
        del self._passes[target]
        if not task.cancelled():
            self._error = self._error or task.exception()

    def _is_time_for(self, target: int) -> bool:
        if self._rests_until.get(target, 0.0) > self._loop.time():
            return False
        node = self._topology.node_of(target)
        return node is None or self._asker.is_reachable(node)

    async def _pass(self, target: int) -> None:
        """Go once through the hints of ``target``, as far as it takes them."""
        delivered, since_us = self.delivered + self.moved, self._wall_us()
        try:
            is_swept = await self._sweep(target)
        except MerganserError:  # this node's disk does not take the deletions, or is damaged: nothing is lost
            is_swept = False
        if is_swept:
            self._store.swept(target, since_us=since_us)
        if is_swept or self.delivered + self.moved > delivered:
            self._fruitless.pop(target, None)
        else:
            self._fruitless[target] = self._fruitless.get(target, 0) + 1
            self._rests_until[target] = self._loop.time() + backoff_s(self._fruitless[target])

    async def _sweep(self, target: int) -> bool:
        """Deliver slice by slice; true if nothing was left behind."""
        pace, start, is_clean = Pace(), b"", True
        while hints := self._store.slice(target, start, hints_max=pace.window, bytes_max=SLICE_BYTES):
            if self._admit is not None:
                await self._admit()
            began_at = self._loop.time()
            fates = await self._deliver(target, hints)
            is_clean = is_clean and all(one is Fate.DELIVERED for one in fates)
            if Fate.PAUSED in fates:
                return False
            pace.acked_in(self._loop.time() - began_at)
            start = keys.after(hints[-1].key)
        return is_clean

    async def _deliver(self, target: int, hints: list[StoredHint]) -> list[Fate]:
        """Send one slice; returns what became of those that were sent, once the target has answered for all."""
        node = self._topology.node_of(target)
        mine: list[StoredHint] = []
        for hint in hints:
            replicas = self._replicas(hint)
            if node is not None and (node in replicas or not replicas):
                mine.append(hint)
            elif replicas and self._is_misplaced(hint):
                await self._hand_on(target, hint, replicas)
            else:
                self._move(target, hint, replicas)
        if node is None or not mine:
            return []
        epoch = self._topology.map.epoch
        futures = [self._send(node, hint, epoch) for hint in mine]
        await asyncio.wait(futures)
        fates = [fate(error_of(future), map_epoch=epoch) for future in futures]
        acked = [hint for hint, one in zip(mine, fates, strict=True) if one is Fate.DELIVERED]
        await self._standstill.over()
        self._store.delivered(target, acked)
        self.delivered += len(acked)
        self.refused += len(mine) - len(acked)
        if Fate.MOVED in fates:
            await self._catch_up(node)
        return fates

    def _send(self, node: NodeId, hint: StoredHint, epoch: int) -> asyncio.Future[Reply]:
        apply = Apply(epoch, keys.table_in(hint.key), hint.key, hint.row, vouched_us=0)
        return self._asker.ask(node, apply, timeout_s=DELIVERY_TIMEOUT_S, traffic=Traffic.BULK)

    def _move(self, target: int, hint: StoredHint, replicas: Sequence[NodeId]) -> None:
        numbers = [number for node in replicas if (number := self._topology.number_of(node)) is not None]
        if numbers:  # else the table is gone, and its hints are about to go
            self._store.retarget(target, hint, numbers)
            self.moved += 1

    def _is_misplaced(self, hint: StoredHint) -> bool:
        """Tell whether this node may not keep it any more, so that it makes no other hints of it."""
        table = self._topology.table(keys.table_in(hint.key))
        return table is not None and not self._topology.may_keep(table)

    async def _hand_on(self, target: int, hint: StoredHint, replicas: Sequence[NodeId]) -> None:
        """Give up a hint once all who hold the row by now have it; else it stays, and is tried again."""
        epoch = self._topology.map.epoch
        futures = [self._send(node, hint, epoch) for node in replicas]
        await asyncio.wait(futures)
        if all(fate(error_of(future), map_epoch=epoch) is Fate.DELIVERED for future in futures):
            await self._standstill.over()
            self._store.delivered(target, [hint])
            self.moved += 1

    def _replicas(self, hint: StoredHint) -> Sequence[NodeId]:
        """Return who holds the row by this node's map; nobody if there is no such table."""
        table = self._topology.table(keys.table_in(hint.key))
        return () if table is None else self._topology.replicas(table, hint.key)
