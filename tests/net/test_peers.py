"""Peers over loopback: who gets which answer, and how every failure is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from merganser.model.errors import (
    CorruptionError,
    InvariantError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    TableNotFoundError,
)
from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Done, FetchMap, Found, Read, Reply, Request
from merganser.net.frames import Answer, Call, Frame, FrameDecoder, Hello, Rejected, encode
from merganser.net.limits import PeerLimits
from merganser.net.link import Connection
from merganser.net.peers import Peers
from merganser.net.transport import Handler, Traffic, Transport

Run = Callable[[Coroutine[Any, Any, None]], None]

ANN, BEN, CAT = (NodeId(letter * 16) for letter in "abc")
SOON_S, LONG_S = 0.05, 8.0


def read(key: bytes = b"k") -> Read:
    return Read(1, TableId(1), key)


async def echo(sender: NodeId, request: Request) -> Reply:
    assert isinstance(request, Read)
    return Found(request.key)


async def never(sender: NodeId, request: Request) -> Reply:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


def no_errors(error: BaseException) -> None:
    raise AssertionError("no error was expected") from error


@contextlib.asynccontextmanager
async def peers(
    node: NodeId,
    handler: Handler = echo,
    *,
    cluster_id: str = "cluster",
    on_error: Callable[[BaseException], None] = no_errors,
    limits: PeerLimits | None = None,
) -> AsyncIterator[Peers]:
    made = Peers(
        node, cluster_id=cluster_id, random=random.Random(1), handler=handler, on_error=on_error, limits=limits
    )
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def ann_and_ben(
    handler: Handler = echo,
    *,
    limits: PeerLimits | None = None,
    server_limits: PeerLimits | None = None,
    on_error: Callable[[BaseException], None] = no_errors,
) -> AsyncIterator[tuple[Peers, Peers]]:
    async with peers(ANN, limits=limits) as ann, peers(BEN, handler, limits=server_limits, on_error=on_error) as ben:
        ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
        yield ann, ben


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - seen from outside only; bounded by the deadline of `run`
        await asyncio.sleep(0.001)


class Stranger(asyncio.Protocol):
    """A peer made by hand: says what the test tells it to, keeps the pieces it hears."""

    transport: Any

    def __init__(self, *greeting: Frame) -> None:
        self.pieces: list[bytes] = []
        self.is_lost = False
        self._greeting = b"".join(map(encode, greeting))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def heard(self) -> list[Frame]:
        return FrameDecoder().feed(b"".join(self.pieces))

    def calls(self) -> list[Call]:
        return [frame for frame in self.heard() if isinstance(frame, Call)]


@contextlib.asynccontextmanager
async def ann_and_a_stranger(
    *greeting: Frame, limits: PeerLimits | None = None
) -> AsyncIterator[tuple[Peers, list[Stranger]]]:
    strangers: list[Stranger] = []

    def met() -> Stranger:
        strangers.append(Stranger(*greeting))
        return strangers[-1]

    server = await asyncio.get_running_loop().create_server(met, "127.0.0.1", 0)
    async with peers(ANN, limits=limits) as ann:
        ann.set_peers({BEN: f"127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        await until(lambda: bool(strangers and strangers[0].pieces))
        yield ann, strangers
    server.close()
    for stranger in strangers:
        stranger.transport.abort()
    await until(lambda: all(stranger.is_lost for stranger in strangers))


async def stranger_calls_on(port: int, *greeting: Frame) -> Stranger:
    stranger = Stranger(*greeting)
    await asyncio.get_running_loop().create_connection(lambda: stranger, "127.0.0.1", port)
    return stranger


def test_peers_are_a_transport() -> None:
    transport: type[Transport] = Peers
    assert transport is Peers


# Answers.


def test_a_request_made_before_the_first_connection_stands_waits_for_it(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, _):
            assert ann.connected() == {BEN: False}
            assert await ann.request(BEN, read(b"x"), timeout_s=LONG_S) == Found(b"x")
            assert ann.connected() == {BEN: True}

    run(scenario())


def test_the_handler_learns_who_asks(run: Run) -> None:
    async def who(sender: NodeId, request: Request) -> Reply:
        return Found(sender.encode())

    async def scenario() -> None:
        async with ann_and_ben(who) as (ann, _):
            assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(ANN.encode())

    run(scenario())


def test_replies_come_back_in_the_order_they_are_ready(run: Run) -> None:
    gates: dict[bytes, asyncio.Event] = {}

    async def gated(sender: NodeId, request: Request) -> Reply:
        assert isinstance(request, Read)
        await gates.setdefault(request.key, asyncio.Event()).wait()
        return Found(request.key)

    async def scenario() -> None:
        async with ann_and_ben(gated) as (ann, _):
            first, second = (ann.request(BEN, read(key), timeout_s=LONG_S) for key in (b"1", b"2"))
            await until(lambda: len(gates) == 2)
            gates[b"2"].set()
            assert await second == Found(b"2")
            assert not first.done()
            gates[b"1"].set()
            assert await first == Found(b"1")

    run(scenario())


def test_thousands_of_requests_in_flight_all_get_their_own_answer(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben(limits=PeerLimits(requests_in_flight_max=5000)) as (ann, _):
            keys = [str(i).encode() for i in range(3000)]
            replies = await asyncio.gather(*(ann.request(BEN, read(key), timeout_s=LONG_S) for key in keys))
            assert replies == [Found(key) for key in keys]

    run(scenario())


def test_bulk_traffic_has_its_own_connection(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, ben):
            for traffic in Traffic:
                assert await ann.request(BEN, read(), timeout_s=LONG_S, traffic=traffic) == Found(b"k")
            assert len(ben._server.connections) == 2

    run(scenario())


def test_a_megabyte_goes_there_and_back(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, _):
            megabytes = [bytes([i]) * 2**20 for i in range(8)]
            replies = await asyncio.gather(*(ann.request(BEN, read(key), timeout_s=LONG_S) for key in megabytes))
            assert replies == [Found(key) for key in megabytes]

    run(scenario())


def test_requests_of_one_turn_of_the_loop_leave_in_one_write(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(1, "cluster", BEN)) as (ann, strangers):
            await until(lambda: ann.connected()[BEN])
            futures = [ann.request(BEN, read(), timeout_s=LONG_S) for _ in range(50)]
            await until(lambda: len(strangers[0].calls()) == 50)
            assert len(strangers[0].pieces) == 2  # the greeting and one more
            del futures

    run(scenario())


def test_answers_of_one_turn_of_the_loop_leave_in_one_write(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN) as ben:
            port = await ben.listen("127.0.0.1", 0)
            stranger = await stranger_calls_on(port, Hello(1, "cluster", ANN))
            await until(lambda: len(stranger.heard()) == 1)
            stranger.transport.write(b"".join(encode(Call(i, 5000, read())) for i in range(50)))
            await until(lambda: len(stranger.heard()) == 51)
            assert len(stranger.pieces) == 2
            stranger.transport.abort()

    run(scenario())


def test_a_deadline_travels_as_the_time_that_remains(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(1, "cluster", BEN)) as (ann, strangers):
            future = ann.request(BEN, read(), timeout_s=2.5)
            await until(lambda: bool(strangers[0].calls()))
            assert strangers[0].calls()[0].timeout_ms == 2500
            future.cancel()

    run(scenario())


# Refusals.


def test_a_refusal_keeps_its_code_message_and_epoch(run: Run) -> None:
    async def refusing(sender: NodeId, request: Request) -> Reply:
        raise RefusedError("stale_map", "my map is newer", map_epoch=12)

    async def scenario() -> None:
        async with ann_and_ben(refusing) as (ann, _):
            with pytest.raises(RefusedError, match="my map is newer") as caught:
                await ann.request(BEN, read(), timeout_s=LONG_S)
            assert (caught.value.code, caught.value.map_epoch) == ("stale_map", 12)

    run(scenario())


def test_an_error_of_ours_is_refused_under_its_name(run: Run) -> None:
    async def failing(sender: NodeId, request: Request) -> Reply:
        raise TableNotFoundError("no table 7")

    async def scenario() -> None:
        async with ann_and_ben(failing) as (ann, _):
            with pytest.raises(RefusedError, match="no table 7") as caught:
                await ann.request(BEN, read(), timeout_s=LONG_S)
            assert caught.value.code == "table_not_found"

    run(scenario())


@pytest.mark.parametrize("bug", [ZeroDivisionError("oops"), InvariantError("a promise was broken")])
def test_a_bug_in_the_handler_is_reported_and_answered(run: Run, bug: Exception) -> None:
    seen: list[BaseException] = []

    async def buggy(sender: NodeId, request: Request) -> Reply:
        raise bug

    async def scenario() -> None:
        async with ann_and_ben(buggy, on_error=seen.append) as (ann, _):
            with pytest.raises(RefusedError, match=str(bug)) as caught:
                await ann.request(BEN, read(), timeout_s=LONG_S)
            assert caught.value.code == "internal"
            assert seen == [bug]

    run(scenario())


def test_a_reply_too_large_for_a_frame_is_refused(run: Run) -> None:
    async def large(sender: NodeId, request: Request) -> Reply:
        return Found(b"x" * 2000)

    async def scenario() -> None:
        async with ann_and_ben(large, server_limits=PeerLimits(frame_bytes_max=1050)) as (ann, _):
            with pytest.raises(RefusedError, match="smaller pages") as caught:
                await ann.request(BEN, read(), timeout_s=LONG_S)
            assert caught.value.code == "reply_too_large"

    run(scenario())


# Lost or unreachable.


def test_silence_past_the_deadline_is_a_lost_peer_and_the_late_answer_is_dropped(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(1, "cluster", BEN)) as (ann, strangers):
            future = ann.request(BEN, read(), timeout_s=SOON_S)
            with pytest.raises(PeerLostError, match="no answer in time"):
                await future
            (call,) = strangers[0].calls()
            strangers[0].transport.write(encode(Answer(call.id, Done())))
            second = ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: len(strangers[0].calls()) == 2)
            strangers[0].transport.write(encode(Answer(strangers[0].calls()[1].id, Found(b"2"))))
            assert await second == Found(b"2")

    run(scenario())


def test_the_deadline_bounds_the_handler(run: Run) -> None:
    cancelled: list[bool] = []

    async def slow(sender: NodeId, request: Request) -> Reply:
        try:
            return await never(sender, request)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario() -> None:
        async with ann_and_ben(slow) as (ann, ben):
            with pytest.raises(PeerLostError):
                await ann.request(BEN, read(), timeout_s=SOON_S)
            await until(lambda: cancelled == [True] and not ben._server.tasks)

    run(scenario())


def test_a_server_that_dies_with_a_request_in_hand_is_a_lost_peer(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(1, "cluster", BEN)) as (ann, strangers):
            future = ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: bool(strangers[0].calls()))
            strangers[0].transport.abort()
            with pytest.raises(PeerLostError, match=f"node {BEN}"):
                await future

    run(scenario())


def test_what_was_not_written_when_the_connection_broke_was_not_sent(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger() as (ann, strangers):  # which never greets
            future = ann.request(BEN, read(), timeout_s=LONG_S)
            strangers[0].transport.abort()
            with pytest.raises(PeerUnreachableError):
                await future

    run(scenario())


def test_a_request_whose_time_is_up_before_it_is_written_is_never_written(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger() as (ann, strangers):
            early = ann.request(BEN, read(b"early"), timeout_s=SOON_S)
            late = ann.request(BEN, read(b"late"), timeout_s=LONG_S)
            with pytest.raises(PeerUnreachableError, match="not sent in time"):
                await early
            strangers[0].transport.write(encode(Hello(1, "cluster", BEN)))
            await until(lambda: bool(strangers[0].calls()))
            assert [call.body for call in strangers[0].calls()] == [read(b"late")]
            late.cancel()

    run(scenario())


def test_a_peer_that_is_down_is_unreachable_and_found_again_when_it_returns(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann, peers(BEN) as ben:
            port = await ben.listen("127.0.0.1", 0)
            await ben.close()
            ann.set_peers({BEN: f"127.0.0.1:{port}"})
            with pytest.raises(PeerUnreachableError):
                await ann.request(BEN, read(), timeout_s=LONG_S)
            with pytest.raises(PeerUnreachableError):  # between two attempts: at once
                await ann.request(BEN, read(), timeout_s=LONG_S)
            async with peers(BEN) as again:
                await again.listen("127.0.0.1", port)
                await until(lambda: ann.connected()[BEN])
                assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")

    run(scenario())


def test_a_peer_that_restarts_is_connected_again(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, ben):
            await ann.request(BEN, read(), timeout_s=LONG_S)
            (address,) = {link.address for link in ann._links.values()}
            await ben.close()
            await until(lambda: not ann.connected()[BEN])
            async with peers(BEN) as again:
                await again.listen("127.0.0.1", int(address.rpartition(":")[2]))
                await until(lambda: ann.connected()[BEN])
                assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")

    run(scenario())


def test_an_unknown_node_and_no_time_at_all_are_unreachable(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, _):
            with pytest.raises(PeerUnreachableError, match="not in the cluster map"):
                await ann.request(CAT, read(), timeout_s=LONG_S)
            with pytest.raises(PeerUnreachableError, match="no time was left"):
                await ann.request(BEN, read(), timeout_s=0)

    run(scenario())


def test_an_address_that_is_none_is_unreachable(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann:
            ann.set_peers({BEN: "nonsense"})
            with pytest.raises(PeerUnreachableError, match="write host:port"):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    run(scenario())


# Bounds.


def test_more_requests_in_flight_than_allowed_are_unreachable_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben(never, limits=PeerLimits(requests_in_flight_max=3)) as (ann, _):
            futures = [ann.request(BEN, read(), timeout_s=LONG_S) for _ in range(4)]
            assert [future.done() for future in futures] == [False, False, False, True]
            with pytest.raises(PeerUnreachableError, match="3 requests are unanswered"):
                await futures[3]

    run(scenario())


def test_more_bytes_than_allowed_for_a_peer_that_does_not_read_are_unreachable_at_once(run: Run) -> None:
    async def scenario() -> None:
        limits = PeerLimits(unwritten_bytes_max=2 * 2**20)
        async with ann_and_a_stranger(Hello(1, "cluster", BEN), limits=limits) as (ann, strangers):
            await until(lambda: ann.connected()[BEN])
            strangers[0].transport.pause_reading()
            futures = [ann.request(BEN, read(b"x" * 2**20), timeout_s=LONG_S)]
            while not futures[-1].done():
                await asyncio.sleep(0)
                futures.append(ann.request(BEN, read(b"x" * 2**20), timeout_s=LONG_S))
            with pytest.raises(PeerUnreachableError, match="bytes wait for the network"):
                await futures[-1]
            ann.set_peers({})
            errors = await asyncio.gather(*futures, return_exceptions=True)
            assert {type(error) for error in errors} == {PeerLostError, PeerUnreachableError}

    run(scenario())


def test_a_request_over_the_frame_limit_is_not_sent(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben(limits=PeerLimits(frame_bytes_max=100)) as (ann, _):
            with pytest.raises(PeerUnreachableError, match="over the 100"):
                await ann.request(BEN, read(b"x" * 100), timeout_s=LONG_S)

    run(scenario())


def test_a_server_serves_a_bounded_number_at_once_and_all_in_the_end(run: Run) -> None:
    running, most = 0, 0

    async def counted(sender: NodeId, request: Request) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return await echo(sender, request)

    async def scenario() -> None:
        async with ann_and_ben(counted, server_limits=PeerLimits(requests_served_max=5)) as (ann, _):
            keys = [str(i).encode() for i in range(400)]
            replies = await asyncio.gather(*(ann.request(BEN, read(key), timeout_s=LONG_S) for key in keys))
            assert replies == [Found(key) for key in keys]
            assert most == 5

    run(scenario())


def test_a_caller_that_does_not_take_its_answers_stops_being_served(run: Run) -> None:
    served = 0

    async def large(sender: NodeId, request: Request) -> Reply:
        nonlocal served
        served += 1
        return Found(b"x" * 2**20)

    async def scenario() -> None:
        async with peers(BEN, large) as ben:
            stranger = await stranger_calls_on(await ben.listen("127.0.0.1", 0), Hello(1, "cluster", ANN))
            await until(lambda: len(stranger.heard()) == 1)
            stranger.transport.pause_reading()
            sent = 0
            (incoming,) = ben._server.connections
            while not incoming._is_paused:
                sent += 1
                stranger.transport.write(encode(Call(sent, 8000, read())))
                await asyncio.sleep(0)
            stranger.transport.write(b"".join(encode(Call(sent + i, 8000, read())) for i in range(1, 51)))
            for _ in range(50):
                await asyncio.sleep(0)
            assert served <= sent  # nothing that came after the pause
            stranger.transport.resume_reading()
            await until(lambda: served == sent + 50)
            stranger.transport.abort()

    run(scenario())


# Strangers.


def test_a_node_of_another_cluster_is_rejected_and_told_why(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN, cluster_id="one") as ann, peers(BEN, cluster_id="two") as ben:
            ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            with pytest.raises(PeerUnreachableError, match=f"{ANN} belongs to cluster one and node {BEN} to two"):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    run(scenario())


@pytest.mark.parametrize(("ours", "theirs"), [("", "two"), ("one", ""), ("", "")])
def test_a_node_without_a_cluster_may_talk_to_all(run: Run, ours: str, theirs: str) -> None:
    async def scenario() -> None:
        async with peers(ANN, cluster_id=ours) as ann, peers(BEN, cluster_id=theirs) as ben:
            ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")

    run(scenario())


def test_a_node_that_joined_a_cluster_is_checked_by_it(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN, cluster_id="") as ann, peers(BEN, cluster_id="two") as ben:
            address = f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"
            assert await ann.introduce(address, read(), timeout_s=LONG_S) == Found(b"k")
            ann.cluster_id = "one"
            with pytest.raises(PeerUnreachableError, match="belongs to cluster one"):
                await ann.introduce(address, read(), timeout_s=LONG_S)

    run(scenario())


def test_a_server_rejects_another_protocol_version_and_says_so(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN) as ben:
            stranger = await stranger_calls_on(await ben.listen("127.0.0.1", 0), Hello(99, "cluster", ANN))
            await until(lambda: stranger.is_lost)
            (rejected,) = stranger.heard()
            assert isinstance(rejected, Rejected)
            assert "speaks peer protocol 99" in rejected.message

    run(scenario())


def test_a_caller_leaves_a_server_of_another_protocol_version(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(limits=PeerLimits(backoff_min_s=5, backoff_max_s=5)) as (ann, strangers):
            future = ann.request(BEN, read(), timeout_s=LONG_S)
            strangers[0].transport.write(encode(Hello(99, "cluster", BEN)))
            with pytest.raises(PeerUnreachableError, match="speaks peer protocol 99"):
                await future

    run(scenario())


def test_another_node_at_the_address_of_a_peer_is_not_taken_for_it(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann, peers(CAT) as cat:
            ann.set_peers({BEN: f"127.0.0.1:{await cat.listen('127.0.0.1', 0)}"})
            with pytest.raises(PeerUnreachableError, match=f"node {CAT} answers there"):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    run(scenario())


GREETED = [Hello(1, "cluster", ANN)]


@pytest.mark.parametrize(
    ("greeting", "noise", "is_reported"),
    [
        ([], b"GET / HTTP/1.1\r\n\r\n", False),
        ([], encode(Call(1, 5, FetchMap(1))), False),
        ([], (5000).to_bytes(4, "big"), False),
        (GREETED, b"\x00\x00\x00\x01\xc1", True),
        (GREETED, b"\xff\xff\xff\xff", True),
        (GREETED, encode(Answer(1, Done())), True),
        (GREETED, encode(Hello(1, "cluster", ANN)), True),
    ],
)
def test_a_server_closes_on_noise(run: Run, greeting: list[Frame], noise: bytes, is_reported: bool) -> None:
    seen: list[BaseException] = []

    async def scenario() -> None:
        async with peers(BEN, on_error=seen.append) as ben:
            stranger = await stranger_calls_on(await ben.listen("127.0.0.1", 0), *greeting)
            if greeting:
                await until(lambda: len(stranger.heard()) == 1)
            stranger.transport.write(noise)
            await until(lambda: stranger.is_lost)
            assert [type(error) for error in seen] == [CorruptionError] * is_reported

    run(scenario())


@pytest.mark.parametrize("noise", [b"\x00\x00\x00\x01\xc1", b"\xff\xff\xff\xff", encode(Call(1, 5, FetchMap(1)))])
def test_a_caller_drops_a_server_that_sends_noise_and_connects_again(run: Run, noise: bytes) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(1, "cluster", BEN)) as (ann, strangers):
            future = ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: bool(strangers[0].calls()))
            strangers[0].transport.write(noise)
            with pytest.raises(PeerLostError):
                await future
            await until(lambda: len(strangers) == 2 and ann.connected()[BEN])

    run(scenario())


def test_a_server_closes_on_a_caller_that_says_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, limits=PeerLimits(connect_timeout_s=0.05)) as ben:
            stranger = await stranger_calls_on(await ben.listen("127.0.0.1", 0))
            await until(lambda: stranger.is_lost)

    run(scenario())


def test_a_caller_gives_up_on_a_server_that_says_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(limits=PeerLimits(connect_timeout_s=0.05)) as (ann, _):
            with pytest.raises(PeerUnreachableError, match=r"within 0\.05 s"):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    run(scenario())


# Introductions, changes of the map, ends.


def test_an_introduction_reaches_whoever_is_there_and_leaves_no_connection(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN, cluster_id="") as ann, peers(BEN) as ben:
            address = f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"
            assert await ann.introduce(address, read(), timeout_s=LONG_S) == Found(b"k")
            await until(lambda: not ben._server.connections)

    run(scenario())


def test_an_introduction_to_nobody_is_unreachable_and_to_silence_ends_with_its_deadline(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann, peers(BEN, never) as ben:
            address = f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"
            with pytest.raises(PeerLostError):
                await ann.introduce(address, read(), timeout_s=SOON_S)
            await ben.close()
            with pytest.raises(PeerUnreachableError, match="no connection to"):
                await ann.introduce(address, read(), timeout_s=LONG_S)

    run(scenario())


def test_a_peer_that_moved_is_followed_and_one_that_left_is_forgotten(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann, peers(BEN) as ben:
            ports = [await ben.listen("127.0.0.1", 0) for _ in range(2)]
            for port in ports:
                ann.set_peers({ANN: "127.0.0.1:1", BEN: f"127.0.0.1:{port}"})
                assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")
                assert ann.connected() == {BEN: True}
            ann.set_peers({})
            assert ann.connected() == {}
            await until(lambda: not ben._server.connections)

    run(scenario())


def test_closing_fails_what_is_pending_and_cancels_what_is_served(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben(never) as (ann, ben):
            future = ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: bool(ben._server.tasks))
            introduction = ann.introduce(next(iter(ann._links.values())).address, read(), timeout_s=LONG_S)
            await until(lambda: len(ben._server.tasks) == 2)
            await ann.close()
            with pytest.raises(PeerLostError, match="closed"):
                await future
            assert introduction.cancelled()
            await ben.close()
            assert not ben._server.tasks
            assert not ben._server.connections

    run(scenario())


def test_a_caller_that_goes_away_does_not_stop_what_it_asked_for(run: Run) -> None:
    gate = asyncio.Event()
    done: list[bool] = []

    async def slow(sender: NodeId, request: Request) -> Reply:
        await gate.wait()
        done.append(True)
        return Done()

    async def scenario() -> None:
        async with ann_and_ben(slow) as (ann, ben):
            ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: bool(ben._server.tasks))
            ann.set_peers({})
            await until(lambda: not ben._server.connections)
            gate.set()
            await until(lambda: done == [True] and not ben._server.tasks)

    run(scenario())


def test_a_cancelled_future_takes_no_answer(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_ben() as (ann, _):
            await ann.request(BEN, read(), timeout_s=LONG_S)
            ann.request(BEN, read(b"1"), timeout_s=LONG_S).cancel()
            assert await ann.request(BEN, read(b"2"), timeout_s=LONG_S) == Found(b"2")

    run(scenario())


def test_a_failure_nobody_asks_about_is_not_complained_of(run: Run) -> None:
    async def scenario() -> None:
        async with peers(ANN) as ann:
            ann.request(BEN, read(), timeout_s=LONG_S)
            connection = Connection(ann._identity, PeerLimits(), address="nowhere", expected=None)
            connection.request(read(), LONG_S)
            connection.close("given up")

    run(scenario())
