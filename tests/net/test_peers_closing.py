"""Peers over loopback: introductions, changes of the map, ends."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import PeerLostError, PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Done, Found, Reply, Request
from merganser.net.limits import PeerLimits
from merganser.net.link import Connection
from net.peers_by_hand import ANN, BEN, LONG_S, SOON_S, Run, ann_and_ben, never, peers, read, until


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
            await until(lambda: bool(ben._server.serving))
            introduction = ann.introduce(next(iter(ann._links.values())).address, read(), timeout_s=LONG_S)
            await until(lambda: len(ben._server.serving) == 2)
            await ann.close()
            with pytest.raises(PeerLostError, match="closed"):
                await future
            assert introduction.cancelled()
            await ben.close()
            assert not ben._server.serving
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
            await until(lambda: bool(ben._server.serving))
            ann.set_peers({})
            await until(lambda: not ben._server.connections)
            gate.set()
            await until(lambda: done == [True] and not ben._server.serving)

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
