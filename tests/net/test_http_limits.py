"""The HTTP server by raw bytes: what it does not take, how long it waits, and what it says then."""

from __future__ import annotations

import asyncio

import pytest

from merganser.net.http import HttpLimits, Request, Response
from net.http_client import (
    GET,
    LAST,
    Client,
    Run,
    connected,
    echo,
    exchange,
    first_connection,
    responses,
    serving,
    statuses,
    until,
)

# Bodies that must be asked for, or are too large.

EXPECT = b"POST /1 HTTP/1.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            client = await connected(port)
            client.say(EXPECT % 5)
            await until(lambda: client.heard == b"HTTP/1.1 100 Continue\r\n\r\n")
            client.say(b"hello")
            await until(lambda: client.is_closed)
            assert [body for _, _, body in responses(client.heard)] == [b"", b"hello"]

    run(scenario())


def test_the_asking_waits_for_the_answers_before_it(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return await echo(request)

    async def scenario() -> None:
        async with serving(gated) as (server, port):
            client = await connected(port)
            client.say(GET % 0 + EXPECT % 5)
            await until(lambda: bool(server.tasks))
            assert client.heard == b""
            gate.set()
            await until(lambda: statuses(responses(client.heard)) == [200, 100])
            client.say(b"hello")
            await until(lambda: client.is_closed)
            assert statuses(responses(client.heard)) == [200, 100, 200]

    run(scenario())


@pytest.mark.parametrize(
    "request_bytes",
    [
        EXPECT % 101,
        b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n60\r\n" + b"x" * 96 + b"\r\n5\r\n" + b"x" * 5,
    ],
)
def test_a_body_over_the_limit_is_413_and_closed(run: Run, request_bytes: bytes) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(body_bytes_max=100)) as (_, port):
            ((status, headers, text),) = await exchange(port, request_bytes)
            assert (status, headers[b"connection"]) == (413, b"close")
            assert b"100 bytes of body" in text

    run(scenario())


def test_a_client_that_goes_on_sending_too_large_a_body_still_hears_why(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(body_bytes_max=100)) as (_, port):
            client = await connected(port)
            client.say(b"POST / HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n")
            client.say(*[b"x" * 100_000] * 40)
            await until(lambda: client.is_closed)
            assert statuses(responses(client.heard)) == [413]

    run(scenario())


def test_a_body_at_the_limit_is_served(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(body_bytes_max=100)) as (_, port):
            post = b"POST / HTTP/1.1\r\nContent-Length: 100\r\nConnection: close\r\n\r\n" + b"x" * 100
            assert [body for _, _, body in await exchange(port, post)] == [b"x" * 100]

    run(scenario())


def test_another_expectation_is_417(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            heard = await exchange(port, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n")
            assert statuses(heard) == [417]

    run(scenario())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 11 + b"\r\n"],
        [b"GET / HTTP/1.1\r\nX: " + b"y" * 1000 + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX: " + b"y" * 600, b"y" * 600],
        [b"GET /" + b"y" * 600, b"y" * 600],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 11 + b"\r\n"],
    ],
)
def test_too_many_or_too_long_headers_are_431_and_closed(run: Run, pieces: list[bytes]) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(headers_max=10, header_bytes_max=1000)) as (_, port):
            ((status, headers, _),) = await exchange(port, *pieces)
            assert (status, headers[b"connection"]) == (431, b"close")

    run(scenario())


# Time.


@pytest.mark.parametrize(
    "beginning", [b"G", b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"]
)
def test_a_request_that_does_not_end_is_408_and_closed(run: Run, beginning: bytes) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(request_timeout_s=0.05)) as (_, port):
            ((status, headers, _),) = await exchange(port, beginning)
            assert (status, headers[b"connection"]) == (408, b"close")

    run(scenario())


def test_a_client_that_sends_a_byte_now_and_then_gains_no_time(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(request_timeout_s=0.1)) as (_, port):
            client = await connected(port)
            client.say(b"GET / HTTP/1.1\r\nX: ")
            while not client.is_closed:
                client.say(b"y")
                await asyncio.sleep(0.005)
            assert statuses(responses(client.heard)) == [408]

    run(scenario())


@pytest.mark.parametrize("said", [b"", GET % 1])
def test_an_idle_client_is_closed(run: Run, said: bytes) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(idle_timeout_s=0.05)) as (_, port):
            heard = await exchange(port, said)
            while said and not heard:  # this machine stalled until it was idle: nothing was said yet
                heard = await exchange(port, said)
            assert statuses(heard) == [200] * bool(said)

    run(scenario())


def test_a_client_waiting_for_its_answer_is_not_idle(run: Run) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def gated(request: Request) -> Response:
        asked.set()
        await gate.wait()
        return Response(200)

    async def asking(port: int) -> Client:
        client = await connected(port)
        client.say(LAST)
        await until(lambda: asked.is_set() or client.is_closed)
        return client

    async def waits(port: int) -> Client:
        client = await asking(port)
        while not asked.is_set():  # this machine stalled until it was idle: nothing was said yet
            client = await asking(port)
        return client

    async def scenario() -> None:
        async with serving(gated, HttpLimits(idle_timeout_s=0.02, request_timeout_s=0.02)) as (_, port):
            waiting, idle = await waits(port), await connected(port)
            await until(lambda: idle.is_closed)
            assert not waiting.is_closed
            gate.set()
            await until(lambda: waiting.is_closed)
            assert statuses(responses(waiting.heard)) == [200]

    run(scenario())


def test_a_client_that_never_takes_its_answer_is_dropped(run: Run) -> None:
    async def large(request: Request) -> Response:
        return Response(200, b"", b"x" * 2**24)

    async def scenario() -> None:
        async with serving(large, HttpLimits(request_timeout_s=0.05)) as (server, port):
            client = await connected(port)
            client.transport.pause_reading()
            client.say(GET % 1)
            await first_connection(server)
            await until(lambda: not server.connections)
            client.transport.abort()

    run(scenario())
