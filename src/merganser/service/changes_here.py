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

from merganser.model.cluster import Table
from merganser.model.leader_messages import Changed
from merganser.net.deadlines import Deadlines
from merganser.service.admission import Admission
from merganser.service.in_flight import Proposal
from merganser.service.leader import Leader


class ChangesHere:
    """Begins changes on this node, and waits for them; see the module's docstring."""

    def __init__(self, leader: Leader, admission: Admission, *, is_refusing: Callable[[], bool]) -> None:
        """Ask ``leader`` as far as ``admission`` has room, unless the disk ``is_refusing`` some requests."""
        self._leader = leader
        self._admission = admission
        self._is_refusing = is_refusing
        self._deadlines = Deadlines(asyncio.get_running_loop(), self._expire)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0
        self._loop = asyncio.get_running_loop()

    def begin(self, table: Table, key: bytes, kind: int, payload: bytes) -> Proposal | None:
        """Begin a change, as `Leader.begin`; what is returned is to be awaited by `ended`, once.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        if self._is_refusing() or not self._admission.has_room_to_lead(len(payload)):
            return None
        proposal = self._leader.begin(table, key, kind, payload)
        if proposal is not None:
            self._admission.begin_leading(len(payload))
        return proposal

    async def ended(self, proposal: Proposal, payload_bytes: int, deadline: float) -> Changed:
        """Return what a change came to when a majority has it durably.

        Args:
            proposal: that was begun here.
            payload_bytes: of its payload.
            deadline: loop time.

        Raises:
            UnknownOutcomeError: deposed, or out of time, before it was known to be chosen.
        """
        try:
            if not proposal.has_ended:
                await self._end_of(proposal, deadline)
        finally:
            self._admission.end_leading(payload_bytes)
        return self._leader.written(proposal)

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
