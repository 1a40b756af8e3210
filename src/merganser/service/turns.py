"""Let a few at a time do something, or one for each key; the others wait for their turn, until their deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from merganser.model.errors import UnavailableError


class Turns:
    """A bounded number of turns."""

    def __init__(self, what: str, most: int) -> None:
        """Give ``most`` turns at once to what errors call ``what``."""
        self._what = what
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._loop = asyncio.get_running_loop()

    @contextlib.asynccontextmanager
    async def one(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn, and give it back at the end.

        Raises:
            UnavailableError: none was free by ``deadline`` (loop time).
        """
        if self._free.locked():
            await self._wait(deadline)
        else:
            await self._free.acquire()
        try:
            yield
        finally:  # in the next turn of the loop: what need not wait would keep the loop busy one after the other
            self._loop.call_soon(self._free.release)

    async def _wait(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            raise UnavailableError(f"{self._most} {self._what} are under way through this node, try again") from None


class KeyedTurns:
    """One turn for each key."""

    def __init__(self, what: str) -> None:
        """Give turns to what errors call ``what``."""
        self._what = what
        self._turns: dict[bytes, _Turn] = {}

    @contextlib.asynccontextmanager
    async def one(self, key: bytes, deadline: float) -> AsyncIterator[None]:
        """Wait for the turn of ``key``, and give it back at the end.

        Raises:
            UnavailableError: others still had it by ``deadline`` (loop time).
        """
        turn = self._turns.setdefault(key, _Turn())
        turn.waiting += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await turn.lock.acquire()
            except TimeoutError:
                raise UnavailableError(
                    f"{self._what} of this key are under way through this node; nothing was written, try again"
                ) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[key]


class _Turn:
    """The turn of one key, and how many have it or want it."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
