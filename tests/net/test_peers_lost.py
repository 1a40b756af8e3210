"""Peers over loopback: how a lost peer is told from an unreachable one."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import PeerLostError, PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Done, Found, Reply, Request
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Answer, Hello
from merganser.net.frames import encode
from merganser.net.limits import PeerLimits
from net.peers_by_hand import (
    ANN,
    BEN,
    CAT,
    LONG_S,
    SOON_S,
    Run,
    ann_and_a_stranger,
    ann_and_ben,
    never,
    peers,
    read,
    until,
)


def test_silence_past_the_deadline_is_a_lost_peer_and_the_late_answer_is_dropped(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN)) as (ann, strangers):
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
            await until(lambda: cancelled == [True] and not ben._server.serving)

    run(scenario())


def test_a_server_that_dies_with_a_request_in_hand_is_a_lost_peer(run: Run) -> None:
    async def scenario() -> None:
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN)) as (ann, strangers):
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
            strangers[0].transport.write(encode(Hello(NEWEST, "cluster", BEN)))
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


def test_a_peer_that_comes_back_and_says_hello_is_asked_at_once_whatever_the_backoff(run: Run) -> None:
    async def scenario() -> None:
        for_ever = PeerLimits(backoff_min_s=3600.0, backoff_max_s=3600.0)
        async with peers(ANN, limits=for_ever) as ann, peers(BEN) as ben:
            address_of_ann = f"127.0.0.1:{await ann.listen('127.0.0.1', 0)}"
            port = await ben.listen("127.0.0.1", 0)
            await ben.close()
            ann.set_peers({BEN: f"127.0.0.1:{port}"})
            with pytest.raises(PeerUnreachableError):
                await ann.request(BEN, read(), timeout_s=LONG_S)
            assert not ann.is_reachable(BEN)
            async with peers(BEN) as again:
                await again.listen("127.0.0.1", port)
                again.set_peers({ANN: address_of_ann})
                await until(lambda: ann.is_reachable(BEN))
                assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")

    run(scenario())
