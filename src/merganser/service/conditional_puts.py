"""Puts and deletes that depend on what is there: none match, not modified.

Each key has one replica that sees to them: the first of its preference list that answers. It lets them in one after
another, reads the key at the level that the client asked for, and writes if the condition holds::

    client --put if--> any node --PutValue--> first replica of the key: waits for its turn of the key
                                              reads R replicas, decides (`core.preconditions`), writes
           <--context, or: precondition failed--

What that is worth: of several such puts that depend on the same state, one is done, as long as all coordinators agree
on who answers first, and R + W > N. Across a partition, or while a node only seems to be away, two replicas may let one
in each. Then both are done: they stand side by side, or the later one wins, as of any two puts that do not know of one
another. A put without a condition is not held up by those that have one. Who needs more takes a table with leaders.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple, cast

from merganser.core import causality, contents, preconditions
from merganser.core.siblings import Sibling
from merganser.model.cluster import Table
from merganser.model.consistency import ReadLevel, WriteLevel, name_of, parse_levels
from merganser.model.contents import Condition, Content
from merganser.model.errors import (
    MerganserError,
    PeerLostError,
    PeerUnreachableError,
    PreconditionFailedError,
    RefusedError,
    RequestError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.gossip import State
from merganser.model.ids import NodeId
from merganser.model.row import Context
from merganser.model.value_messages import PutValue, ValuePut
from merganser.net.transport import refusal_code
from merganser.service.asking import Asker, error_of, wrote_nothing
from merganser.service.replica import NO_SUCH_TABLE
from merganser.service.topology import Topology

MARGIN_S: Final = 0.05
"""Before the client's deadline, the replica has told how it ended."""
_FAILED: Final = refusal_code(PreconditionFailedError())
_WRONG: Final = refusal_code(RequestError())


class Change(NamedTuple):
    """A put, or a delete."""

    table: Table
    key: bytes
    content: Content | None
    """None: a delete."""
    context: bytes
    expires_at_s: int | None
    level: WriteLevel
    deadline: float


class ConditionalPuts:
    """This node's part in them; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        *,
        read: Callable[[Table, bytes, ReadLevel, float], Awaitable[tuple[list[Sibling], Context]]],
        put: Callable[[Change], Awaitable[bytes]],
    ) -> None:
        """See to those of the keys that this node is the first replica of.

        Args:
            topology: who holds what.
            asker: asks the replicas.
            read: a key as it is at a level.
            put: without a condition.
        """
        self._topology = topology
        self._asker = asker
        self._read = read
        self._do = put
        self._turns: dict[bytes, _Turn] = {}
        self._loop = asyncio.get_running_loop()

    async def put(self, change: Change, condition: Condition, read_level: ReadLevel) -> bytes:
        """Do ``change`` if ``condition`` holds; returns the context to put with next.

        Raises:
            PreconditionFailedError: it does not; nothing was written.
            MerganserError: as of a put without one.
        """
        for node in self._topology.replicas(change.table, change.key):
            if node == self._asker.node:
                break
            if self._asker.doubted.get(node) is State.DEAD or not self._asker.is_responsive(node):
                continue
            try:
                return await self._hand_on(node, change, condition, read_level)
            except PeerUnreachableError:  # nothing was sent
                continue
        return await self._decide(change, condition, read_level)

    async def answer(self, _sender: NodeId, request: PutValue) -> ValuePut:
        """Do what another node's client asks for.

        Raises:
            as `put`; RefusedError: there is no such table here.
        """
        table = self._topology.table(request.table)
        if table is None:
            raise RefusedError(NO_SUCH_TABLE, "no such table", map_epoch=self._topology.map.epoch)
        content = None if request.value is None else contents.unpacked(request.kind, request.value)
        try:
            level, read_level = parse_levels(request.level).write, parse_levels(request.read_level).read
            condition = Condition(request.condition)
        except ValueError as error:
            raise RequestError(str(error)) from None
        if level is None or read_level is None:
            raise RequestError(f"levels {request.level!r} and {request.read_level!r}")
        change = Change(
            table,
            request.key,
            content,
            request.context,
            request.expires_at_s,
            level,
            self._loop.time() + request.timeout_ms / 1000,
        )
        return ValuePut(await self._decide(change, condition, read_level))

    async def _decide(self, change: Change, condition: Condition, read_level: ReadLevel) -> bytes:
        async with self._turn(change.key, change.deadline):
            values, current = await self._read(change.table, change.key, read_level, change.deadline)
            objection = preconditions.objection(
                condition,
                values=values,
                current=current,
                seen=causality.decode(change.key, change.context),
                is_causal=change.table.is_causal,
            )
            if objection:
                raise PreconditionFailedError(f"{objection}: read the key again and decide anew; nothing was written")
            return await self._do(change)

    async def _hand_on(self, node: NodeId, change: Change, condition: Condition, read_level: ReadLevel) -> bytes:
        """Have ``node`` do it.

        Raises:
            PeerUnreachableError: nothing was sent.
        """
        timeout_s = change.deadline - self._loop.time()
        kind, value = (contents.PLAIN, None) if change.content is None else contents.packed(change.content)
        request = PutValue(
            self._topology.map.epoch,
            change.table.id,
            change.key,
            kind,
            value,
            change.context,
            change.expires_at_s,
            condition.value,
            name_of(change.level),
            name_of(read_level),
            max(1, int((timeout_s - MARGIN_S) * 1000)),
        )
        answer = self._asker.ask(node, request, timeout_s=timeout_s)
        await asyncio.wait({answer})
        error = error_of(answer)
        if error is None:
            return cast("ValuePut", answer.result()).context
        if isinstance(error, PeerUnreachableError):
            raise error
        if isinstance(error, PeerLostError):
            self._asker.note_silence(node)
        raise _told(node, error)

    @contextlib.asynccontextmanager
    async def _turn(self, key: bytes, deadline: float) -> AsyncIterator[None]:
        """Be the only one that decides about ``key`` on this node.

        Raises:
            UnavailableError: others still are by ``deadline``.
        """
        turn = self._turns.setdefault(key, _Turn())
        turn.waiting += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await turn.lock.acquire()
            except TimeoutError:
                raise UnavailableError("other puts of the key that depend on something are under way") from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[key]


class _Turn:
    """Who decides about one key, and how many want to."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def _told(node: NodeId, error: BaseException) -> MerganserError:
    """Return what a put comes to whose replica failed with ``error``."""
    if isinstance(error, RefusedError):
        if error.code == _FAILED:
            return PreconditionFailedError(str(error))
        if error.code == _WRONG:
            return RequestError(str(error))
    if wrote_nothing(error):
        return UnavailableError(f"{node} sees to such puts of the key: {error}")
    return UnknownOutcomeError(f"{node} sees to such puts of the key: {error}")
