"""Read repair: bring replicas up to what a read has just merged.

A read that met different answers has the newest row in hand; the replicas that answered with less
get it as an ordinary write, after the client has its answer. Repairs are best effort and bounded:
beyond the bound, or while the node is busy, they are dropped (the next read tries again), so a flood
of stale reads cannot fill memory.

Source: DeCandia 2007 §5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Reply

REPAIRS_MAX = 1024  # about 1 MiB of 1 KB rows in flight


class ReadRepair:
    """Repairs under way; see the module's docstring."""

    def __init__(self, send: Callable[[NodeId, Apply], asyncio.Future[Reply]]) -> None:
        """Send repairs with ``send``, whose futures end by themselves."""
        self._send = send
        self._under_way: set[asyncio.Future[Reply]] = set()
        self.may_begin: Callable[[], bool] = lambda: True
        self.sent = 0
        self.dropped = 0
        self.failed = 0

    def repair(self, replica: NodeId, newest: Apply) -> None:
        """Bring ``replica`` up to ``newest`` in the background."""
        if len(self._under_way) >= REPAIRS_MAX or not self.may_begin():
            self.dropped += 1
            return
        self.sent += 1
        future = self._send(replica, newest)
        self._under_way.add(future)
        future.add_done_callback(self._ended)

    async def idle(self) -> None:
        """Return when no repair is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, future: asyncio.Future[Reply]) -> None:
        self._under_way.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            return
        self.failed += 1
        if not isinstance(error, MerganserError):
            raise error
