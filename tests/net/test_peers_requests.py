"""Peers over loopback: who gets which answer or refusal, and when it leaves."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import InvariantError, RefusedError, TableNotFoundError
from merganser.model.ids import NodeId
from merganser.model.messages import Found, Read, Reply, Request
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Call, Hello
from merganser.net.frames import encode
from merganser.net.limits import PeerLimits
from merganser.net.peers import Peers
from merganser.net.transport import Traffic, Transport
from net.peers_by_hand import (
    ANN,
    BEN,
    LONG_S,
    Run,
    ann_and_a_stranger,
    ann_and_ben,
    peers,
    read,
    stranger_calls_on,
    until,
)


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
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN)) as (ann, strangers):
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
            stranger = await stranger_calls_on(port, Hello(NEWEST, "cluster", ANN))
            await until(lambda: len(stranger.heard()) == 1)
            stranger.transport.write(b"".join(encode(Call(i, 5000, read())) for i in range(50)))
            await until(lambda: len(stranger.heard()) == 51)
            assert len(stranger.pieces) == 2
            stranger.transport.abort()

    run(scenario())


def test_a_deadline_travels_as_the_time_that_remains(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN)) as (ann, strangers):
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
