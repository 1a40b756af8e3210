"""Which epoch a message to the leader of an index may name: one in which that leader has been heard.

An epoch that was only heard *of* may not have begun: one replica has promised it, and others may not yet. What is sent
to it could arrive after it has begun, though its sender was confirmed before (docs/internals/indexes.md, late
messages). So its leader is asked, once an epoch; whoever answers in an epoch has been elected in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from merganser.model.cluster import Table
from merganser.model.errors import InvariantError, MerganserError, UnavailableError
from merganser.model.leader_messages import ReadLed
from merganser.model.leadership import Epoch, Group
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch

ASK_S: Final = 1.0  # about as long as an election takes
AGAIN_S: Final = 0.2
"""After nobody was found to lead a group, all that is for it waits for so long, then longer; nothing else waits."""
AGAIN_S_MAX: Final = 2.0


class IndexEpochs:
    """The epochs of other groups; see the module's docstring."""

    def __init__(self, topology: Topology, leadership: Leadership, leader_based: LeaderBased) -> None:
        """Know none yet."""
        self._topology = topology
        self._leadership = leadership
        self._leader_based = leader_based
        self._loop = asyncio.get_running_loop()
        self._heard: dict[Group, Epoch] = {}
        self._asking: dict[Group, list[asyncio.Future[None]]] = {}
        self._absent: dict[Group, tuple[float, float]] = {}
        """Groups of which nobody answered: until when they are left alone, and how long that was."""
        self._splits = 0
        """Since the start: what a group was before one is another group after it."""
        topology.when_split(self._split)

    def group_of(self, table: Table, key: bytes) -> Group:
        """Return whose leader keeps ``key``."""
        return Group(table.rule, self._topology.ring.partition_of(keys.token_in(key)))

    async def of(self, table: Table, key: bytes) -> Epoch:
        """Return an epoch in which the leader of ``key`` has been heard, the latest known here.

        Raises:
            UnavailableError: nobody answers as the leader.
        """
        group = self.group_of(table, key)
        own = self._leadership.led(group)
        if own is not None:
            return own.epoch
        if self._heard.get(group) != self._leadership.known(group):
            await self._ask(table, group, key)
        heard = self._heard.get(group)
        if heard is None or heard != self._leadership.known(group):
            raise UnavailableError(f"nobody is known to lead partition {group.partition}")
        return heard

    def _split(self, _batch: Batch, _factor: int) -> Callable[[], None]:
        def take() -> None:
            self._heard, self._asking, self._absent, self._splits = {}, {}, {}, self._splits + 1

        return take

    def failed(self, group: Group) -> None:
        """Note that the leader did not answer: it is asked again before anything is sent to it."""
        self._heard.pop(group, None)

    async def _ask(self, table: Table, group: Group, key: bytes) -> None:
        """Ask the leader, once for all who want to know."""
        asking = self._asking.get(group)
        if asking is not None:
            waiter = self._loop.create_future()
            asking.append(waiter)
            await waiter
            return
        until, waited_s = self._absent.get(group, (0.0, 0.0))
        if self._loop.time() < until:
            return
        waiting, splits = list[asyncio.Future[None]](), self._splits
        self._asking[group] = waiting
        try:
            heard = await self._heard_in(table, group, key)
            if self._splits == splits:
                self._heard[group] = heard
                self._absent.pop(group, None)
        except InvariantError:
            raise
        except MerganserError:
            waits_s = min(AGAIN_S_MAX, 2 * waited_s or AGAIN_S)
            self._absent[group] = self._loop.time() + waits_s, waits_s
        finally:
            if self._asking.get(group) is waiting:
                del self._asking[group]
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _heard_in(self, table: Table, group: Group, key: bytes) -> Epoch:
        asked: list[Epoch] = []

        def question(epoch: Epoch) -> ReadLed:
            asked.append(epoch)
            return ReadLed(self._topology.map.epoch, table.id, key, epoch)

        await self._leader_based.ask(table, group.partition, question, deadline=self._loop.time() + ASK_S)
        return asked[-1]  # only the leader of the epoch that is asked last has answered
