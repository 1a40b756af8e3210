"""Clients written by others, which send what a node cannot decode: told which field it is, and served on."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.client.errors import wrong_request
from merganser.model.client_messages import CLIENT_REQUESTS, ClientPut, FetchRing
from merganser.model.errors import CorruptionError, RequestError
from merganser.model.ids import NodeId
from merganser.model.messages import Found, MapIs, Reply, Request
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Answer, Call, Hello, Rejected, Unreadable
from merganser.net.frames import FrameDecoder, encode
from merganser.net.limits import PeerLimits
from merganser.net.transport import refusal
from merganser.net.unreadable import unreadable
from net.peers_by_hand import ANN, BEN, Run, peers, stranger_calls_on, until

HELLO = Hello(NEWEST, "", ANN, NEWEST, is_client=True)
RIGHT = [72, "t", b"k", b"v", b"", "QUORUM", 1000]


async def answers(sender: NodeId, request: Request) -> Reply:
    return MapIs(7, None)


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def call(*parts: Any) -> bytes:
    return framed(msgspec.msgpack.encode([3, *parts]))


def changed(field: str, value: Any) -> list[Any]:
    request = [*RIGHT, None, "", "", [], [], ""]
    request[1 + ClientPut.__struct_fields__.index(field)] = value
    return request


WRONG = [
    ((changed("value", "text"),), "ClientPut.value: Expected `bytes"),
    ((changed("ttl_s", 1.5),), "ClientPut.ttl_s: Expected `int | null`, got `float`"),
    ((changed("metadata", [["a", 5]]),), "ClientPut.metadata[0][1]: Expected `str`, got `int`"),
    ((changed("table", b"t"),), "ClientPut.table: Expected `str`, got `bytes`"),
    ((RIGHT[:3],), "ClientPut: Expected `array` of at least length 7, got 3; its fields are table, key, value"),
    (([250, "t"],), "250 is the number of no kind of request that this release knows"),
    (([["a"]],), "['a'] is the number of no kind of request"),
    (([],), "a request is an array that begins with the number of its kind"),
    (({"table": "t"},), "a request is an array that begins with the number of its kind"),
    ((), "this one ends before its request"),
]


@pytest.mark.parametrize(("rest", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_request_that_cannot_be_decoded_is_answered_and_the_connection_goes_on(
    run: Run, rest: tuple[Any, ...], told: str
) -> None:
    async def scenario() -> None:
        async with peers(BEN, answers) as ben:  # which tolerates no report of an error
            client = await stranger_calls_on(await ben.listen("127.0.0.1", 0), HELLO)
            before, after = encode(Call(1, 9000, FetchRing(0))), encode(Call(3, 9000, FetchRing(0)))
            client.transport.write(before + call(2, 9000, *rest) + after)
            await until(lambda: len(client.heard()) == 4 or client.is_lost)
            answered = {frame.id: frame.body for frame in client.heard() if isinstance(frame, Answer)}
            refused = answered.pop(2)
            assert answered == {1: MapIs(7, None), 3: MapIs(7, None)}
            error = wrong_request(refusal(refused))  # type: ignore[arg-type]
            assert type(error) is RequestError
            assert told in str(error)
            assert not client.is_lost

    run(scenario())


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_the_stream_goes_on_behind_it_however_it_is_cut(piece: int) -> None:
    decoder, right = FrameDecoder(rescue=unreadable), Call(3, 9000, FetchRing(0))
    stream = call(2, 9000, changed("value", "text")) + encode(right) + call(4, 9000, [250]) + encode(right)
    frames = [frame for at in range(0, len(stream), piece) for frame in decoder.feed(stream[at : at + piece])]
    assert [frame.id for frame in frames] == [2, 3, 4, 3]  # type: ignore[union-attr]
    assert [type(frame) for frame in frames] == [Unreadable, Call] * 2


def test_a_wrong_time_of_a_call_is_named(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, answers) as ben:
            client = await stranger_calls_on(await ben.listen("127.0.0.1", 0), HELLO)
            client.transport.write(call(2, "5 s", [70, 0]))
            await until(lambda: len(client.heard()) == 2)
            assert "timeout_ms of the call: Expected `int`, got `str`" in str(client.heard()[1])

    run(scenario())


BROKEN = {
    "no msgpack": framed(b"\xc1"),
    "cut off": framed(msgspec.msgpack.encode([3, 1, 9000, RIGHT])[:-3]),
    "no id": call("one", 9000, RIGHT),
    "no array": framed(msgspec.msgpack.encode({"call": 3})),
    "another kind of frame": framed(msgspec.msgpack.encode([9, 1, 9000, RIGHT])),
    "too long": b"\xff\xff\xff\xff",
}


@pytest.mark.parametrize("noise", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_greeted", [True, False])
def test_a_frame_that_is_broken_closes_the_connection_after_saying_why(
    run: Run, noise: bytes, is_greeted: bool
) -> None:
    seen: list[BaseException] = []

    async def scenario() -> None:
        async with peers(BEN, answers, on_error=seen.append) as ben:
            client = await stranger_calls_on(await ben.listen("127.0.0.1", 0), *[HELLO] * is_greeted)
            if is_greeted:
                await until(lambda: bool(client.heard()))
            client.transport.write(noise)
            await until(lambda: client.is_lost)
            last = client.heard()[-1]
            assert isinstance(last, Rejected)
            assert "not a frame" in last.message or "are allowed" in last.message
            assert [type(error) for error in seen] == [CorruptionError] * is_greeted
            assert len(ben._server.connections) == 0

    run(scenario())


def test_a_stranger_that_does_not_take_the_last_word_is_closed_all_the_same(run: Run) -> None:
    async def answers_much(sender: NodeId, request: Request) -> Reply:
        return Found(b"x" * 2**20)

    async def scenario() -> None:
        limits = PeerLimits(connect_timeout_s=0.05)
        async with peers(BEN, answers_much, on_error=lambda _: None, limits=limits) as ben:
            client = await stranger_calls_on(await ben.listen("127.0.0.1", 0), HELLO)
            await until(lambda: bool(client.heard()))
            client.transport.pause_reading()
            unread = encode(Call(1, 9000, FetchRing(0)))
            (incoming,) = ben._server.connections
            while not incoming._is_paused:
                client.transport.write(unread)
                await asyncio.sleep(0)
            incoming.data_received(b"\xff\xff\xff\xff")
            await until(lambda: not ben._server.connections)
            client.transport.abort()
            await until(lambda: client.is_lost)

    run(scenario())


@given(st.binary(max_size=40), st.integers(0, 2**63 - 1))
def test_whatever_follows_the_id_there_is_a_complaint_or_the_frame_is_broken(noise: bytes, request_id: int) -> None:
    head = msgspec.msgpack.encode([3, request_id])
    for length in range(2, 5):
        told = unreadable(bytes([0x90 + length]) + head[1:] + noise)
        assert told is None or told.id == request_id


def test_each_request_of_clients_is_named_with_its_fields() -> None:
    for kind in CLIENT_REQUESTS:
        tag = kind.__struct_config__.tag  # type: ignore[attr-defined]
        told = unreadable(msgspec.msgpack.encode([3, 5, 1000, [tag]]))
        assert told is not None
        assert told.why.startswith(f"{kind.__name__}: Expected `array` of at least length")
