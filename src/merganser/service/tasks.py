"""Tasks of one owner: an error of one is reported when it ends, and none outlives the owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """The tasks under way; see the module's docstring."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        """Have none; ``on_error`` is told of bugs."""
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[None], None] = {}
        """In the order in which they began, as it is in the simulator."""

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have ``work`` done by a task."""
        task = self._loop.create_task(work)
        self._under_way[task] = None
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel what is under way, and return when it has ended."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)
