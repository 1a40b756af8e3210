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
"""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit

import msgspec
import orjson
import uvloop

from merganser.bench.connection import Asking
from merganser.bench.driver import Done, Driver, Window, Work
from merganser.bench.operations import BATCH_ITEMS
from merganser.bench.requests import Signer, credentials_of

BATCH_BYTES_MAX = 2**20
"""Of data in a batch of the loading, or one item."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker is connected and works."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why the worker gave up."""

    reason: str


Said = Ready | Done | Failed


class Loader:
    """Puts this process's share of the items, in batches."""

    def __init__(self, work: Work, signer: Signer) -> None:
        """Prepare; nothing is sent yet."""
        self._signer = signer
        self._bodies = work.bodies
        size = max(1, min(BATCH_ITEMS, BATCH_BYTES_MAX // work.item_bytes))
        end = work.first_item + work.items
        self._batches = iter([range(at, min(at + size, end)) for at in range(work.first_item, end, size)])
        self._batch_count = 0

    async def load(self, connections: list[Asking]) -> Done:
        """Put them.

        Raises:
            ConnectionError: not all of them could be put.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(self._load_on(connection))
        finally:
            for connection in connections:
                connection.close()
        return Done({})

    async def _load_on(self, connection: Asking) -> None:
        for batch in self._batches:
            body = self._bodies.puts(list(batch))
            while body:
                status, answer = await connection.ask(self._signer.request("BatchWriteItem", body))
                if status != 200:
                    told = answer[:200].decode(errors="replace")
                    raise ConnectionError(f"loading failed: BatchWriteItem: {status} {told}")
                left = orjson.loads(answer).get("UnprocessedItems")
                body = orjson.dumps({"RequestItems": left}) if left else b""


async def _load(work: Work) -> Done:
    signer, host, port = _target(work)
    loader = Loader(work, signer)
    return await loader.load([await Asking(host, port).open() for _ in range(work.connections)])


async def _measure(work: Work) -> Done:
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
    signer, host, port = _target(work)
    driver = Driver(work, signer)
    connections = [driver.connection(host, port) for _ in range(work.connections)]
    try:
        for connection in connections:
            await connection.open()
        driver.start()
        _say(Ready())
        return await driver.finish(await window)
    finally:
        for connection in connections:
            connection.close()


def _target(work: Work) -> tuple[Signer, str, int]:
    url = urlsplit(work.endpoint)
    return Signer(url.netloc, credentials_of(os.environ)), url.hostname or "", url.port or 80


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
            _say(runner.run(_load(work) if sys.argv[1:] == ["load"] else _measure(work)))
    except Exception as error:  # noqa: BLE001 - the root of the process
        _say(Failed(_reason(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
