"""Peers over loopback: how much may wait, be written and be served at once."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import PeerBusyError, PeerLostError, PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Found, Reply, Request
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Call, Hello
from merganser.net.frames import encode
from merganser.net.limits import PeerLimits
from net.peers_by_hand import (
    ANN,
    BEN,
    LONG_S,
    Run,
    ann_and_a_stranger,
    ann_and_ben,
    echo,
    never,
    peers,
    read,
    stranger_calls_on,
    until,
)


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
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN), limits=limits) as (ann, strangers):
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
            assert {type(error) for error in errors} == {PeerLostError, PeerUnreachableError, PeerBusyError}

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
            port = await ben.listen("127.0.0.1", 0)
            stranger = await stranger_calls_on(port, Hello(NEWEST, "cluster", ANN))
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


def test_more_incoming_connections_than_allowed_are_closed_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, echo, limits=PeerLimits(connections_max=2)) as ben:
            port = await ben.listen("127.0.0.1", 0)
            taken = [await stranger_calls_on(port, Hello(NEWEST, "cluster", ANN)) for _ in range(2)]
            await until(lambda: all(len(stranger.heard()) == 1 for stranger in taken))
            late = await stranger_calls_on(port, Hello(NEWEST, "cluster", ANN))
            await until(lambda: late.is_lost)
            assert late.heard() == []
            for stranger in taken:
                stranger.transport.abort()

    run(scenario())
