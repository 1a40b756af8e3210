"""What the machine could do at best, measured in the same run: what a figure is given as a multiple of.

- An HTTP echo: an empty `asyncio.Protocol` on uvloop that has httptools parse each request, head and body, and answers
  with a fixed JSON of as many bytes as the answer it stands for. It checks no signature and reads no JSON.
- RocksDB through rocksdict, opened with the options of the engine: put, get and iterate, in a loop.
- One fsync of a file that was appended to, in the directory where the servers keep their data.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import httptools
import msgspec
import uvloop

from merganser.bench.operations import OPERATIONS
from merganser.bench.workloads import Workload
from merganser.storage.rocks import RocksEngine, open_database

ANSWER_BYTES = 1_000
ROWS = 20_000
FSYNCS = 100
START_TIMEOUT_S = 30.0


class Storage(msgspec.Struct, frozen=True):
    """The floors of storage, in microseconds, with rows of 1 KB: CPU time of the calling thread, but for fsync."""

    put_us: float
    """Not synced."""
    get_us: float
    iterate_us: float
    """A row."""
    fsync_us: float
    """On the clock; median, of a file that had 1 KB appended."""

    def told(self) -> str:
        """Return them in words."""
        return (
            f"RocksDB put {self.put_us:.1f} µs, get {self.get_us:.1f} µs, next row {self.iterate_us:.1f} µs; "
            f"fsync {self.fsync_us / 1000:.2f} ms"
        )


def measure_storage(directory: Path, *, row_bytes: int = 1_000) -> Storage:
    """Measure in a new directory ``directory``, which stays."""
    path = directory / "rocksdb"
    RocksEngine.open(path).close()
    database = open_database(path)
    rng = random.Random(1)
    names = [b"table" + rng.randbytes(8) + b"item-%d" % row for row in range(ROWS)]
    text = rng.randbytes(ROWS + row_bytes)
    began = time.thread_time()
    for row, name in enumerate(names):
        database[name] = text[row : row + row_bytes]
    put_s = time.thread_time() - began
    rng.shuffle(names)
    began = time.thread_time()
    for name in names:
        database[name]
    get_s = time.thread_time() - began
    began = time.thread_time()
    rows = database.iter()
    rows.seek_to_first()
    while rows.valid():
        rows.key(), rows.value()
        rows.next()
    iterate_s = time.thread_time() - began
    del rows
    database.close()
    put_us, get_us, iterate_us = (seconds * 1e6 / ROWS for seconds in (put_s, get_s, iterate_s))
    return Storage(put_us=put_us, get_us=get_us, iterate_us=iterate_us, fsync_us=_fsync_us(directory))


def _fsync_us(directory: Path) -> float:
    found: list[float] = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(bytes(1_000))
            os.fsync(file.fileno())
            found.append((time.perf_counter() - began) * 1e6)
    return statistics.median(found)


def answer_bytes(workload: Workload, item_bytes: int) -> int:
    """Return how large an answer of the echo stands for those of ``workload``: 1 KB, or the items that it reads."""
    items = sum(share * OPERATIONS[name].read for name, share in workload.mix.items())
    return max(ANSWER_BYTES, round(items * item_bytes))


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...


class EchoProtocol(asyncio.Protocol):
    """Answers every request alike."""

    def __init__(self, answer: bytes) -> None:
        """Answer with ``answer``, which is a whole HTTP response."""
        self._answer = answer
        self._parser = cast("_Parser", httptools.HttpRequestParser(self))
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer (called by the parser)."""
        assert self._transport is not None
        self._transport.write(self._answer)


class Echo:
    """The echo as a process of its own; a context manager that ends it."""

    def __init__(self, size: int = ANSWER_BYTES) -> None:
        """Prepare one whose answers have ``size`` bytes of body."""
        self._size = size
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "merganser.bench.floors", "--answer-bytes", str(self._size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process is not None
        self._process.communicate()  # its standard input ends, and it with that


async def _serve(size: int) -> None:
    body = b'{"Item":{"data":{"S":"%s"}}}' % (b"x" * max(0, size - 26))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EchoProtocol(head + body), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    server.close()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="The echo that other servers are compared with.")
    parser.add_argument("--answer-bytes", type=int, default=ANSWER_BYTES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().answer_bytes))


if __name__ == "__main__":
    main()
