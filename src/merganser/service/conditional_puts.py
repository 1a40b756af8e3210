"""Puts and deletes that depend on what is there: none match, not modified.

Each key has one replica that sees to them: the first of its preference list that can be reached and is not believed
dead, however slow it is. It lets them in one after another, reads the key at the level that the client asked for, and
writes if the condition holds::

    client --put if--> any node --PutValue--> first replica of the key: waits for its turn of the key
                                              reads R replicas, decides (`core.preconditions`), writes
           <--context, or: precondition failed--

What that is worth: of several such puts that depend on the same state, one is done, as long as all coordinators agree
on who is there, and R + W > N. Across a partition, or while a node only seems to be away, two replicas may let one in
each. Then both are done: they stand side by side, or the later one wins, as of any two puts that do not know of one
another. A put without a condition is not held up by those that have one. Who needs more takes a table with leaders.

A request that the network delivers twice is done once, and answered alike: else the second would find what the first
has written, and if its answer came first, a client would be told that nothing was written of a put that was done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, cast

from merganser.core import causality, contents, preconditions
from merganser.core.once import Once
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
from merganser.service.turns import KeyedTurns

KEEP_S: Final = 60.0
"""That a request is known again: more than a message is on its way."""
REQUESTS_MAX: Final = 20_000
"""That are known: so many conditional puts a minute, that others hand on to this node, are taken."""
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
        rng: random.Random,
    ) -> None:
        """See to those of the keys that this node is the first replica of.

        Args:
            topology: who holds what.
            asker: asks the replicas.
            read: a key as it is at a level.
            put: without a condition.
            rng: draws the names of requests.
        """
        self._topology = topology
        self._asker = asker
        self._read = read
        self._do = put
        self._rng = rng
        self._once: Once[asyncio.Future[bytes]] = Once(keep_s=KEEP_S, most=REQUESTS_MAX)
        self._turns = KeyedTurns("other puts on condition")
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
            if self._asker.doubted.get(node) is State.DEAD or not self._asker.is_reachable(node):
                continue  # one that is only slow decides: others would let in what it has let in already
            try:
                return await self._hand_on(node, change, condition, read_level)
            except PeerUnreachableError:  # nothing was sent
                continue
        return await self._decide(change, condition, read_level)

    async def answer(self, _sender: NodeId, request: PutValue) -> ValuePut:
        """Do what another node's client asks for.

        Raises:
            as `put`; RefusedError: there is no such table here.
            UnavailableError: too many came within a minute.
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
        return ValuePut(await self._decide_once(request.request, change, condition, read_level))

    async def _decide_once(self, request: bytes, change: Change, condition: Condition, read_level: ReadLevel) -> bytes:
        if not request:
            return await self._decide(change, condition, read_level)
        known = self._once.of(request)
        if known is not None:
            return await _as_it_ends(known, change.deadline)
        if self._once.is_full(self._loop.time()):
            raise UnavailableError(
                f"more than {REQUESTS_MAX:,} such puts were handed on to this node within {KEEP_S:g} s, try again"
            )
        ended: asyncio.Future[bytes] = self._loop.create_future()
        self._once.note(request, ended, self._loop.time())
        try:
            context = await self._decide(change, condition, read_level)
        except MerganserError as error:
            _end(ended, error)
            raise
        except BaseException:  # this node stops, or has a bug
            _end(ended, UnknownOutcomeError("the same request, which came before, did not come to its end"))
            raise
        ended.set_result(context)
        return context

    async def _decide(self, change: Change, condition: Condition, read_level: ReadLevel) -> bytes:
        async with self._turns.one(change.key, change.deadline):
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
            self._rng.randbytes(16),
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


async def _as_it_ends(known: asyncio.Future[bytes], deadline: float) -> bytes:
    """Return, or raise, what the request comes to that came before."""
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(known)
    except TimeoutError:
        raise UnknownOutcomeError("the same request, which came before, has not ended in time") from None


def _end(ended: asyncio.Future[bytes], error: MerganserError) -> None:
    ended.set_exception(error)
    ended.exception()  # perhaps nobody asks again: it is not lost for that


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
