"""Peers over loopback: who is not taken for a peer, and what is said to them."""

from __future__ import annotations

import pytest

from merganser.model.errors import CorruptionError, PeerLostError, PeerUnreachableError
from merganser.model.messages import Done, FetchMap, Found
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Answer, Call, Frame, Hello, Rejected
from merganser.net.frames import encode
from merganser.net.limits import PeerLimits
from net.peers_by_hand import ANN, BEN, CAT, LONG_S, Run, ann_and_a_stranger, peers, read, stranger_calls_on, until


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


GREETED = [Hello(NEWEST, "cluster", ANN)]


@pytest.mark.parametrize(
    ("greeting", "noise", "is_reported"),
    [
        ([], b"GET / HTTP/1.1\r\n\r\n", False),
        ([], encode(Call(1, 5, FetchMap(1))), False),
        ([], (5000).to_bytes(4, "big"), False),
        (GREETED, b"\x00\x00\x00\x01\xc1", True),
        (GREETED, b"\xff\xff\xff\xff", True),
        (GREETED, encode(Answer(1, Done())), True),
        (GREETED, encode(Hello(NEWEST, "cluster", ANN)), True),
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
        async with ann_and_a_stranger(Hello(NEWEST, "cluster", BEN)) as (ann, strangers):
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
