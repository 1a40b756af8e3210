"""One process of the load generator: reads its `Work` from standard input, writes `Done` to standard output.

Closed loop: each connection sends its next request when the last one was answered.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from merganser.bench.connection import Connection
from merganser.bench.histogram import Histogram
from merganser.bench.requests import Credentials, Signer


class Work(msgspec.Struct, frozen=True):
    """What one process does."""

    endpoint: str
    table: str
    first_item: int
    items: int
    """The process loads this share of the items and reads and writes within all of ``items_total``."""
    items_total: int
    item_bytes: int
    connections: int
    duration_s: float
    put_share: float
    is_consistent: bool
    seed: int


class Done(msgspec.Struct, frozen=True):
    """What came of it."""

    operations: int
    errors: int
    first_error: str
    seconds: float
    gets: dict[int, int]
    puts: dict[int, int]


class Load:
    """Connections of one process and what they measure."""

    def __init__(self, work: Work) -> None:
        """Prepare; `run` connects."""
        self._work = work
        self._url = urlsplit(work.endpoint)
        self._signer = Signer(self._url.netloc, Credentials())
        self._rng = random.Random(work.seed)
        self._payload = "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=work.item_bytes))
        self._errors = 0
        self._first_error = ""

    async def load(self) -> None:
        """Put this process's share of the items."""
        pending = iter(range(self._work.first_item, self._work.first_item + self._work.items))

        async def put_next(connection: Connection) -> None:
            for item in pending:
                await self._ask(connection, "PutItem", self._put(item))

        await self._on_all_connections(put_next)
        if self._errors:
            raise ConnectionError(f"{self._errors} puts failed while loading: {self._first_error}")

    async def measure(self) -> Done:
        """Read and write at random for the given time."""
        gets, puts = Histogram(), Histogram()
        end = time.perf_counter() + self._work.duration_s

        async def drive(connection: Connection) -> None:
            while (began := time.perf_counter()) < end:
                item = self._rng.randrange(self._work.items_total)
                is_put = self._rng.random() < self._work.put_share
                operation, body = ("PutItem", self._put(item)) if is_put else ("GetItem", self._get(item))
                await self._ask(connection, operation, body)
                (puts if is_put else gets).record((time.perf_counter() - began) * 1e6)

        began = time.perf_counter()
        await self._on_all_connections(drive)
        seconds = time.perf_counter() - began
        operations = gets.total + puts.total
        return Done(operations, self._errors, self._first_error, seconds, dict(gets.counts), dict(puts.counts))

    async def _on_all_connections(self, drive: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        host, port = self._url.hostname or "", self._url.port or 80
        connections = [(await loop.create_connection(Connection, host, port))[1] for _ in range(self._work.connections)]
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(drive(connection))
        finally:
            for connection in connections:
                connection.close()

    async def _ask(self, connection: Connection, operation: str, body: bytes) -> None:
        status, answer = await connection.ask(self._signer.request(operation, body))
        if status != 200:
            self._errors += 1
            self._first_error = self._first_error or f"{operation}: {status} {answer[:200].decode(errors='replace')}"

    def _put(self, item: int) -> bytes:
        return (
            f'{{"TableName":"{self._work.table}","Item":{{"pk":{{"S":"item-{item}"}},"data":{{"S":"{self._payload}"}}}}}}'
        ).encode()

    def _get(self, item: int) -> bytes:
        consistent = "true" if self._work.is_consistent else "false"
        return (
            f'{{"TableName":"{self._work.table}","Key":{{"pk":{{"S":"item-{item}"}}}},"ConsistentRead":{consistent}}}'
        ).encode()


async def _run(work: Work, *, is_loading: bool) -> Done | None:
    load = Load(work)
    if is_loading:
        await load.load()
        return None
    return await load.measure()


def main() -> None:
    """Do the work on standard input; ``load`` as the argument loads, anything else measures."""
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=Work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done = runner.run(_run(work, is_loading=sys.argv[1:] == ["load"]))
    sys.stdout.buffer.write(msgspec.json.encode(done))


if __name__ == "__main__":
    main()
