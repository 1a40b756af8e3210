"""Peers named Ann, Ben and Cat on free ports, and strangers who say what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from merganser.model.ids import NodeId, TableId
from merganser.model.messages import Found, Read, Reply, Request
from merganser.model.versions import SPOKEN, Versions
from merganser.net.frame_bodies import Call, Frame
from merganser.net.frames import FrameDecoder, encode
from merganser.net.limits import PeerLimits
from merganser.net.peers import Peers
from merganser.net.transport import Beginner, Handler, begins_nothing

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
    begin: Beginner = begins_nothing,
    cluster_id: str = "cluster",
    on_error: Callable[[BaseException], None] = no_errors,
    limits: PeerLimits | None = None,
    versions: Versions = SPOKEN,
) -> AsyncIterator[Peers]:
    made = Peers(
        node,
        cluster_id=cluster_id,
        random=random.Random(1),
        handler=handler,
        begin=begin,
        on_error=on_error,
        limits=limits,
        versions=versions,
    )
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def ann_and_ben(
    handler: Handler = echo,
    *,
    begin: Beginner = begins_nothing,
    limits: PeerLimits | None = None,
    server_limits: PeerLimits | None = None,
    on_error: Callable[[BaseException], None] = no_errors,
) -> AsyncIterator[tuple[Peers, Peers]]:
    async with (
        peers(ANN, limits=limits) as ann,
        peers(BEN, handler, begin=begin, limits=server_limits, on_error=on_error) as ben,
    ):
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
