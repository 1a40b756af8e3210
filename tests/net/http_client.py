"""An HTTP server on a free port and a client of raw bytes, for the tests of either."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from merganser.net.http import Application, HttpLimits, HttpServer, Request, Response

Run = Callable[[Coroutine[Any, Any, None]], None]


async def echo(request: Request) -> Response:
    return Response(200, [(b"x-path", request.path)], request.body)


def no_errors(error: BaseException) -> None:
    raise AssertionError("no error was expected") from error


@contextlib.asynccontextmanager
async def serving(
    application: Application = echo,
    limits: HttpLimits | None = None,
    on_error: Callable[[BaseException], None] = no_errors,
) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(application, on_error=on_error, limits=limits)
    try:
        yield server, await server.listen("127.0.0.1", 0)
    finally:
        await server.close(0)


class Client(asyncio.Protocol):
    """Says bytes, keeps the pieces it hears."""

    transport: Any

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True

    @property
    def heard(self) -> bytes:
        return b"".join(self.pieces)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.transport.is_closing():  # the server may have answered all, and closed it
                self.transport.write(piece)


async def connected(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - seen from outside only; bounded by the deadline of `run`
        await asyncio.sleep(0.001)


async def exchange(port: int, *pieces: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Say ``pieces``, one turn of the loop each, and return the responses heard until the server closes."""
    client = await connected(port)
    for piece in pieces:
        client.say(piece)
        await asyncio.sleep(0)
    await until(lambda: client.is_closed)
    return responses(client.heard)


def responses(heard: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Cut ``heard`` into status, headers, body; every response has a length."""
    found = []
    while heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = dict(header.split(b": ", 1) for header in lines)
        length = int(headers.get(b"content-length", 0))
        found.append((int(line.split()[1]), headers, rest[:length]))
        heard = rest[length:]
    return found


def statuses(heard: list[tuple[int, dict[bytes, bytes], bytes]]) -> list[int]:
    return [status for status, _, _ in heard]


async def first_connection(server: HttpServer) -> set[Any]:
    await until(lambda: bool(server.connections))
    return set(server.connections)


GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"
