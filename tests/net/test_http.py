"""The HTTP server by raw bytes: what a client sends, what it hears, and when it is shown the door."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


# Requests and responses.


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(POSTS) - 1), noise=st.binary(min_size=1, max_size=8))
def test_noise_in_the_stream_is_answered_or_closed_and_never_an_error(run: Run, place: int, noise: bytes) -> None:
    async def scenario() -> None:
        limits = HttpLimits(request_timeout_s=0.02, idle_timeout_s=0.02)
        async with serving(limits=limits) as (_, port):
            heard = await exchange(port, POSTS[:place] + noise + POSTS[place + len(noise) :])
            assert set(statuses(heard)) <= {200, 400, 408, 413, 417, 431}

    run(scenario())


# Pipelining.


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


async def first_connection(server: HttpServer) -> set[Any]:
    await until(lambda: bool(server.connections))
    return set(server.connections)


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
            assert statuses(heard) == [200] * bool(said)

    run(scenario())


def test_a_client_waiting_for_its_answer_is_not_idle(run: Run) -> None:
    gate = asyncio.Event()

    async def gated(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async def scenario() -> None:
        async with serving(gated, HttpLimits(idle_timeout_s=0.02, request_timeout_s=0.02)) as (_, port):
            waiting, idle = await connected(port), await connected(port)
            waiting.say(LAST)
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


# Ends.


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
