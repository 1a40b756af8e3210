"""The engine in memory, for tests, for the simulator and for clusters that may forget.

Without a ``sync`` every commit is durable at once. With one, durability is as real as the injected
``sync`` makes it: group commit runs over it, and `power_cut` takes back what no finished sync covered,
except as many whole batches as the caller lets survive, as a disk may. For that each batch that is not
durable yet keeps what it overwrote; nothing is copied per sync.

With ``log_batches_max`` the newest durable batches stay in a log that `cut_log` can shorten, as damage to the log
of a real disk does: what is gone then was promised, and the engine says so (`lost`). `rot` flips a bit at rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from sortedcontainers import SortedDict

from merganser.model.errors import InvariantError
from merganser.storage.engine import Batch
from merganser.storage.group_commit import GroupCommit

_Undo = list[tuple[bytes, bytes | None]]
"""What each changed key held before, None for nothing, in the order of the changes."""


class MemoryEngine:
    """An `Engine` over a sorted dictionary."""

    def __init__(
        self,
        *,
        sync: Callable[[], Awaitable[None]] | None = None,
        space: Callable[[], str | None] | None = None,
        log_batches_max: int = 0,
    ) -> None:
        """Start empty.

        Args:
            sync: what an fsync costs, and whether it fails: an exception fails the engine. None:
                commits are durable at once.
            space: asked before each commit, raises when the disk is full, which fails the engine; returns why rows
                are to be refused already, None if there is room.
            log_batches_max: how many durable batches `cut_log` can reach; only with ``sync``.
        """
        self._rows: SortedDict[bytes, bytes] = SortedDict()
        self._sync = sync
        self._group = GroupCommit(sync or _already_durable)
        self._undo: deque[_Undo] = deque()
        self._space = space or _plenty
        self._log: deque[tuple[_Undo, bool]] = deque(maxlen=log_batches_max)  # the flag: it was synced
        self._lost: str | None = None
        self._changes = 0

    @property
    def failure(self) -> str | None:
        """Why the engine takes no more writes; None while it is well."""
        return self._group.failure

    @property
    def lost(self) -> str | None:
        """What was durable and is gone, in words; None while nothing is known to be missing."""
        return self._lost

    async def mark_lost(self, what: str) -> None:
        """Say `lost` from now on, in later lives too."""
        self._lost = what

    async def made_whole(self) -> None:
        """Forget what was `lost`: it has been brought back, or its loss was accepted."""
        self._lost = None

    @property
    def shortage(self) -> str | None:
        """Why no more rows should be written just now; None while there is room."""
        try:
            return self._space()
        except OSError as error:
            return str(error)

    @property
    def unsynced_batches(self) -> int:
        """How many batches `power_cut` could take back."""
        return self._group.committed - self._group.synced

    @property
    def synced_batches(self) -> int:
        """How many have become durable since the last power cut."""
        return self._group.synced

    def get(self, key: bytes) -> bytes | None:
        """Return the newest committed value, durable or not."""
        return self._rows.get(key)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``start <= key < end`` in ascending order of bytes (descending if ``reverse``).

        Raises:
            InvariantError: the caller held the iterator over a commit.
        """
        if start >= end:
            return
        rows, changes = self._rows, self._changes
        for key in rows.irange(start, end, inclusive=(True, False), reverse=reverse):
            yield key, rows[key]
            if self._changes != changes:
                raise InvariantError("a scan was held over a commit: take what it yields, then commit")

    def commit(self, batch: Batch) -> None:
        """Apply ``batch`` whole; visible at once, durable after `durable`.

        Raises:
            StorageFailedError: nothing of the batch was applied.
        """
        if self._sync is None:
            self._group.check()
            self._apply(batch)
            return
        self._check_space()
        self._group.note(batch)
        self._undo.append(self._apply(batch))
        self._forget_synced()

    def is_durable(self, key: bytes) -> bool:
        """Tell whether the newest committed value of ``key`` would survive `power_cut`."""
        return self._group.is_durable(key)

    def is_range_durable(self, start: bytes, end: bytes) -> bool:
        """Tell whether all of ``start <= key < end``, as it reads now, would survive `power_cut`."""
        return self._group.is_range_durable(start, end)

    @property
    def is_all_durable(self) -> bool:
        """Tell whether everything committed would survive `power_cut`."""
        return self._group.is_all_durable

    async def durable(self) -> None:
        """Return once everything committed before the call would survive `power_cut`.

        Raises:
            StorageFailedError: it is unknown whether it would.
        """
        await self._group.durable()

    def power_cut(self, keep: int) -> None:
        """Become what a machine finds on its disk after a power cut; its failure, if any, is over.

        Whoever waits for `durable` is told `StorageFailedError`.

        Args:
            keep: how many of the batches that were not durable survive, the oldest first.
        """
        assert keep >= 0
        self._forget_synced()
        while len(self._undo) > keep:
            self._take_back(self._undo.pop())
        self._log.extend((undo, False) for undo in self._undo)
        self._undo.clear()
        self._changes += 1
        self._group.stop("the power was cut")
        self._group = GroupCommit(self._sync or _already_durable)

    def cut_log(self, batches: int) -> None:
        """Lose the newest ``batches`` of the log, durable ones too; `lost` says so. For an engine that nobody uses.

        Raises:
            InvariantError: something is not durable yet: cut the power first.
        """
        if self._undo:
            raise InvariantError("the log of a machine that runs is not cut: cut its power first")
        synced = 0
        for _ in range(min(batches, len(self._log))):
            undo, was_synced = self._log.pop()
            self._take_back(undo)
            synced += was_synced
        if synced and self._lost is None:
            self._lost = f"the log was cut: {synced} batches that were synced are gone"
        self._changes += 1

    def rot(self, key: bytes, *, bit: int) -> None:
        """Flip a bit of the value at rest under ``key``, without a word to anyone.

        Args:
            key: holds a value that is not empty.
            bit: counted from the first byte; beyond the end it wraps around.
        """
        value = bytearray(self._rows[key])
        value[bit // 8 % len(value)] ^= 1 << bit % 8
        self._rows[key] = bytes(value)

    def image(self) -> dict[bytes, bytes]:
        """Return a copy of what has reached the disk for sure, as if every unsynced batch were lost."""
        self._forget_synced()
        image = dict(self._rows)
        for undo in reversed(self._undo):
            for key, before in reversed(undo):
                if before is None:
                    image.pop(key, None)
                else:
                    image[key] = before
        return image

    def restore(self, image: dict[bytes, bytes]) -> None:
        """Hold exactly what ``image`` held, durably; nobody waits for `durable`."""
        assert self.is_all_durable
        self._rows = SortedDict(image)
        self._undo.clear()
        self._log.clear()
        self._lost = None
        self._changes += 1

    async def erase(self, start: bytes, end: bytes) -> None:
        """Wait for nothing: what is deleted is gone."""

    def close(self) -> None:
        """Take no more writes."""
        self._group.stop("the engine is closed")

    def _check_space(self) -> None:
        self._group.check()
        try:
            self._space()
        except OSError as error:
            self._group.fail(f"write failed, restart the node once the disk is well: {error}")
            self._group.check()

    def _apply(self, batch: Batch) -> _Undo:
        undo: _Undo = []
        self._changes += 1
        for operation in batch.operations:
            if len(operation) == 2:
                key, value = operation
                undo.append((key, self._rows.get(key)))
                self._set(key, value)
            else:
                undo += self._delete_range(operation[0], operation[1])
        return undo

    def _delete_range(self, start: bytes, end: bytes) -> _Undo:
        doomed = list(self._rows.irange(start, end, inclusive=(True, False))) if start < end else []
        return [(key, self._rows.pop(key)) for key in doomed]

    def _take_back(self, undo: _Undo) -> None:
        for key, before in reversed(undo):
            self._set(key, before)

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value

    def _forget_synced(self) -> None:
        while len(self._undo) > self.unsynced_batches:
            self._log.append((self._undo.popleft(), True))


async def _already_durable() -> None:
    """Stand for a disk that is never behind."""


def _plenty() -> None:
    """Stand for a disk that never fills."""
