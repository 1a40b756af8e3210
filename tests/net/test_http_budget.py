"""The HTTP server by raw bytes: how much the bodies of all its clients may hold together."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from merganser.net.http import HttpLimits, HttpServer, Request, Response
from net.http_client import Client, Run, connected, echo, exchange, responses, serving, statuses, until

POST = b"POST /1 HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
SMALL = b"POST /small HTTP/1.1\r\nContent-Length: 10\r\nConnection: close\r\n\r\n" + b"s" * 10
LIMITS = HttpLimits(body_bytes_max=600, bodies_bytes_max=1000)


async def unfinished(server: HttpServer, port: int, body_bytes: int) -> Client:
    """Return a client that has sent ``body_bytes`` of a body of 600, all of them received."""
    client, before = await connected(port), server.bodies_bytes
    client.say(POST % 600 + b"x" * body_bytes)
    await until(lambda: server.bodies_bytes == before + body_bytes)
    return client


def refusal(client: Client) -> bytes:
    ((status, headers, text),) = responses(client.heard)
    assert (status, headers[b"connection"]) == (503, b"close")
    return text


def test_a_small_request_is_served_while_large_ones_fill_the_budget_to_just_under(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            clients = [await unfinished(server, port, 390), await unfinished(server, port, 600 - 1)]
            assert [body for _, _, body in await exchange(port, SMALL)] == [b"s" * 10]
            assert server.bodies_bytes == 989
            for client in clients:
                client.transport.abort()

    run(scenario())


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_does_not_fit_is_refused_when_it_is_announced(run: Run, expect: bytes) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            first = await unfinished(server, port, 500)
            late = await connected(port)
            late.say(b"POST / HTTP/1.1\r\n" + expect + b"Content-Length: 501\r\n\r\n")
            await until(lambda: late.is_closed)
            assert b"more than 1000 bytes" in refusal(late)
            assert server.bodies_bytes == 500
            first.say(b"x" * 100)
            await until(lambda: statuses(responses(first.heard)) == [200])
            first.transport.abort()

    run(scenario())


def test_headers_alone_take_no_room(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            clients = [await connected(port) for _ in range(5)]
            for client in clients:
                client.say(POST % 600)
            await until(lambda: len(server.connections) == 5)
            assert statuses(await exchange(port, SMALL)) == [200]
            for client in clients:
                client.transport.abort()

    run(scenario())


def test_a_chunked_body_is_refused_when_it_grows_past_the_budget(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            first = await unfinished(server, port, 590)
            chunked = await connected(port)
            chunked.say(CHUNKED + b"190\r\n" + b"x" * 400 + b"\r\n")
            await until(lambda: server.bodies_bytes == 990)
            chunked.say(b"b\r\n" + b"x" * 11)
            await until(lambda: chunked.is_closed)
            assert b"more than 1000 bytes" in refusal(chunked)
            assert server.bodies_bytes == 590
            first.transport.abort()

    run(scenario())


def test_of_bodies_that_together_pass_the_budget_some_are_refused_and_the_others_served(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            clients = [await unfinished(server, port, 10) for _ in range(20)]
            for _ in range(59):
                for client in clients:
                    if not client.transport.is_closing():  # refused
                        client.say(b"x" * 10)
                await asyncio.sleep(0)
                assert server.bodies_bytes <= 1000
            await until(lambda: all(client.heard for client in clients) and server.bodies_bytes == 0)
            heard = [status for client in clients for status in statuses(responses(client.heard))]
            assert len(heard) == 20
            assert set(heard) == {200, 503}
            for client in clients:
                client.transport.abort()

    run(scenario())


def test_a_body_is_charged_until_its_request_is_answered(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return await echo(request)

    async def scenario() -> None:
        async with serving(gated, LIMITS) as (server, port):
            client = await connected(port)
            client.say(POST % 600 + b"x" * 600 + POST % 395 + b"x" * 395)  # one runs, one waits
            await until(lambda: server.bodies_bytes == 995)
            assert statuses(await exchange(port, SMALL)) == [503]
            gate.set()
            await until(lambda: len(responses(client.heard)) == 2)
            assert server.bodies_bytes == 0
            assert statuses(await exchange(port, SMALL)) == [200]
            client.transport.abort()

    run(scenario())


def test_a_body_in_pieces_of_two_bytes_holds_little_more_than_what_it_is_charged(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            client = await connected(port)
            tracemalloc.start()
            try:
                client.say(CHUNKED + b"2\r\nxy\r\n" * 50_000)
                await until(lambda: server.bodies_bytes == 100_000)
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held < 10 * server.bodies_bytes  # a list of its pieces holds 40 times as much
            client.transport.abort()

    run(scenario())


def test_a_client_that_leaves_gives_its_bytes_back(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            client = await unfinished(server, port, 599)
            client.transport.abort()
            await until(lambda: server.bodies_bytes == 0)

    run(scenario())


def test_a_request_that_outlives_its_client_keeps_its_bytes_and_one_that_waits_gives_them_back(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(gated, LIMITS) as (server, port):
            client = await connected(port)
            client.say(POST % 300 + b"x" * 300 + POST % 200 + b"x" * 200 + POST % 100 + b"x" * 50)
            await until(lambda: server.bodies_bytes == 550)
            client.transport.abort()
            (connection,) = server.connections
            connection.abort()  # a client that is not read is not seen leaving
            await until(lambda: server.bodies_bytes == 300)
            gate.set()
            await until(lambda: server.bodies_bytes == 0)

    run(scenario())


def test_a_body_that_does_not_end_in_time_gives_its_bytes_back(run: Run) -> None:
    async def scenario() -> None:
        limits = HttpLimits(body_bytes_max=600, bodies_bytes_max=1000, request_timeout_s=0.05)
        async with serving(limits=limits) as (server, port):
            client = await unfinished(server, port, 599)
            await until(lambda: server.bodies_bytes == 0)
            await until(lambda: statuses(responses(client.heard)) == [408])
            client.transport.abort()

    run(scenario())


@pytest.mark.parametrize("over", [b"zz\r\n", b"258\r\n" + b"x" * 600])
def test_a_body_refused_for_another_reason_gives_its_bytes_back(run: Run, over: bytes) -> None:
    async def scenario() -> None:
        async with serving(limits=LIMITS) as (server, port):
            client = await connected(port)
            client.say(CHUNKED + b"a\r\n" + b"x" * 10 + b"\r\n")
            await until(lambda: server.bodies_bytes == 10)
            client.say(over)
            await until(lambda: client.is_closed)
            assert statuses(responses(client.heard)) in ([400], [413])
            assert server.bodies_bytes == 0

    run(scenario())


def test_a_bug_of_the_application_gives_the_bytes_back(run: Run) -> None:
    async def buggy(request: Request) -> Response:
        raise ZeroDivisionError("oops")

    async def scenario() -> None:
        async with serving(buggy, LIMITS, on_error=lambda _: None) as (server, port):
            assert statuses(await exchange(port, SMALL)) == [500]
            assert server.bodies_bytes == 0

    run(scenario())
