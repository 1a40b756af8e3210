"""A thread that does one job after another for an event loop.

`ThreadPoolExecutor` with one worker does the same, and costs 25 µs of CPU more for each job, on a path that every write
takes: its locks and futures are Python, which the thread runs while the loop waits for the interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable


class WorkerThread:
    """Jobs are done in the order in which they were given."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], None]) -> asyncio.Future[None]:
        """Have ``job`` done; the future, of the running loop, ends and fails as it does.

        A job that is given up, because the future is cancelled, is done all the same.

        Raises:
            RuntimeError: closed.
        """
        if self._is_closed:
            raise RuntimeError(f"{self._thread.name} is closed")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, ended))
        return ended

    def close(self) -> None:
        """Return when all that was given is done, and the thread has ended."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, ended = given
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # noqa: BLE001 - it belongs to whoever gave the job
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                ended.get_loop().call_soon_threadsafe(_end, ended, error)


def _end(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
