"""Under which ids a client counts, so that each update is made once, however often it has to be sent.

An id is a session that a node has opened for the client, and the number of the update among those of its key
(`core.crdt.counters`). The client has one session for all keys, and numbers each key from 1 on::

    the session, from a node --first update of a key--> number 1 --made--> number 2 --made--> ...
                                                           |
                                            its outcome is unknown: this key goes on, from 1, in the next session

Under a number whose outcome is unknown nothing else is ever sent: it would be taken for made, and be lost.

Invariants: of one key, updates go one after another; a key never begins anew in a session that it has been in, nor
does one that this client has forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from merganser.client.calls import PAGE_PATIENCE_S, Calls
from merganser.model import crdt
from merganser.model.client_messages import AskSession, SessionIs
from merganser.model.crdt import OperationId
from merganser.model.errors import RequestError, SessionError, UnavailableError

LIFE_S: Final = 3600
"""Of a session: what it leaves behind in a key is folded after that."""
RENEW_S: Final = 1800.0
"""A session is left that old, by the client's clock: long before its end by the nodes', which may differ by 10 s."""
KEYS_MAX: Final = 16_384

T = TypeVar("T")


class Counting:
    """See the module's docstring; belongs to one client, and its event loop."""

    def __init__(self, calls: Calls) -> None:
        """Open sessions by ``calls``, the first when something is counted."""
        self._calls = calls
        self._current: _Opened | None = None
        self._opening = asyncio.Lock()
        self._chains: dict[tuple[str, bytes], _Chain] = {}

    async def once(self, table: str, key: bytes, send: Callable[[OperationId], Awaitable[T]], *, deadline: float) -> T:
        """Return what ``send`` comes to, which sends an update of ``key`` under the id that it is handed.

        Raises:
            UnavailableError: others count at this key by ``deadline``, or no node opens a session; nothing was written.
            and as ``send``.
        """
        chain = self._chain(table, key)
        async with _turn(chain, deadline):
            if chain.opened is not None and chain.opened.is_fresh():
                try:
                    return await _numbered(chain, send)
                except SessionError:  # the table is another one of the same name, or was restored; or a clock is off
                    pass
            await self._begin(chain, table, deadline)
            return await _numbered(chain, send)

    def _chain(self, table: str, key: bytes) -> _Chain:
        chain = self._chains.get((table, key))
        if chain is None:
            if len(self._chains) >= KEYS_MAX:
                self._forget()
            chain = self._chains[table, key] = _Chain()
        return chain

    def _forget(self) -> None:
        """Forget all keys that nobody counts at: they may come back, and so must not find the session they were in."""
        self._chains = {place: chain for place, chain in self._chains.items() if chain.waiting}
        self._current = None

    async def _begin(self, chain: _Chain, table: str, deadline: float) -> None:
        """Have ``chain`` begin in a session that it has not been in."""
        async with _locked(self._opening, deadline, "no node has opened a session"):
            current = self._current
            if current is None or current is chain.last or not current.is_fresh():
                current = self._current = await self._open(table, deadline)
        chain.opened = chain.last = current
        chain.made = 0

    async def _open(self, table: str, deadline: float) -> _Opened:
        began_s = asyncio.get_running_loop().time()
        told = await self._calls.read(
            table,
            None,
            lambda within_ms: AskSession(table, LIFE_S, within_ms),
            deadline=deadline,
            kind=SessionIs,
            patience_s=PAGE_PATIENCE_S,
        )
        return _Opened(told.session, began_s)


class _Opened:
    """A session."""

    __slots__ = ("began_s", "session")

    def __init__(self, session: crdt.Session, began_s: float) -> None:
        self.session = session
        self.began_s = began_s

    def is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() < self.began_s + RENEW_S


class _Chain:
    """The updates of one key."""

    __slots__ = ("last", "lock", "made", "opened", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.opened: _Opened | None = None
        """None: the next update begins anew, in another session than ``last``."""
        self.last: _Opened | None = None
        self.made = 0
        """How many it has made in its session."""


async def _numbered(chain: _Chain, send: Callable[[OperationId], Awaitable[T]]) -> T:
    """Send under the next number of ``chain``, which is free again if nothing was written."""
    assert chain.opened is not None
    try:
        sent = await send(OperationId(chain.opened.session, chain.made + 1))
    except (UnavailableError, RequestError):
        raise
    except BaseException:
        chain.opened = None
        raise
    chain.made += 1
    return sent


@contextlib.asynccontextmanager
async def _turn(chain: _Chain, deadline: float) -> AsyncIterator[None]:
    chain.waiting += 1
    try:
        async with _locked(chain.lock, deadline, "this client has too much to count at the key"):
            yield
    finally:
        chain.waiting -= 1


@contextlib.asynccontextmanager
async def _locked(lock: asyncio.Lock, deadline: float, else_why: str) -> AsyncIterator[None]:
    """Hold ``lock``; raises an UnavailableError if others do by ``deadline``."""
    try:
        async with asyncio.timeout_at(deadline):
            await lock.acquire()
    except TimeoutError:
        raise UnavailableError(f"{else_why} in time; nothing was written") from None
    try:
        yield
    finally:
        lock.release()
