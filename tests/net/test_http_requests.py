"""The HTTP server by raw bytes: requests as they were sent, responses as the application made them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merganser.net.http import HttpLimits, Request, Response
from net.http_client import GET, LAST, Run, connected, echo, exchange, responses, serving, statuses, until


def test_the_application_sees_the_request_as_it_was_sent(run: Run) -> None:
    seen: list[Request] = []

    async def look(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    async def scenario() -> None:
        async with serving(look) as (_, port):
            await exchange(
                port,
                b"POST /a%20b?c=d&e HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice:  2 \r\nContent-Length: 3\r\n"
                b"Connection: close\r\n\r\nabc",
            )
            (request,) = seen
            assert (request.method, request.path, request.body) == (b"POST", b"/a%20b?c=d&e", b"abc")
            assert request.headers[:3] == [(b"host", b"x"), (b"x-twice", b"1"), (b"x-twice", b"2")]
            assert request.header(b"x-twice") == b"1"
            assert request.header(b"absent") is None
            assert request.peer.startswith("127.0.0.1:")

    run(scenario())


@pytest.mark.parametrize("headers", [b"x-a: 1\r\nx-b: 2\r\n", [(b"x-a", b"1"), (b"x-b", b"2")]])
@pytest.mark.parametrize("body", [b"abc", [b"a", b"", b"bc"], [], [b"x" * 70_000, b"y" * 70_000]])
def test_a_response_is_made_of_either_kind_of_headers_and_body(
    run: Run, headers: bytes | list[tuple[bytes, bytes]], body: bytes | list[bytes]
) -> None:
    async def scenario() -> None:
        async def answer(request: Request) -> Response:
            return Response(201, headers, body)

        async with serving(answer) as (_, port):
            ((status, heard, text),) = await exchange(port, LAST)
            assert (status, heard[b"x-a"], heard[b"x-b"]) == (201, b"1", b"2")
            assert heard[b"date"].endswith(b"GMT")
            assert text == (body if isinstance(body, bytes) else b"".join(body))

    run(scenario())


def test_an_answer_at_once_and_one_that_is_waited_for_leave_in_the_order_of_their_requests(run: Run) -> None:
    reported: list[BaseException] = []

    async def wait(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, b"", request.path)

    def answer(request: Request) -> Response | Coroutine[Any, Any, Response]:
        if request.path == b"/3":
            raise ValueError("a bug")
        return wait(request) if request.path in (b"/1", b"/4") else Response(200, b"", request.path)

    async def scenario() -> None:
        async with serving(answer, on_error=reported.append) as (server, port):
            sent = b"".join(b"POST /%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" % i for i in range(1, 6))
            heard = await exchange(port, sent, LAST)
            assert [status for status, _, _ in heard] == [200, 200, 500, 200, 200, 200]
            assert [text for _, _, text in heard[:2]] == [b"/1", b"/2"]
            assert server.bodies_bytes == 0
            assert not server.tasks

    run(scenario())
    assert [str(error) for error in reported] == ["a bug"]


def test_a_connection_is_kept_for_the_next_request(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            client = await connected(port)
            for i in range(3):
                client.say(GET % i)
                await until(lambda i=i: len(responses(client.heard)) == i + 1)  # type: ignore[misc]
            client.say(LAST)
            await until(lambda: client.is_closed)
            heard = responses(client.heard)
            assert [headers[b"x-path"] for _, headers, _ in heard] == [b"/0", b"/1", b"/2", b"/last"]
            assert [headers.get(b"connection") for _, headers, _ in heard] == [None, None, None, b"close"]

    run(scenario())


def test_http_1_0_closes_unless_asked_not_to(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            ((_, headers, _),) = await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
            assert headers[b"connection"] == b"close"
            kept = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            first, second = await exchange(port, kept, b"GET / HTTP/1.0\r\n\r\n")
            assert (first[1][b"connection"], second[1][b"connection"]) == (b"keep-alive", b"close")

    run(scenario())


def test_head_announces_the_body_and_leaves_it_out(run: Run) -> None:
    async def scenario() -> None:
        async def answer(request: Request) -> Response:
            return Response(200, b"", b"12345")

        async with serving(answer) as (_, port):
            client = await connected(port)
            client.say(b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
            await until(lambda: client.is_closed)
            assert b"content-length: 5\r\n" in client.heard
            assert client.heard.endswith(b"\r\n\r\n")

    run(scenario())


def test_no_content_has_neither_body_nor_length(run: Run) -> None:
    async def scenario() -> None:
        async def answer(request: Request) -> Response:
            return Response(204)

        async with serving(answer) as (_, port):
            ((status, headers, _),) = await exchange(port, LAST)
            assert status == 204
            assert b"content-length" not in headers

    run(scenario())


def test_a_bug_of_the_application_is_reported_and_answered_and_the_connection_goes_on(run: Run) -> None:
    seen: list[BaseException] = []

    async def buggy(request: Request) -> Response:
        if request.path == b"/last":
            return Response(200)
        if request.path == b"/2":
            return Response(200, b"", ["text"])  # type: ignore[list-item]
        raise ZeroDivisionError("oops")

    async def scenario() -> None:
        async with serving(buggy, on_error=seen.append) as (_, port):
            assert statuses(await exchange(port, GET % 1, GET % 2, LAST)) == [500, 500, 200]
            assert [type(error) for error in seen] == [ZeroDivisionError, TypeError]

    run(scenario())


def test_an_offer_to_upgrade_is_passed_over(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            offer = b"GET /1 HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n"
            assert statuses(await exchange(port, offer + GET % 2, LAST)) == [200, 200, 200]

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("cut", [None, 60, 150])
def test_an_offer_to_upgrade_loses_no_body(run: Run, body: bytes, cut: int | None) -> None:
    async def echo(request: Request) -> Response:
        return Response(200, b"", request.body)

    async def scenario() -> None:
        async with serving(echo) as (_, port):
            offer = (
                b"POST /1 HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA\r\n"
            )
            whole = offer + body + GET % 2 + LAST
            pieces = [whole[:cut], whole[cut:]] if cut else [whole]
            answers = await exchange(port, *pieces)
            assert statuses(answers) == [200, 200, 200]
            assert answers[0][2] == b"body"

    run(scenario())


def test_a_client_that_says_no_more_is_still_answered(run: Run) -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(slow) as (server, port):
            client = await connected(port)
            client.say(GET % 1)
            client.transport.write_eof()
            await until(lambda: bool(server.tasks))
            gate.set()
            await until(lambda: client.is_closed)
            assert statuses(responses(client.heard)) == [200]

    run(scenario())


# Any cutting of the stream.

POSTS = (
    b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwor\r\n2;x=y\r\nld\r\n0\r\nX-Trailer: t\r\n\r\n"
    b"GET /3 HTTP/1.1\r\nX-Long: " + b"z" * 50 + b"\r\n\r\n"
    b"POST /4 HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(POSTS)), max_size=20))
def test_requests_are_the_same_however_the_stream_is_cut(run: Run, cuts: list[int]) -> None:
    seen: list[Request] = []

    async def look(request: Request) -> Response:
        seen.append(request)
        return await echo(request)

    async def scenario() -> None:
        async with serving(look) as (_, port):
            places = [0, *sorted(cuts), len(POSTS)]
            pieces = [POSTS[a:b] for a, b in itertools.pairwise(places)]
            heard = await exchange(port, *pieces)
            assert [body for _, _, body in heard] == [b"hello", b"world", b"", b""]
            assert [request.path for request in seen] == [b"/1", b"/2", b"/3", b"/4"]
            assert seen[1].headers == [(b"transfer-encoding", b"chunked")]
            assert seen[2].header(b"x-long") == b"z" * 50

    run(scenario())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(POSTS) - 1), noise=st.binary(min_size=1, max_size=8))
def test_noise_in_the_stream_is_answered_or_closed_and_never_an_error(run: Run, place: int, noise: bytes) -> None:
    async def scenario() -> None:
        limits = HttpLimits(request_timeout_s=0.02, idle_timeout_s=0.02)
        async with serving(limits=limits) as (_, port):
            heard = await exchange(port, POSTS[:place] + noise + POSTS[place + len(noise) :])
            assert set(statuses(heard)) <= {200, 400, 408, 413, 417, 431}

    run(scenario())


# What is not a request.


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_400_and_closed_after_the_answers_before_it(run: Run, noise: bytes) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            assert statuses(await exchange(port, GET % 1 + noise)) == [200, 400]

    run(scenario())


def test_bytes_after_the_last_request_are_not_heard(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as (_, port):
            assert statuses(await exchange(port, LAST + GET % 1)) == [200]

    run(scenario())
