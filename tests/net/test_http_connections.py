"""The HTTP server by raw bytes: how many clients may be connected, and how much they may leave untaken together."""

from __future__ import annotations

import contextlib
import socket

import pytest

from merganser.net.http import HttpLimits, HttpServer, Request, Response
from net.http_client import (
    GET,
    LAST,
    Run,
    connected,
    echo,
    exchange,
    no_errors,
    responses,
    serving,
    statuses,
    until,
)

POST = b"POST /%b HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
MIB = 1024 * 1024


def test_one_connection_too_many_is_told_so_and_the_others_go_on(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(connections_max=2)) as (server, port):
            first, second = await connected(port), await connected(port)
            await until(lambda: len(server.connections) == 2)
            ((status, headers, text),) = await exchange(port, GET % 1)
            assert (status, headers[b"connection"]) == (503, b"close")
            assert b"2 connections are open" in text
            for client in first, second:
                client.say(GET % 1)
            await until(lambda: [statuses(responses(client.heard)) for client in (first, second)] == [[200], [200]])
            assert server.refused_connections == 1
            first.transport.abort()
            await until(lambda: len(server.connections) == 1)
            assert statuses(await exchange(port, LAST)) == [200]
            second.transport.abort()

    run(scenario())


def heard(client: socket.socket) -> bytes:
    """Return what a client that reads only now was told; nothing if it was reset."""
    with client, contextlib.suppress(ConnectionResetError):
        return client.recv(10_000)
    return b""


def test_a_flood_of_connections_beyond_those_that_are_told_is_reset(run: Run) -> None:
    async def scenario() -> None:
        limits = HttpLimits(connections_max=1, refusals_max=2)
        async with serving(limits=limits) as (server, port):
            allowed = await connected(port)
            await until(lambda: len(server.connections) == 1)
            flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            await until(lambda: server.refused_connections == 5)
            await until(lambda: len(server.connections) == 3)  # three of the five are reset
            assert sorted(len(responses(heard(client))) for client in flood) == [0, 0, 0, 1, 1]
            await until(lambda: server.refusals == 0)
            allowed.say(LAST)
            await until(lambda: allowed.is_closed)
            assert statuses(responses(allowed.heard)) == [200]

    run(scenario())


def test_clients_that_take_none_of_their_answers_hold_a_bounded_number_of_bytes(run: Run) -> None:
    async def large(request: Request) -> Response:
        return Response(200, b"", b"x" * 8 * MIB)

    async def scenario() -> None:
        async with serving(large, HttpLimits(answers_bytes_max=20 * MIB)) as (server, port):
            clients = [await connected(port) for _ in range(10)]
            for number, client in enumerate(clients, start=1):
                client.transport.pause_reading()
                client.say(GET % 1)
                await until(lambda: server.answers_bytes > 0)
                await until(lambda number=number: not server.tasks and server.answers_bytes <= 20 * MIB)  # type: ignore[misc]
            await until(lambda: len(server.connections) <= 4)
            assert server.answers_bytes > 8 * MIB
            for client in clients:
                client.transport.abort()
            await until(lambda: not server.connections)
            assert server.answers_bytes == 0

    run(scenario())


def bound(headers: list[tuple[bytes, bytes]]) -> int:
    return MIB if (b"x-kind", b"small") in headers else 8 * MIB


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: %d\r\n\r\n" % (MIB + 1), b"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + b"x" * (MIB + 1)],
    ids=["announced", "chunked"],
)
def test_a_body_that_the_application_would_not_take_is_refused_before_it_is_read(run: Run, body: bytes) -> None:
    async def scenario() -> None:
        server = HttpServer(echo, on_error=no_errors, body_bound=bound)
        try:
            port = await server.listen("127.0.0.1", 0)
            ((status, _, text),) = await exchange(port, b"POST / HTTP/1.1\r\nX-Kind: small\r\n" + body)
            assert status == 413
            assert b"1048576 bytes of body" in text
        finally:
            await server.close(0)

    run(scenario())


@pytest.mark.parametrize(("size", "status", "told"), [(MIB + 1, 400, b"no"), (8 * MIB + 1, 413, b"more than ")])
def test_the_application_says_what_is_too_large_for_it(run: Run, size: int, status: int, told: bytes) -> None:
    async def scenario() -> None:
        limits = HttpLimits(body_bytes_max=8 * MIB)
        no = Response(400, b"", b"no")
        server = HttpServer(echo, on_error=no_errors, limits=limits, body_bound=bound, too_large=lambda headers: no)
        try:
            port = await server.listen("127.0.0.1", 0)
            kind = b"small" if status == 400 else b"large"
            head = b"POST / HTTP/1.1\r\nX-Kind: %b\r\nContent-Length: %d\r\n\r\n" % (kind, size)
            ((heard, headers, text),) = await exchange(port, head + b"x" * size)
            assert (heard, headers[b"connection"]) == (status, b"close")
            assert text.startswith(told)
        finally:
            await server.close(0)

    run(scenario())


def test_the_bound_of_one_request_is_not_that_of_the_next(run: Run) -> None:
    async def scenario() -> None:
        server = HttpServer(echo, on_error=no_errors, body_bound=bound)
        try:
            port = await server.listen("127.0.0.1", 0)
            size = 2 * MIB
            client = await connected(port)
            client.say(b"POST / HTTP/1.1\r\nX-Kind: small\r\nContent-Length: 1048576\r\n\r\n" + b"x" * MIB)
            client.say(POST % (b"large", size) + b"x" * size)
            await until(lambda: client.is_closed)
            assert [(status, len(text)) for status, _, text in responses(client.heard)] == [(200, MIB), (200, size)]
        finally:
            await server.close(0)

    run(scenario())


def test_a_server_that_closes_waits_for_nobody_it_has_turned_away(run: Run) -> None:
    async def scenario() -> None:
        async with serving(limits=HttpLimits(connections_max=1)) as (server, port):
            allowed = await connected(port)
            await until(lambda: len(server.connections) == 1)
            turned_away = await connected(port)
            turned_away.transport.pause_reading()
            await until(lambda: server.refusals == 1)
        assert not server.connections
        for client in allowed, turned_away:
            client.transport.abort()

    run(scenario())
