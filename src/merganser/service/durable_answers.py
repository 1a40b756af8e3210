"""Answers that leave once what they tell of is durable: all of a turn of the loop wait together.

    after(answer) --end of the turn--> one wait for the engine --> all are given, or all fail

Who waits for a write by itself costs a task and a future of the engine; most of what comes in a turn came together.
"""

from __future__ import annotations

import asyncio

from merganser.model.errors import StorageFailedError
from merganser.model.messages import Reply
from merganser.storage.engine import Engine


class DurableAnswers:
    """The answers of one node that wait for its engine."""

    def __init__(self, engine: Engine) -> None:
        """Wait for ``engine``."""
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._gathered: list[tuple[asyncio.Future[Reply], Reply]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def after(self, answer: Reply) -> asyncio.Future[Reply]:
        """Return the future of ``answer``, given when all that is committed by now is durable.

        It fails with a StorageFailedError if it is unknown whether that is.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._gathered.append((future, answer))
        if len(self._gathered) == 1:
            task = self._loop.create_task(self._give())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    def close(self) -> None:
        """Give no more answers."""
        for task in list(self._tasks):
            task.cancel()

    async def _give(self) -> None:
        gathered, self._gathered = self._gathered, []
        try:
            await self._engine.durable()
        except StorageFailedError as error:
            for future, _ in gathered:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # who has stopped listening need not hear of it
            return
        except asyncio.CancelledError:
            for future, _ in gathered:
                future.cancel()
            raise
        for future, answer in gathered:
            if not future.done():
                future.set_result(answer)
