"""One process of the load generator: talks in lines of JSON with `runner`, over its standard streams.

::

    runner                    worker
    Work          ---------->            connects
                  <----------  Ready     and works, uncounted: caches fill, connections settle
    Window        ---------->            counts what is answered within it
                  <----------  Done      after the end of the window

Every worker counts over the same window, in which the runner takes the servers' CPU time as well: what
one worker does while another still starts is in none of the figures. Loading has no window and ends with
Done at once. A worker that fails says Failed instead of its next word.

Closed loop: each connection sends its next request when the last one was answered.
"""

from __future__ import annotations

import asyncio
import collections
import os
import random
import re
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from merganser.bench.connection import Connection
from merganser.bench.histogram import Histogram
from merganser.bench.requests import Signer, credentials_of


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
    put_share: float
    is_consistent: bool
    seed: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker is connected and works."""


class Window(msgspec.Struct, frozen=True):
    """The time that counts, in seconds of the machine's monotonic clock."""

    begin: float
    end: float


class Done(msgspec.Struct, frozen=True, tag=True):
    """What was answered within the window."""

    operations: int
    errors: int
    first_error: str
    gets: dict[int, int]
    puts: dict[int, int]
    faults: dict[str, int] = {}
    """How many errors of each type."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why the worker gave up."""

    reason: str


Said = Ready | Done | Failed


class Load:
    """Connections of one process and what they measure."""

    def __init__(self, work: Work) -> None:
        """Prepare; nothing is connected yet."""
        self._work = work
        self._url = urlsplit(work.endpoint)
        self._signer = Signer(self._url.netloc, credentials_of(os.environ))
        self._rng = random.Random(work.seed)
        self._payload = "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=work.item_bytes))

    async def load(self) -> Done:
        """Put this process's share of the items.

        Raises:
            ConnectionError: not all of them could be put.
        """
        pending = iter(range(self._work.first_item, self._work.first_item + self._work.items))

        async def put_next(connection: Connection) -> None:
            for item in pending:
                if error := await self._ask(connection, "PutItem", self._put(item)):
                    raise ConnectionError(f"loading failed: {error}")

        connections = await self._connect()
        await self._on_all(connections, put_next)
        return Done(self._work.items, 0, "", {}, {})

    async def measure(self, ready: Callable[[], None], window: asyncio.Future[Window]) -> Done:
        """Read and write at random until the end of ``window``; counts what is answered within it.

        Args:
            ready: called once connected; the work begins then.
            window: done before it begins.
        """
        gets, puts = Histogram(), Histogram()
        first_error = ""
        faults: collections.Counter[str] = collections.Counter()

        async def drive(connection: Connection) -> None:
            nonlocal first_error
            while True:
                item = self._rng.randrange(self._work.items_total)
                is_put = self._rng.random() < self._work.put_share
                operation, body = ("PutItem", self._put(item)) if is_put else ("GetItem", self._get(item))
                began = time.monotonic()
                error = await self._ask(connection, operation, body)
                ended = time.monotonic()
                if not window.done() or ended < window.result().begin:
                    continue
                if ended >= window.result().end:
                    return
                if error:
                    first_error = first_error or error
                    faults[_type_of(error)] += 1
                else:
                    (puts if is_put else gets).record((ended - began) * 1e6)

        connections = await self._connect()
        ready()
        await self._on_all(connections, drive)
        operations = gets.total + puts.total
        return Done(operations, faults.total(), first_error, dict(gets.counts), dict(puts.counts), dict(faults))

    async def _connect(self) -> list[Connection]:
        loop = asyncio.get_running_loop()
        host, port = self._url.hostname or "", self._url.port or 80
        return [(await loop.create_connection(Connection, host, port))[1] for _ in range(self._work.connections)]

    async def _on_all(
        self, connections: list[Connection], drive: Callable[[Connection], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(drive(connection))
        finally:
            for connection in connections:
                connection.close()

    async def _ask(self, connection: Connection, operation: str, body: bytes) -> str:
        """Return what went wrong; nothing if nothing did."""
        status, answer = await connection.ask(self._signer.request(operation, body))
        return "" if status == 200 else f"{operation}: {status} {answer[:200].decode(errors='replace')}"

    def _put(self, item: int) -> bytes:
        return (
            f'{{"TableName":"{self._work.table}","Item":{{"pk":{{"S":"item-{item}"}},"data":{{"S":"{self._payload}"}}}}}}'
        ).encode()

    def _get(self, item: int) -> bytes:
        consistent = "true" if self._work.is_consistent else "false"
        return (
            f'{{"TableName":"{self._work.table}","Key":{{"pk":{{"S":"item-{item}"}}}},"ConsistentRead":{consistent}}}'
        ).encode()


def _type_of(error: str) -> str:
    """Return the name of a DynamoDB error, or the status if it has none."""
    found = re.search(r'#(\w+)"', error)
    return found[1] if found else error.split()[1]


async def _run(work: Work, *, is_loading: bool) -> Done:
    load = Load(work)
    if is_loading:
        return await load.load()
    loop = asyncio.get_running_loop()
    window: asyncio.Future[Window] = loop.create_future()

    def receive() -> None:
        loop.remove_reader(sys.stdin.fileno())
        line = sys.stdin.buffer.readline()
        if line:
            window.set_result(msgspec.json.decode(line, type=Window))
        else:
            window.set_exception(ConnectionError("the runner is gone"))

    loop.add_reader(sys.stdin.fileno(), receive)
    return await load.measure(lambda: _say(Ready()), window)


def _say(message: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _reason(error: BaseException) -> str:
    """Return the first cause of an error that may have come out of a task group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def main() -> None:
    """Do the work that standard input names; ``load`` as the argument loads, anything else measures."""
    work = msgspec.json.decode(sys.stdin.buffer.readline(), type=Work)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _say(runner.run(_run(work, is_loading=sys.argv[1:] == ["load"])))
    except Exception as error:  # noqa: BLE001 - the root of the process
        _say(Failed(_reason(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
