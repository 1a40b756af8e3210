"""The HTTP server by raw bytes: clients that leave, and the end of the server."""

from __future__ import annotations

import asyncio

import pytest

from merganser.net.http import Request, Response
from net.http_client import GET, Run, connected, responses, serving, until


def test_a_client_that_leaves_does_not_stop_its_request(run: Run) -> None:
    gate = asyncio.Event()
    done: list[bytes] = []

    async def write(request: Request) -> Response:
        await gate.wait()
        done.append(request.path)
        return Response(200)

    async def scenario() -> None:
        async with serving(write) as (server, port):
            client = await connected(port)
            client.say(GET % 1)
            await until(lambda: bool(server.tasks))
            client.transport.abort()
            (connection,) = server.connections
            connection.abort()
            await until(lambda: not server.connections)
            gate.set()
            await until(lambda: done == [b"/1"] and not server.tasks)

    run(scenario())


def test_closing_lets_requests_in_flight_end_and_takes_no_others(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(gated) as (server, port):
            busy, idle = await connected(port), await connected(port)
            busy.say(GET % 1)
            await until(lambda: bool(server.tasks))
            closing = asyncio.create_task(server.close(8))
            await until(lambda: idle.is_closed)
            with pytest.raises(ConnectionRefusedError):
                await connected(port)
            gate.set()
            await closing
            await until(lambda: busy.is_closed)
            ((status, headers, _),) = responses(busy.heard)
            assert (status, headers[b"connection"]) == (200, b"close")

    run(scenario())


def test_closing_cancels_what_outlasts_the_grace(run: Run) -> None:
    async def never(request: Request) -> Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async def scenario() -> None:
        async with serving(never) as (server, port):
            client = await connected(port)
            client.say(GET % 1)
            await until(lambda: bool(server.tasks))
            await server.close(0.01)
            await until(lambda: client.is_closed)
            assert client.heard == b""

    run(scenario())
