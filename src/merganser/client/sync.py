"""The native client without asyncio: `SyncClient` runs a `Client` on an event loop in a thread of its own.

Any thread may use it, several at once. Merge and change functions are called on that thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from merganser.client.client import CONSISTENCY, DEFAULT_SEED, TIMEOUT_S, Client, Data, OnlyIf, ValueTable
from merganser.client.errors import ClosedError
from merganser.client.values import Change, Merge, Values
from merganser.model.cluster import Conflicts

T = TypeVar("T")


class SyncClient:
    """A cluster, as its clients see it; a context manager. Arguments and errors are those of `Client`."""

    def __init__(
        self,
        seeds: str | Sequence[str] = DEFAULT_SEED,
        *,
        timeout_s: float = TIMEOUT_S,
        consistency: str = CONSISTENCY,
        merge: Merge | None = None,
        name: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a client; see `Client`."""
        self._client = Client(seeds, timeout_s=timeout_s, consistency=consistency, merge=merge, name=name, tls=tls)
        self._runner: _Runner | None = None

    def open(self) -> Self:
        """Find the cluster; see `Client.open`."""
        if self._runner is None:
            runner = _Runner()
            try:
                runner.run(self._client.open)
            except BaseException:
                runner.close()
                raise
            self._runner = runner
        return self

    def close(self) -> None:
        """Fail what is under way, and close all connections; nothing is left running."""
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                runner.run(self._client.close)
            finally:
                runner.close()

    def __enter__(self) -> Self:
        """Open."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def table(self, name: str, *, merge: Merge | None = None, consistency: str | None = None) -> SyncValueTable:
        """Return a key-value table to work with; see `Client.table`."""
        return SyncValueTable(self, self._client.table(name, merge=merge, consistency=consistency))

    def create_table(
        self,
        name: str,
        *,
        n: int = 3,
        conflicts: Conflicts = "siblings",
        if_absent: bool = False,
        timeout_s: float | None = None,
        merge: Merge | None = None,
    ) -> SyncValueTable:
        """Make a key-value table; see `Client.create_table`."""
        made = self.run(
            lambda: self._client.create_table(
                name, n=n, conflicts=conflicts, if_absent=if_absent, timeout_s=timeout_s, merge=merge
            )
        )
        return SyncValueTable(self, made)

    def drop_table(self, name: str, *, timeout_s: float | None = None) -> None:
        """Drop a key-value table; see `Client.drop_table`."""
        self.run(lambda: self._client.drop_table(name, timeout_s=timeout_s))

    def tables(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the names of all key-value tables; see `Client.tables`."""
        return self.run(lambda: self._client.tables(timeout_s=timeout_s))

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what ``work`` comes to on the thread of the client."""
        if self._runner is None:
            raise ClosedError("the client is not open: open() it, or use it in a with statement")
        return self._runner.run(work)


class SyncValueTable:
    """A key-value table; made by `SyncClient.table`. Arguments and errors are those of `ValueTable`."""

    def __init__(self, client: SyncClient, table: ValueTable) -> None:
        """Be ``table``."""
        self.name = table.name
        self._client = client
        self._table = table

    def get(self, key: Data, *, consistency: str | None = None, timeout_s: float | None = None) -> Values:
        """Return the values of a key, and the context to replace them with; see `ValueTable.get`."""
        return self._client.run(lambda: self._table.get(key, consistency=consistency, timeout_s=timeout_s))

    def put(
        self,
        key: Data,
        value: Data,
        *,
        context: bytes | None = None,
        ttl_s: int | None = None,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[tuple[str, int | bytes]] = (),
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Put a value in the place of what was seen; see `ValueTable.put`."""
        return self._client.run(
            lambda: self._table.put(
                key,
                value,
                context=context,
                ttl_s=ttl_s,
                content_type=content_type,
                metadata=metadata,
                tags=tags,
                only_if=only_if,
                consistency=consistency,
                timeout_s=timeout_s,
            )
        )

    def delete(
        self,
        key: Data,
        *,
        context: bytes | None = None,
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Delete what was seen; see `ValueTable.delete`."""
        return self._client.run(
            lambda: self._table.delete(
                key, context=context, only_if=only_if, consistency=consistency, timeout_s=timeout_s
            )
        )

    def update(
        self,
        key: Data,
        change: Change,
        *,
        ttl_s: int | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes | None:
        """Read, change, and put; see `ValueTable.update`."""
        return self._client.run(
            lambda: self._table.update(key, change, ttl_s=ttl_s, consistency=consistency, timeout_s=timeout_s)
        )

    def keys(self, *, consistency: str | None = None, timeout_s: float | None = None) -> Iterator[bytes]:
        """Yield every key that can be read; see `ValueTable.keys`."""
        found = self._table.keys(consistency=consistency, timeout_s=timeout_s)
        try:
            while (key := self._client.run(lambda: _next(found))) is not None:
                yield key
        finally:
            self._client.run(lambda: _close(found))


class _Runner:
    """A thread with an event loop; it lives until `close`, or until the process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="merganser client", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if threading.current_thread() is self._thread:
            raise ClosedError("merge and change functions cannot use the client that calls them")
        running: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return running.result()
        except BaseException:  # KeyboardInterrupt in this thread: nobody wants the answer any more
            running.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(found: AsyncIterator[bytes]) -> bytes | None:
    return await anext(found, None)


async def _close(found: Any) -> None:
    await found.aclose()
