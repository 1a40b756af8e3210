"""Read repair: bring replicas up to what a read has just merged.

A read that met different answers has the newest row in hand; the replicas that answered with less
get it as an ordinary write, after the client has its answer. Repairs are best effort and bounded:
beyond the bound they are dropped (the next read tries again), so a flood of stale reads cannot
fill memory.

Source: DeCandia 2007 §5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from merganser.core import horizon
from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Reply
from merganser.model.row import Row
from merganser.storage.values import decode_row

REPAIRS_MAX = 1024  # about 1 MiB of 1 KB rows in flight


class Reconciled(msgspec.Struct, frozen=True):
    """What several answers for one key come to."""

    row: Row | None
    stale: tuple[NodeId, ...]
    """Who answered with less."""
    vouched_us: int
    """The highest horizon among those who answered: what ``row`` holds from before it is theirs."""


def reconcile(key: bytes, answers: Mapping[NodeId, bytes | None], horizons: Mapping[NodeId, int]) -> Reconciled:
    """Say what the replicas of ``key`` hold together, given the horizon of each.

    Raises:
        CorruptionError: an answer is damaged.
    """
    distinct = set(answers.values())
    if len(distinct) == 1:
        stored = distinct.pop()
        return Reconciled(None if stored is None else decode_row(key, stored), (), 0)
    held = {node: None if stored is None else decode_row(key, stored) for node, stored in answers.items()}
    row = horizon.agreed((held[node], horizons[node]) for node in answers)
    stale = tuple(node for node in answers if horizon.lacks(held[node], row))
    return Reconciled(row, stale, max(horizons.values()))


class ReadRepair:
    """Repairs under way; see the module's docstring."""

    def __init__(self, send: Callable[[NodeId, Apply], asyncio.Future[Reply]]) -> None:
        """Send repairs with ``send``, whose futures end by themselves."""
        self._send = send
        self._under_way: set[asyncio.Future[Reply]] = set()
        self.sent = 0
        self.dropped = 0
        self.failed = 0

    def repair(self, replica: NodeId, newest: Apply) -> None:
        """Bring ``replica`` up to ``newest`` in the background."""
        if len(self._under_way) >= REPAIRS_MAX:
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
