"""Changes of items that this node leads, for clients of this node: without a message, a search or an id.

Most clients reach the leader of an item by chance, once in as many times as there are nodes, and always if there is one
node only. What is written then is begun like a function (`Leader.begin`), and waited for here. What that declines, and
has not begun, goes the way of all others (`service.leader_asking`).

Invariants: counted as what this node leads for others is (`service.admission`), and as long as they are; every wait
ends at its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from merganser.model.cluster import Table
from merganser.model.leader_messages import Changed
from merganser.net.deadlines import Deadlines
from merganser.service.admission import Admission
from merganser.service.in_flight import Proposal
from merganser.service.steps import UNASKED


class Leads(Protocol):
    """Who leads items on this node: `service.leader.Leader`."""

    def begin(self, table: Table, key: bytes, kind: int, payload: bytes) -> Proposal | None:
        """Begin a change; None if that would have to wait."""

    def written(self, proposal: Proposal) -> Changed:
        """Return what a change that has ended came to."""


class Begun:
    """A change that was begun here, and holds its place until it has ended."""

    __slots__ = ("began", "is_asked", "is_counted", "payload_bytes", "proposal")

    def __init__(self, proposal: Proposal, payload_bytes: int, began: float, is_asked: bool) -> None:
        """Take note of when, by loop time, and whether a client waits for it."""
        self.proposal = proposal
        self.is_asked = is_asked
        self.payload_bytes = payload_bytes
        self.began = began
        self.is_counted = True


class ChangesHere:
    """Begins changes on this node, and waits for them; see the module's docstring."""

    def __init__(self, leader: Leads, admission: Admission, *, is_refusing: Callable[[], bool]) -> None:
        """Ask ``leader`` as far as ``admission`` has room, unless the disk ``is_refusing`` some requests."""
        self._leader = leader
        self._admission = admission
        self._is_refusing = is_refusing
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop, self._expire)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0

    def begin(self, table: Table, key: bytes, kind: int, payload: bytes) -> Begun | None:
        """Begin a change, as `Leader.begin`; what is returned is to be awaited by `ended`, or given up by `let_go`.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        size = len(payload)
        if self._is_refusing() or not self._admission.has_room_to_lead(size):
            return None
        proposal = self._leader.begin(table, key, kind, payload)
        if proposal is None:
            return None
        self._admission.begin_leading(size)
        return Begun(proposal, size, self._loop.time(), kind not in UNASKED)

    async def ended(self, begun: Begun, deadline: float) -> Changed:
        """Return what a change came to when a majority has it durably.

        Args:
            begun: here.
            deadline: loop time.

        Raises:
            UnknownOutcomeError: deposed, or out of time, before it was known to be chosen.
        """
        proposal = begun.proposal
        try:
            if not proposal.has_ended:
                await self._end_of(proposal, deadline)
        finally:
            self.let_go(begun)
        return self._leader.written(proposal)

    def let_go(self, begun: Begun) -> None:
        """Wait no longer for a change; does nothing the second time."""
        if begun.is_counted:
            begun.is_counted = False
            took_s = self._loop.time() - begun.began
            self._admission.end_leading(begun.payload_bytes, took_s, is_asked=begun.is_asked)

    def close(self) -> None:
        """Watch over deadlines no longer."""
        self._deadlines.close()

    async def _end_of(self, proposal: Proposal, deadline: float) -> None:
        self._last = number = self._last + 1
        self._waiting[number] = waiter = proposal.waiter()
        due = self._deadlines.add(number, deadline - self._loop.time())
        try:
            await waiter
        finally:
            due.discard(number)
            del self._waiting[number]

    def _expire(self, number: int) -> None:
        waiter = self._waiting[number]
        if not waiter.done():
            waiter.set_result(None)
