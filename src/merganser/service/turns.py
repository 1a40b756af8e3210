"""Let a few at a time do what keeps the loop busy; the others wait for their turn, until their deadline."""

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
