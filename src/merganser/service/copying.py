"""Copy what a leader holds of a place to a newcomer, in the order of the keys: page by page, one message each.

A newcomer lacks everything, and a comparison would find that out key by key, and settle each. What is copied is what
the leader has made known, as it stands in its engine, version and all: a register never goes back to an earlier version
(`service.register_replica`), so a page that is late does no harm beside the writes that the newcomer is sent meanwhile.
The comparison after it (`service.moving`) finds what was changed, or missed.

Each page is checked by whom it is for, row by row, and is durable there when it is answered. Between two pages
background work waits for its turn, and for as long as the bytes of the last one are worth. While clients ask this node
one page is under way at a time, of all places, and what comes next waits three times as long as that took: the longer,
the more whoever takes it has to do, up to two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib

from merganser.model.cluster import Table
from merganser.model.errors import UnavailableError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Copies, Kept, Replicate
from merganser.model.leadership import Group
from merganser.net.transport import Traffic, refusal
from merganser.service.admission import Admission
from merganser.service.anti_entropy import BYTES_PER_S
from merganser.service.asking import Asker
from merganser.service.leadership import Leadership
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine

PAGE_ROWS = 128
"""Half a millisecond of the loop here, and 2.5 ms at the newcomer, which keeps them all in one turn: with 256 of 1 KB
clients were seen to wait for 10 to 15 ms there on two busy cores."""
PAGE_BYTES = 128 * 1024
REST = 3.0
"""Times as long as a page took the next one waits while clients ask: a quarter of the time, at the most, goes to it."""
REST_MAX_S = 2.0
"""However long a page took: all places wait meanwhile, and may be of newcomers that are quicker."""
ANSWER_TIMEOUT_S = 20.0


class Copying:
    """Copies; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        admission: Admission,
        *,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        """Copy out of ``engine`` what ``leadership`` says is led here, at most ``bytes_per_s`` of each place.

        ``admission`` tells when background work may go on, and whether clients ask this node.
        """
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._leadership = leadership
        self._admission = admission
        self._turns = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._bytes_per_s = bytes_per_s
        self.rows = 0
        """Copied since the start of this node."""

    async def copy(self, table: Table, partition: PartitionId, peer: NodeId) -> None:
        """Return once ``peer`` holds what this leader of ``partition`` held when it came by, or something later.

        Raises:
            MerganserError: it does not, or this node leads no more.
        """
        position, end = self._topology.partition_range(table, partition, partition)
        while position < end:
            async with self._turns if self._admission.is_asked else contextlib.nullcontext():
                position = await self._copy_page(table, partition, peer, position, end)

    async def _copy_page(
        self, table: Table, partition: PartitionId, peer: NodeId, position: bytes, end: bytes
    ) -> bytes:
        """Copy what begins at ``position``, and rest; returns where to go on."""
        await self._admission.background()
        requests, size, position = self._page(table, partition, position, end)
        if requests:
            began = self._loop.time()
            answer = await self._asker.ask(peer, Copies(requests), timeout_s=ANSWER_TIMEOUT_S, traffic=Traffic.BULK)
            if isinstance(answer, Kept) and answer.refused:
                raise refusal(answer.refused[0][1])
            self.rows += len(requests)
            rest_s = min(REST_MAX_S, REST * (self._loop.time() - began)) if self._admission.is_asked else 0.0
            await asyncio.sleep(max(size / self._bytes_per_s, rest_s))
        return position

    def _page(
        self, table: Table, partition: PartitionId, start: bytes, end: bytes
    ) -> tuple[tuple[Replicate, ...], int, bytes]:
        """Return what to send, its size, and where to go on; in one turn of the loop."""
        led = self._leadership.led(Group(table.rule, partition))
        if led is None:
            raise UnavailableError(f"this node leads partition {partition} no more")
        epoch, page, size = self._topology.map.epoch, list[Replicate](), 0
        for key, stored in self._engine.scan(start, end):
            if len(page) == PAGE_ROWS or size >= PAGE_BYTES:
                return tuple(page), size, keys.after(page[-1].key)
            page.append(Replicate(epoch, table.id, key, led.epoch, stored, led.generation))
            size += len(key) + len(stored)
        return tuple(page), size, end
