"""The HTTP server by raw bytes: which requests of a connection run together, and how their answers leave."""

from __future__ import annotations

import asyncio

from merganser.net.http import HttpLimits, Request, Response
from net.http_client import GET, LAST, Run, connected, echo, first_connection, responses, serving, until


def test_pipelined_requests_are_answered_in_order_whoever_is_ready_first(run: Run) -> None:
    gates: dict[bytes, asyncio.Event] = {}

    async def gated(request: Request) -> Response:
        await gates.setdefault(request.path, asyncio.Event()).wait()
        return await echo(request)

    async def scenario() -> None:
        async with serving(gated) as (server, port):
            client = await connected(port)
            client.say(GET % 1 + GET % 2 + GET % 3)
            await until(lambda: len(gates) == 3)
            gates[b"/2"].set()
            gates[b"/3"].set()
            await until(lambda: len(server.tasks) == 1)
            assert client.heard == b""
            gates[b"/1"].set()
            await until(lambda: len(responses(client.heard)) == 3)
            assert [headers[b"x-path"] for _, headers, _ in responses(client.heard)] == [b"/1", b"/2", b"/3"]
            assert len(client.pieces) == 1  # all three left in one write
            client.transport.abort()

    run(scenario())


def test_pipelined_answers_of_one_turn_of_the_loop_leave_in_one_write(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            client = await connected(port)
            client.say(b"".join(GET % i for i in range(20)))
            await until(lambda: len(responses(client.heard)) == 20)
            assert len(client.pieces) == 1
            client.transport.abort()

    run(scenario())


def test_a_request_that_may_write_runs_alone_on_its_connection(run: Run) -> None:
    begun: list[bytes] = []
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        begun.append(request.method + request.path)
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(gated) as (_, port):
            client = await connected(port)
            post = b"POST /3 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
            client.say(GET % 1 + GET % 2 + post + GET % 4 + LAST)
            await until(lambda: len(begun) == 2)
            assert begun == [b"GET/1", b"GET/2"]
            gate.set()
            await until(lambda: client.is_closed)
            assert begun == [b"GET/1", b"GET/2", b"POST/3", b"GET/4", b"GET/last"]

    run(scenario())


def test_a_client_is_not_read_while_too_many_of_its_requests_wait(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(gated, HttpLimits(pipelined_max=4)) as (server, port):
            client = await connected(port)
            client.say(b"".join(GET % i for i in range(4)))
            await until(lambda: len(server.tasks) == 4)
            client.say(*(GET % i for i in range(4, 20)))
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(server.tasks) == 4
            gate.set()
            await until(lambda: len(responses(client.heard)) == 20)
            client.transport.abort()

    run(scenario())


def test_nothing_is_begun_for_a_client_that_does_not_take_its_answers(run: Run) -> None:
    begun = 0

    async def large(request: Request) -> Response:
        nonlocal begun
        begun += 1
        return Response(200, b"", b"x" * 2**20)

    async def scenario() -> None:
        async with serving(large) as (server, port):
            client = await connected(port)
            client.transport.pause_reading()
            (connection,) = await first_connection(server)
            sent = 0
            while not connection._is_paused:
                client.say(GET % sent)
                sent += 1
                await asyncio.sleep(0)
            client.say(*(GET % i for i in range(30)))
            for _ in range(50):
                await asyncio.sleep(0)
            assert begun <= sent
            client.transport.resume_reading()
            await until(lambda: begun == sent + 30)
            client.transport.abort()

    run(scenario())
