"""Group commit: one fsync serves everyone who waits for one.

Each change is in exactly one of three places::

    open --round begins--> syncing --fsync returned--> durable
      ^                       |
      +---round cancelled-----+

A round takes all that is open, runs one fsync (in a thread, or in virtual time), and then wakes the
waiters it began with. While it runs, further commits gather in open and their writers wait for the
next round, which begins at once if there is anyone to wait for it. So a lone writer pays one fsync,
and a thousand writers share it.

Invariants:

- a waiter is woken only by a round that began after its commit, or that nothing was committed since;
- a waiter that is cancelled takes nothing from the others: each has its own future;
- after a failure nothing becomes durable that was not (whether it reached the disk is unknown, and a
  second fsync that succeeds would prove nothing: Rebello 2020, "Can Applications Recover from fsync
  Failures?", USENIX ATC), every waiter is told, and every later call raises.

Knows no clock and no threads; runs on any asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from merganser.model.errors import StorageFailedError
from merganser.storage.engine import Batch


class GroupCommit:
    """Who waits for which fsync, and which keys are not durable yet."""

    __slots__ = (
        "_current",
        "_next",
        "_on_failure",
        "_open",
        "_rounds",
        "_sync",
        "_syncing",
        "_target",
        "committed",
        "failure",
        "synced",
    )

    def __init__(self, sync: Callable[[], Awaitable[None]], *, on_failure: Callable[[str], None] | None = None) -> None:
        """Start with everything durable.

        Args:
            sync: brings to the disk all that was committed before it is called; anything it raises
                is a failed fsync. Never called twice at a time.
            on_failure: told, once, why nothing is taken any more; not of `stop`.
        """
        self._on_failure = on_failure
        self.failure: str | None = None
        """Why nothing is taken any more."""
        self.committed = 0
        """Batches noted."""
        self.synced = 0
        """How many of them, the oldest first, are durable."""
        self._sync = sync
        self._open = _Changes()
        self._syncing = _Changes()
        self._target = 0
        self._current: list[asyncio.Future[None]] | None = None
        self._next: list[asyncio.Future[None]] = []
        self._rounds: asyncio.Task[None] | None = None

    def note(self, batch: Batch) -> None:
        """Record that ``batch`` is about to be written; until a round has covered it, it is not durable.

        Raises:
            StorageFailedError: it must not be written.
        """
        if self.failure is not None:
            raise StorageFailedError(self.failure)
        self.committed += 1
        changes = self._open
        for operation in batch.operations:
            if len(operation) == 2:
                changes.keys.add(operation[0])
            else:
                changes.ranges.append(operation[:2])

    def check(self) -> None:
        """Raise the failure, if there was one.

        Raises:
            StorageFailedError: with the first failure's reason.
        """
        if self.failure is not None:
            raise StorageFailedError(self.failure)

    @property
    def is_all_durable(self) -> bool:
        """Tell whether nothing is waiting for an fsync."""
        return self.committed == self.synced

    def is_durable(self, key: bytes) -> bool:
        """Tell whether the newest change of ``key`` has been covered by a finished round."""
        return self.committed == self.synced or not (self._open.touches(key) or self._syncing.touches(key))

    def is_range_durable(self, start: bytes, end: bytes) -> bool:
        """Tell whether every change of ``start <= key < end`` has been covered by a finished round."""
        return self.committed == self.synced or not (
            self._open.touches_range(start, end) or self._syncing.touches_range(start, end)
        )

    async def durable(self) -> None:
        """Return once everything noted before the call is durable.

        Raises:
            StorageFailedError: it is unknown whether it is.
        """
        self.check()
        if self.committed == self.synced:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._current is not None and self._target == self.committed:
            self._current.append(waiter)
        else:
            self._next.append(waiter)
            if self._rounds is None:
                self._rounds = asyncio.create_task(self._run())
        await waiter

    def fail(self, reason: str) -> None:
        """Take nothing any more and tell all who wait; the first reason stays."""
        if self.failure is not None:
            return
        self._give_up(reason)
        if self._on_failure is not None:
            self._on_failure(reason)

    def stop(self, reason: str) -> None:
        """Take nothing any more, tell all who wait, and end the round in flight."""
        if self.failure is None:
            self._give_up(reason)
        if self._rounds is not None and not self._rounds.get_loop().is_closed():
            self._rounds.cancel()

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        for waiter in [*(self._current or ()), *self._next]:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_exception(StorageFailedError(reason))
                waiter.exception()  # a waiter whose task died with its node never asks, and that is no error

    async def _run(self) -> None:
        """Run rounds for as long as someone waits: the one task of a group commit."""
        try:
            while self._next and self.failure is None:
                await self._round()
        finally:
            self._rounds = None

    async def _round(self) -> None:
        waiters = self._begin()
        try:
            await self._sync()
        except asyncio.CancelledError:  # the loop ends, or `stop`
            self._abandon(waiters)
            raise
        except Exception as error:  # noqa: BLE001 - the root of a task; whatever it is, the fsync failed
            self.fail(f"fsync failed, restart the node once the disk is well: {error}")
        else:
            self._finish(waiters)

    def _begin(self) -> list[asyncio.Future[None]]:
        waiters, self._next = self._next, []
        self._current, self._target = waiters, self.committed
        self._syncing, self._open = self._open, _Changes()
        return waiters

    def _finish(self, waiters: list[asyncio.Future[None]]) -> None:
        self._current, self.synced = None, self._target
        self._syncing = _Changes()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _abandon(self, waiters: list[asyncio.Future[None]]) -> None:
        """Leave the changes of a cancelled round to the next one."""
        self._current = None
        self._syncing.extend(self._open)
        self._open, self._syncing = self._syncing, _Changes()
        for waiter in waiters + self._next:
            waiter.cancel()
        self._next.clear()


class _Changes:
    """Keys and ranges that batches touched."""

    __slots__ = ("keys", "ranges")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.ranges: list[tuple[bytes, bytes]] = []

    def extend(self, other: _Changes) -> None:
        self.keys |= other.keys
        self.ranges += other.ranges

    def touches(self, key: bytes) -> bool:
        return key in self.keys or (bool(self.ranges) and any(start <= key < end for start, end in self.ranges))

    def touches_range(self, start: bytes, end: bytes) -> bool:
        """Look at every change: there are some hundred between two rounds."""
        return any(start <= key < end for key in self.keys) or any(
            low < end and start < high for low, high in self.ranges
        )
