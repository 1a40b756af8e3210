"""What Merganser asks of a storage engine.

An engine is an ordered map from bytes to bytes. `commit` makes a batch visible at once, whole or not
at all; `durable` waits until everything committed before the call would survive a power cut. All
waiting callers share one fsync (group commit), so a writer commits, then waits, and only then acks::

    engine.commit(batch)
    await engine.durable()

Whatever reveals a write that is not durable yet must wait as well (`is_durable`, `durable`).

After a failed write or fsync the engine stays failed: `commit` and `durable` raise
`StorageFailedError` until the process starts again, reads go on (design: fail-stop for writes). While the disk is
merely short of room (`shortage`) the engine still commits: its users refuse rows, and keep what they need to go on.

An engine that opens with less than it had synced says so (`lost`), in this life and in every later one, until
`made_whole`. It is whoever uses it that must not serve meanwhile (`service.wholeness`).

All methods are called on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Batch:
    """Changes that become visible and durable together, applied in the order they were added."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        """Start with no changes."""
        self.operations: list[tuple[bytes, bytes | None] | tuple[bytes, bytes, None]] = []
        """(key, value) puts, (key, None) deletes, (start, end, None) deletes ``start <= key < end``."""

    def put(self, key: bytes, value: bytes) -> Batch:
        """Set ``key`` to ``value``."""
        self.operations.append((key, value))
        return self

    def delete(self, key: bytes) -> Batch:
        """Remove ``key`` if it is there."""
        self.operations.append((key, None))
        return self

    def delete_range(self, start: bytes, end: bytes) -> Batch:
        """Remove every key of ``start <= key < end``."""
        self.operations.append((start, end, None))
        return self


class Readable(Protocol):
    """What of an engine can be read, and a checkpoint of one."""

    def get(self, key: bytes) -> bytes | None:
        """Return the newest committed value, durable or not.

        Raises:
            CorruptionError: the engine found its own block damaged.
        """

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``start <= key < end`` in ascending order of bytes (descending if ``reverse``).

        The caller takes what it wants before its next await or commit; it does not hold the iterator
        over one.

        Raises:
            CorruptionError: while iterating, when the engine met a damaged block; never a short scan.
        """


class Engine(Readable, Protocol):
    """An ordered map from bytes to bytes with group commit; see the module's docstring."""

    @property
    def failure(self) -> str | None:
        """Why the engine takes no more writes; None while it is well."""

    @property
    def lost(self) -> str | None:
        """What was durable and is gone, in words; None while nothing is known to be missing."""

    async def mark_lost(self, what: str) -> None:
        """Say `lost` from now on, in later lives too; durable on return.

        Raises:
            StorageFailedError: it could not be kept, or it is unknown whether it was.
        """

    async def made_whole(self) -> None:
        """Forget what was `lost`: it has been brought back, or its loss was accepted; durable on return.

        Raises:
            StorageFailedError: it is unknown whether it is forgotten.
        """

    @property
    def shortage(self) -> str | None:
        """Why no more rows should be written just now, in words; None while there is room."""

    def commit(self, batch: Batch) -> None:
        """Apply ``batch`` whole; visible at once, durable after `durable`.

        Raises:
            StorageFailedError: nothing of the batch was applied, or it is unknown whether it was.
        """

    def is_durable(self, key: bytes) -> bool:
        """Tell whether the newest committed value of ``key`` has reached the disk."""

    def is_range_durable(self, start: bytes, end: bytes) -> bool:
        """Tell whether all of ``start <= key < end``, as it reads now, has reached the disk."""

    @property
    def is_all_durable(self) -> bool:
        """Tell whether everything committed has reached the disk."""

    async def durable(self) -> None:
        """Return once everything committed before the call has reached the disk.

        Raises:
            StorageFailedError: it is unknown whether it did.
        """

    async def erase(self, start: bytes, end: bytes) -> None:
        """Return once nothing that was deleted of ``start <= key < end`` is in any file; that may take long.

        Raises:
            StorageFailedError: it may be there.
        """

    def close(self) -> None:
        """Release the directory; what was committed and not durable may be lost."""
