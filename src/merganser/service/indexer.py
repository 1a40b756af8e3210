"""Bring global indexes up to their tables: the leader of an item delivers what is in its outbox (`core.indexing`).

::

    written, or found with an outbox --> waiting --> head chosen --> epochs noted --> confirmed --> sent --> cleared
                                            ^                                                        |
                                            +----- some did not answer: later, for ever -------------+

An item is delivered as of a version that is chosen, one version of it at a time, to the leaders of its entries, each in
just the epoch that was noted (`service.index_epochs`) *before* this leader's own epoch was confirmed. That no message
of a deposed leader can undo a later one rests on this order: docs/internals/indexes.md.

Nothing is lost with this node: the next leader of the items finds their outboxes when it goes through its partition.
An index that was added to a table gets nothing before a majority of the replicas knows of it: else a leader that does
not could be elected, and leave entries behind.

Source: design §5; docs/internals/indexes.md.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from merganser.core.indexing import Shown, encoded
from merganser.model.cluster import Index, Table
from merganser.model.errors import (
    CorruptionError,
    InvariantError,
    MerganserError,
    RefusedError,
    UnavailableError,
)
from merganser.model.ids import TableId
from merganser.model.leader_messages import NOT_LEADING, Change, TouchRange
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.model.register import Pending, Version
from merganser.net.transport import Traffic
from merganser.service.asking import Asker, error_of, is_overload
from merganser.service.index_epochs import IndexEpochs
from merganser.service.leader import Leader
from merganser.service.leadership import Leadership, Led
from merganser.service.outboxes import Fate, Outboxes
from merganser.service.steps import INDEXES
from merganser.service.tasks import Tasks
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.registers import may_have_outbox

AT_ONCE: Final = 64  # a delivery takes some milliseconds: ten thousand a second
SEND_S: Final = 1.0
CONFIRM_S: Final = 2.0
KNOWING_S: Final = 2.0
AGAIN_S_MIN: Final = 0.05
AGAIN_S_MAX: Final = 5.0
WAITING_MAX: Final = 100_000
"""Items, 20 MB of them; what is more is found again by going through the partition."""
SLICE_ROWS: Final = 512  # looked at in one turn of the loop: half a millisecond
FILL_PAUSE_S: Final = 0.005
SCAN_LOOK_S: Final = 0.25  # between two looks for places to go through
_REQUEST_BYTES: Final = 16

_Item = tuple[Led, TableId, bytes]
_Place = tuple[Led, TableId]


class Indexer:
    """Delivers what is behind the items that this node leads; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        leader: Leader,
        outboxes: Outboxes,
        epochs: IndexEpochs,
        *,
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Deliver for ``leader``.

        Args:
            topology: knows the tables.
            asker: sends.
            engine: holds the items.
            leadership: what this node leads, and whether it still does.
            leader: of the items.
            outboxes: what goes into them.
            epochs: of the leaders of entries.
            rng: spreads what is tried again, and draws the ids of requests.
            admit: waits between slices of background work while clients need this node more.
            on_error: told of bugs.
        """
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._leadership = leadership
        self._leader = leader
        self._outboxes = outboxes
        self.epochs = epochs
        self._rng = rng
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(on_error)
        self._news = asyncio.Event()
        self._ready: OrderedDict[_Item, None] = OrderedDict()
        self._busy: dict[_Item, bool] = {}
        """Items on their way, and whether they are to be looked at again."""
        self._later: list[tuple[float, int, _Item]] = []
        """When to try again; a heap."""
        self._failures: dict[_Item, int] = {}
        self._turns = itertools.count()
        self._to_scan: dict[_Place, None] = {}
        self._knowing: dict[tuple[Group, TableId], None] = {}
        """Where a majority of the replicas of a group knows of an index."""
        topology.when_split(lambda _batch, _factor: self._knowing.clear)
        self.delivered = 0
        """Entries, since the start of this node."""
        leadership.when_elected(self._elected)
        leader.items.when_behind_indexes = self.notice

    @property
    def waiting(self) -> int:
        """How many items are known here to be ahead of their entries."""
        return len(self._ready) + len(self._busy) + len(self._later)

    def notice(self, led: Led, table: TableId, key: bytes) -> None:
        """Deliver what is in the outbox of an item."""
        item = led, table, key
        if item in self._busy:
            self._busy[item] = True
        elif item in self._ready:
            return
        elif self.waiting >= WAITING_MAX:
            self._to_scan[led, table] = None
        else:
            self._ready[item] = None
            self._news.set()

    async def run(self) -> None:
        """Deliver for as long as the node lives."""
        while True:
            self._news.clear()
            now = self._loop.time()
            while self._later and self._later[0][0] <= now:
                self._ready[heapq.heappop(self._later)[2]] = None
            while self._ready and len(self._busy) < AT_ONCE:
                item, _ = self._ready.popitem(last=False)
                if item in self._busy:
                    self._busy[item] = True
                elif item[0].is_standing:
                    self._busy[item] = False
                    self._tasks.begin(self._deliver(item))
                else:
                    self._failures.pop(item, None)
            wait_s = self._later[0][0] - now if self._later and len(self._busy) < AT_ONCE else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Deliver nothing any more; `run` has ended."""
        await self._tasks.close()

    # One item

    async def _deliver(self, item: _Item) -> None:
        led, table_id, key = item
        is_done = False
        try:
            table = self._topology.table(table_id)
            is_done = table is None or await self.deliver(led, table, key)
        except InvariantError:
            raise
        except MerganserError:  # whoever is in the way is back later, or another leads
            pass
        finally:
            is_news = self._busy.pop(item)
            self._news.set()
        if not led.is_standing:
            self._failures.pop(item, None)
        elif not is_done:
            failures = self._failures[item] = self._failures.get(item, 0) + 1
            pause_s = min(AGAIN_S_MAX, AGAIN_S_MIN * 2 ** min(failures, 10)) * self._rng.uniform(0.5, 1.0)
            heapq.heappush(self._later, (self._loop.time() + pause_s, next(self._turns), item))
        else:
            self._failures.pop(item, None)
            if is_news:
                self._ready[item] = None

    async def deliver(self, led: Led, table: Table, key: bytes) -> bool:
        """Bring the entries in the outbox of an item up to it; returns whether none of them is left behind.

        Raises:
            MerganserError: nothing could be done.
        """
        head = await self._leader.chosen(table, key, led=led)
        outbox = head.content.outbox
        if not outbox:
            return True
        table = self._outboxes.newest(table)
        shown = self._outboxes.entries(table, key, head.value) if table.indexes else {}
        due = [entry for entry in outbox if await self._is_due(led, table, entry)]
        sent = await self.send(led, head.version, {entry: shown.get(entry) for entry in due})
        is_open = self._leader.amend(
            table, key, lambda register: self._outboxes.without(table, key, register.content, sent), led=led
        )
        return is_open and len(sent) == len(due) and not self._is_any_unknown(table, outbox)

    async def fill(self, led: Led, table: Table, key: bytes, index: TableId) -> bool:
        """Let one index show what follows from an item, whatever is in the item's outbox; returns whether it does.

        Raises:
            MerganserError: nothing could be done.
        """
        item = led, table.id, key
        while True:  # of one item there is one delivery at a time, of no earlier version than the last
            if item not in self._busy:
                break
            await asyncio.sleep(FILL_PAUSE_S)
        self._busy[item] = False
        try:
            head = await self._leader.chosen(table, key, led=led)
            shown = self._outboxes.entries(self._outboxes.newest(table), key, head.value)
            due: dict[Pending, bytes | None] = {entry: value for entry, value in shown.items() if entry[0] == index}
            return len(await self.send(led, head.version, due)) == len(due)
        finally:
            if self._busy.pop(item):
                self._ready[item] = None
            self._news.set()

    async def send(
        self, led: Led, version: Version, entries: dict[Pending, bytes | None]
    ) -> dict[Pending, bytes | None]:
        """Have entries show what follows from ``version`` of their item, which is chosen; returns those that do.

        Raises:
            MerganserError: nothing was sent.
        """
        noted = {entry: epoch for entry in entries if (epoch := await self._epoch(entry)) is not None}
        if not noted:
            return {}
        await self._leadership.confirm(led, deadline=self._loop.time() + CONFIRM_S)
        if not led.is_standing:
            return {}
        asked = {entry: self._ask(entry, epoch, Shown(version, entries[entry])) for entry, epoch in noted.items()}
        done: dict[Pending, bytes | None] = {}
        for entry, error in zip(asked, await _errors_of(asked.values()), strict=True):
            if error is None:
                done[entry] = entries[entry]
            else:
                self._failed(entry, error)
        self.delivered += len(done)
        return done

    async def _epoch(self, entry: Pending) -> Epoch | None:
        table = self._topology.table(entry[0])
        try:
            return None if table is None else await self.epochs.of(table, entry[1])
        except UnavailableError:
            return None

    def _ask(self, entry: Pending, epoch: Epoch, shown: Shown) -> asyncio.Future[Reply]:
        node = self._topology.node_of(epoch.leader)
        assert node is not None, "it has been heard"
        request = self._rng.randbytes(_REQUEST_BYTES)
        change = Change(self._topology.map.epoch, *entry, epoch, request, INDEXES, encoded(shown))
        return self._asker.ask(node, change, timeout_s=SEND_S)

    def _failed(self, entry: Pending, error: BaseException) -> None:
        if isinstance(error, InvariantError) or not isinstance(error, MerganserError):
            raise error
        table = self._topology.table(entry[0])
        if table is None or is_overload(error):
            return
        group = self.epochs.group_of(table, entry[1])
        if isinstance(error, RefusedError) and error.code == NOT_LEADING:
            self._leadership.learned(group, error.epoch)
        self.epochs.failed(group)

    def _is_any_unknown(self, table: Table, outbox: tuple[Pending, ...]) -> bool:
        return any(self._outboxes.fate(table, entries) is Fate.UNKNOWN for entries, _ in outbox)

    # What the replicas know

    async def _is_due(self, led: Led, table: Table, entry: Pending) -> bool:
        index = self._outboxes.index(table, entry[0])
        if index is None:
            return False
        await self.make_known(led, index)
        return True

    async def make_known(self, led: Led, index: Index) -> None:
        """Return once a majority of the replicas knows of ``index`` for ever: only who knows of it leads them then.

        Raises:
            UnavailableError: too few of them do.
        """
        place = led.group, index.table
        if index.since == 0 or place in self._knowing:
            return
        table = self._topology.table(index.table)
        if table is None:
            raise UnavailableError(f"index {index.name} is gone")
        start, end = self._topology.partition_range(table, led.group.partition, led.group.partition)
        question = TouchRange(self._topology.map.epoch, table.id, start, end, led.epoch, 1, 1)
        await self._engine.durable()
        asked = [
            self._asker.ask(node, question, timeout_s=KNOWING_S, traffic=Traffic.BULK)
            for node in led.followers(self._topology.node)
        ]
        knowing = 1 + sum(error is None for error in await _errors_of(asked))
        if not led.is_standing:
            raise UnavailableError("another node has begun to lead")
        if knowing < led.quorum:
            raise UnavailableError(f"{knowing} of {len(led.replicas)} replicas know of index {index.name}")
        self._knowing = {known: None for known in self._knowing if self._topology.table(known[1]) is not None}
        self._knowing[place] = None

    # What an earlier leader has left

    def _elected(self, led: Led) -> None:
        for table in self._topology.led_tables(led.group.rule):
            if table.indexes:
                self._to_scan[led, table.id] = None
                self._news.set()

    async def go_through(self) -> None:
        """Look, while the node lives, for outboxes where this node leads since lately, one place after another."""
        while True:
            again: dict[_Place, None] = {}
            while self._to_scan:
                place = next(iter(self._to_scan))
                del self._to_scan[place]
                if not await self._scan(*place):
                    again[place] = None
            self._to_scan.update(again)
            await asyncio.sleep(AGAIN_S_MAX if again else SCAN_LOOK_S)

    async def _scan(self, led: Led, table_id: TableId) -> bool:
        """Notice the items of one place that have an outbox; returns whether it was gone through to its end."""
        table = self._topology.table(table_id)
        if table is None:
            return True
        position, end = self._topology.partition_range(table, led.group.partition, led.group.partition)
        while position < end and led.is_standing:
            await self._admit()
            if self.waiting >= WAITING_MAX:
                await asyncio.sleep(SCAN_LOOK_S)
                continue
            try:
                rows = list(itertools.islice(self._engine.scan(position, end), SLICE_ROWS))
            except CorruptionError:  # healed elsewhere, and what is put in its place is noticed
                return False
            for key, stored in rows:
                if may_have_outbox(stored):
                    self.notice(led, table_id, key)
            position = keys.after(rows[-1][0]) if len(rows) == SLICE_ROWS else end
        return True


async def _errors_of(asked: Collection[asyncio.Future[Reply]]) -> list[BaseException | None]:
    """Wait for all answers; returns how each failed, None for those that came."""
    if not asked:
        return []
    try:
        await asyncio.wait(asked)
    finally:
        for answer in asked:
            answer.add_done_callback(error_of)  # nobody else may look how it ends
    return [error_of(answer) for answer in asked]
